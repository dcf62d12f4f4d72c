"""The fast path computes the same function: exactly so in float32, up to the weights' rounding in bfloat16."""

from __future__ import annotations

import pytest
import torch

from robolearn.configuration.parts.policy import (
    ACTHeadConfig,
    ActionValuesHeadConfig,
    AutoregressiveHeadConfig,
    DenoisingTransformerConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    PolicyConfig,
    UNetConfig,
)
from robolearn.deploy import inference
from robolearn.deploy.inference import CompactLinear, accelerate, faster_dtype
from robolearn.deploy.unet_inference import UNetInference
from robolearn.policies.build import build_policy
from robolearn.policies.networks.unet1d import UNet1d
from robolearn.specs import ActionSpec
from tests.policies.toy import OBSERVATION, make_obs, make_policy, statistics


@pytest.mark.parametrize("steps", [1, 3, 8, 16])
@pytest.mark.parametrize("channels", [(16,), (16, 32), (16, 32, 48)])
def test_rearranged_unet_is_the_same_function(steps: int, channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    config = UNetConfig(channels=channels, num_groups=4, time_size=16, kernel_size=5)
    network = UNet1d(config, feature_size=6, action_size=3).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        x, features, time = torch.randn(2, steps, 3), torch.randn(2, 6), torch.tensor([3.0, 70.0])
        fast = UNetInference(network, torch.float32)
        condition = network.condition(time, features)
        assert torch.equal(fast.condition(time, features), condition)
        torch.testing.assert_close(fast(x, condition), network(x, condition), rtol=1e-4, atol=1e-5)


HEADS = {
    "diffusion": DiffusionHeadConfig(network=UNetConfig(channels=(64, 128), time_size=64)),
    "flow": FlowHeadConfig(network=DenoisingTransformerConfig(width=128, num_layers=2)),
    "autoregressive": AutoregressiveHeadConfig(width=128, num_layers=2),
    "act": ACTHeadConfig(width=128, num_heads=4, encoder_layers=1, decoder_layers=1),
}


@pytest.mark.parametrize("name", HEADS)
def test_actions_move_by_rounding_only(name: str) -> None:
    policy = make_policy(HEADS[name], pred_steps=8, exec_steps=4).eval()
    with torch.no_grad():  # off the initial weights, at which gated blocks are the identity
        for parameter in policy.head.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    fast, obs = accelerate(policy, dtype=torch.bfloat16), make_obs(1, 1)
    compact = [m for m in fast.modules() if isinstance(m, CompactLinear | UNetInference)]
    assert compact
    with torch.no_grad():
        exact, rounded = policy.act(obs, deterministic=True), fast.act(obs, deterministic=True)
    assert (exact - rounded).abs().max() < 0.03
    assert not torch.equal(exact, rounded)  # or the fast path was not taken
    assert all(torch.equal(value, before[key]) for key, value in policy.state_dict().items())


def test_values_of_very_many_actions_are_rounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "LARGE", 1)
    config = PolicyConfig(head=ActionValuesHeadConfig())
    policy = build_policy(config, OBSERVATION, ActionSpec.choices(3), statistics())
    fast = accelerate(policy, dtype=torch.bfloat16)
    assert isinstance(fast.head.linear, CompactLinear)
    assert fast.act(make_obs(2, 1), deterministic=True).abs().tolist() == [[[1.0] * 3]] * 2


def test_in_float32_nothing_changes() -> None:
    policy = make_policy(HEADS["diffusion"], pred_steps=8, exec_steps=4).eval()
    obs = make_obs(1, 1)
    with torch.no_grad():
        fast = accelerate(policy, dtype=torch.float32)
        assert torch.equal(fast.act(obs, deterministic=True), policy.act(obs, deterministic=True))


def test_the_data_type_is_one_of_two() -> None:
    assert faster_dtype(repeats=2) in (torch.float32, torch.bfloat16)
