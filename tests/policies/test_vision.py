"""Image encoders: crops and colours as they are described, keypoints in closed form, cameras shared or apart."""

from __future__ import annotations

import copy

import pytest
import torch

from robolearn.configuration.parts.policy import (
    DeterministicHeadConfig,
    MLPConfig,
    PolicyConfig,
    TransformerConfig,
    VisionConfig,
)
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.folder import PolicyCard, load_policy, save_policy
from robolearn.policies.policy import Policy
from robolearn.policies.vision import (
    NETWORKS,
    KeypointTrunk,
    SpatialSoftmax,
    TokenTrunk,
    build_image_encoders,
    center_crop,
    color_jitter,
    random_crop,
)
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

CAMERA = ArraySpec(shape=(40, 48, 3), dtype="uint8")
ACTION = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))


def pixel_policy(*, share: bool = False, **vision) -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(
        head=DeterministicHeadConfig(),
        backbone=MLPConfig(hidden_sizes=(32,)),
        vision=VisionConfig(share=share, keypoints=8, features=16, **vision),
    )
    spec = ObservationSpec({"front": CAMERA, "state": ArraySpec(shape=(2,)), "wrist": CAMERA})
    return build_policy(config, spec, ACTION)


def pixel_obs(B: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, B, 1, *CAMERA.shape), dtype=torch.uint8, generator=generator)
    return {"front": images[0], "state": torch.zeros(B, 1, 2), "wrist": images[1]}


def test_random_crop_cuts_every_image_out_of_itself_at_its_own_place() -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(9), indexing="ij")
    marks = torch.stack([rows, columns], 0).expand(200, 2, 12, 9) + 100 * torch.arange(200).view(-1, 1, 1, 1)
    crops, starts = random_crop(marks, (8, 6))
    corners = crops[:, :, 0, 0] - 100 * torch.arange(200).view(-1, 1)
    torch.testing.assert_close(crops - crops[:, :, :1, :1], (marks - marks[:, :, :1, :1])[..., :8, :6])
    torch.testing.assert_close(starts, corners)
    assert set(corners[:, 0].tolist()) == set(range(5))
    assert set(corners[:, 1].tolist()) == set(range(4))
    torch.testing.assert_close(center_crop(marks, (8, 6)), marks[:, :, 2:10, 1:7])


def test_color_jitter_keeps_grey_grey_and_changes_what_it_says() -> None:
    torch.manual_seed(0)
    grey = torch.full((50, 3, 4, 4), 0.4)
    changed = color_jitter(grey, 0.5)
    torch.testing.assert_close(changed[:, 0], changed[:, 2])
    assert 0.2 <= changed.min() < 0.25
    assert 0.55 < changed.max() <= 0.6
    picture = torch.rand(50, 3, 4, 4)
    torch.testing.assert_close(color_jitter(picture, 0.0), picture)
    assert (color_jitter(picture, 0.5) - picture).abs().mean() > 0.02


def test_spatial_softmax_reports_where_the_attention_lies() -> None:
    layer = SpatialSoftmax(2, 2)
    with torch.no_grad():
        layer.maps.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        layer.maps.bias.zero_()
    maps = torch.zeros(1, 2, 3, 5)
    maps[0, 0, 2, 1] = 50.0  # row 2 of 3 is y = 1, column 1 of 5 is x = -0.5
    keypoints = layer(maps)
    torch.testing.assert_close(keypoints[0, 0], torch.tensor([-0.5, 1.0]))
    torch.testing.assert_close(keypoints[0, 1], torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("network", ["resnet18", "shallow"])
def test_keypoints_are_told_in_the_whole_images_coordinates(network) -> None:
    """A spot seen through any crop is where it is; attention follows brightness."""
    config = VisionConfig(network=network, keypoints=1, features=2, crop=0.5)
    encoder = build_image_encoders({"front": ArraySpec(shape=(128, 160, 1), dtype="uint8")}, config)["front"]
    trunk = next(encoder.children())
    stride = NETWORKS[network].stride
    assert isinstance(trunk, KeypointTrunk)
    trunk.maps = torch.nn.MaxPool2d(stride + 1, stride, padding=stride // 2)  # as they see, without having learned
    trunk.softmax = SpatialSoftmax(1, 1)
    trunk.out = torch.nn.Identity()
    torch.nn.init.constant_(trunk.softmax.maps.weight, 200.0)
    images = torch.zeros(64, 128, 160, 1, dtype=torch.uint8)
    images[:, 64, 80] = 255
    assert encoder.crop == (64, 80)
    off = encoder.eval()(images[:1]).abs() / 2 * torch.tensor([128.0, 160.0])
    assert off.amax() <= stride / 2 + 1e-3, "the central crop"
    torch.manual_seed(0)
    seen = encoder.train()(images)
    inside = seen.abs().amax(1) < stride / 64  # of the rest nothing was seen, and attention is even
    assert inside.sum() > 30
    pixels = (seen[inside] + 1) / 2 * torch.tensor([128.0, 160.0])
    assert (pixels - torch.tensor([64.0, 80.0])).abs().amax() <= stride / 2 + 1e-3


def test_tokens_say_what_is_where_whatever_the_crop() -> None:
    config = VisionConfig(network="shallow", tokens=4, features=3, crop=0.5)
    encoder = build_image_encoders({"front": ArraySpec(shape=(128, 160, 1), dtype="uint8")}, config)["front"]
    trunk = next(encoder.children())
    assert isinstance(trunk, TokenTrunk)
    trunk.maps = torch.nn.MaxPool2d(5, 4, padding=2)
    trunk.content = torch.nn.Linear(1, 3)
    torch.nn.init.constant_(trunk.content.weight, 1.0)
    torch.nn.init.zeros_(trunk.content.bias)
    trunk.place = torch.nn.Linear(2, 3)  # (content, content + row, content + column)
    with torch.no_grad():
        trunk.place.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        trunk.place.bias.zero_()
    images = torch.zeros(64, 128, 160, 1, dtype=torch.uint8)
    images[:, 64, 80] = 255
    torch.manual_seed(0)
    tokens = encoder.train()(images)
    assert tokens.shape == (64, 16, 3)
    content, rows, columns = tokens[..., 0], tokens[..., 1] - tokens[..., 0], tokens[..., 2] - tokens[..., 0]
    brightest = content.argmax(1, keepdim=True)
    seen = content.gather(1, brightest)[:, 0] > content.median()  # of crops without the spot nothing stands out
    assert seen.sum() > 20
    cell = torch.tensor([16.0, 20.0]) / torch.tensor([128.0, 160.0])  # half a cell and more, in units of half an image
    off = torch.cat((rows.gather(1, brightest), columns.gather(1, brightest)), 1)[seen]
    assert (off.abs() <= cell + 0.05).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_transformer_looks_at_every_token_of_the_past(steps: int) -> None:
    torch.manual_seed(0)
    config = PolicyConfig(
        head=DeterministicHeadConfig(),
        obs_steps=steps,
        backbone=TransformerConfig(width=16, num_layers=2, num_heads=2),
        vision=VisionConfig(network="shallow", tokens=2, features=8),
    )
    spec = ObservationSpec({"front": CAMERA, "state": ArraySpec(shape=(2,)), "wrist": CAMERA})
    policy = build_policy(config, spec, ACTION).eval()
    obs = {
        "front": torch.randint(0, 256, (2, steps, *CAMERA.shape), dtype=torch.uint8),
        "state": torch.randn(2, steps, 2),
    }
    obs["wrist"] = obs["front"].roll(5, dims=-2)
    tokens = policy.encoder(obs).detach().requires_grad_()
    assert tokens.shape == (2, steps, 4 + 1 + 4, 8)
    features = policy.backbone(tokens)
    assert features.shape == (2, steps, 16)
    for i in range(steps):
        (grad,) = torch.autograd.grad(features[0, i, 0] + features[0, i].square().sum(), tokens, retain_graph=True)
        assert (grad[0, : i + 1].abs().sum(-1) > 0).all()
        assert (grad[0, i + 1 :] == 0).all()
    policy.train()
    policy.features(obs, every_step=True).square().sum().backward()
    trained = [*policy.encoder.parameters(), *policy.backbone.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_acting_is_deterministic_and_training_is_augmented() -> None:
    policy, obs = pixel_policy(jitter=0.3), pixel_obs(2)
    policy.train()
    assert not torch.equal(policy.features(obs), policy.features(obs))
    policy.eval()
    assert torch.equal(policy.features(obs), policy.features(obs))
    moved = {**obs, "front": obs["front"].roll(7, dims=3)}
    assert not torch.equal(policy.features(obs), policy.features(moved))


@pytest.mark.parametrize("share", [False, True])
def test_cameras_shared_or_apart_survive_saving_copying_and_training(share: bool, tmp_path) -> None:
    policy, obs = pixel_policy(share=share), pixel_obs(2)
    count = sum(p.numel() for p in policy.encoder.parameters())
    trunk = sum(p.numel() for p in build_image_encoders({"one": CAMERA}, policy.config.vision)["one"].parameters())
    assert count == trunk * (1 if share else 2)
    policy.train()
    policy.features(obs).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.encoder.parameters())
    policy.eval()
    save_policy(policy, tmp_path / "policy", PolicyCard())
    twin = copy.deepcopy(policy)
    with torch.no_grad():
        for p in policy.encoder.parameters():
            p.zero_()
    loaded = load_policy(tmp_path / "policy").eval()
    for other in (twin, loaded):
        assert not torch.equal(other.features(obs), policy.features(obs))
    assert torch.equal(twin.features(obs), loaded.features(obs))


def test_bad_images_are_named() -> None:
    small = {"tiny": ArraySpec(shape=(24, 24, 3), dtype="uint8")}
    with pytest.raises(PolicyError, match=r"image 'tiny' of 24 x 24 pixels is too small.*record larger images"):
        build_image_encoders(small, VisionConfig())
    depth = {"front": CAMERA, "depth": ArraySpec(shape=(40, 48, 1), dtype="uint8")}
    with pytest.raises(PolicyError, match=r"need the same channels, received \{'front': 3, 'depth': 1\}"):
        build_image_encoders(depth, VisionConfig(share=True))
    with pytest.raises(PolicyError, match=r"asks for 12 tokens along a side, but shallow makes 9 of image 'front'"):
        build_image_encoders({"front": CAMERA}, VisionConfig(network="shallow", tokens=12))
    with pytest.raises(ConfigError, match=r"a backbone that looks at each of them, which mlp does not; take .*transf"):
        PolicyConfig(vision=VisionConfig(tokens=2))
    with pytest.raises(ConfigError, match=r"crop must lie in \(0, 1\], received 0.0"):
        VisionConfig(crop=0.0)
