"""A policy and the steering of its noise: share zero is the base to the bit, w by hand, folders keep both."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    GaussianHeadConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.deploy.inference import accelerate
from robolearn.deploy.realtime import RealtimeRunner
from robolearn.errors import PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.folder import BASE_FOLDER, CONFIG_FILE, load_policy, save_policy
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.policies.steered import SteeredPolicy, Steering, build_steering
from tests.deploy.test_runner import check_company
from tests.policies.test_residual import frames, run, with_correction
from tests.policies.toy import ACTION, OBSERVATION, make_batch, make_obs, make_policy

NETWORK = DenoisingMLPConfig(width=16, num_blocks=1)
DIFFUSION = DiffusionHeadConfig(network=NETWORK, train_steps=20, inference_steps=4)
HEADS: dict[str, Any] = {
    "flow": FlowHeadConfig(network=NETWORK, inference_steps=3),
    "midpoint": FlowHeadConfig(network=NETWORK, inference_steps=2, solver="midpoint"),
    "ddim": DIFFUSION,
    "dpm": replace(DIFFUSION, solver="dpm"),
}
SMALL = PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(16,)))


def make_base(head: str = "flow", **config: Any) -> Policy:
    steps: dict[str, Any] = {"obs_steps": 2, "pred_steps": 4, "exec_steps": 3} | config
    return make_policy(HEADS[head], **steps).eval()


def steered(base: Policy, share: float = 0.0, *, seed: int = 1, bound: float = 1.5) -> SteeredPolicy:
    """A steering of drawn weights."""
    steering = build_steering(SMALL, base, bound).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in steering.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
        steering.share.fill_(share)
    return SteeredPolicy(base, steering).eval()


@pytest.mark.parametrize("options", [{}, {"exec_steps": 1}, {"temporal_ensemble": 0.1}, {"replan_at": 5}])
@pytest.mark.parametrize("head", HEADS)
def test_at_share_zero_it_is_the_base_bit_for_bit(head: str, options: dict[str, Any]) -> None:
    """Whatever the steering's weights: by a runner, which draws for every chunk, and by the fixed draw of `act`."""
    base = make_base(head)
    policy, window = steered(base), make_obs(3, 2)
    assert torch.equal(run(policy, **options), run(base, **options))
    assert torch.equal(policy.act(window, deterministic=True), base.act(window, deterministic=True))
    assert not torch.equal(run(steered(base, 0.5), **options), run(base, **options))


def test_the_noise_by_hand() -> None:
    """w = sqrt(1 - share^2) z + share bound tanh(mean + std e), from the networks themselves; z is drawn first."""
    policy, window = steered(make_base(), 0.6, bound=2.0), make_obs(5, 2)
    steering = policy.steering
    generator = torch.Generator().manual_seed(3)
    z, e = (torch.randn(5, 4, 3, generator=generator) for _ in range(2))
    inner = steering.distribution(window)
    mean, std = inner.mean, inner.std  # type: ignore[attr-defined]
    u, slope = torch.tanh(mean + std * e), torch.cosh((mean + std * e).double()) ** -2
    noise = BatchNoise(5, "cpu", torch.Generator().manual_seed(3))
    w, log_prob = steering.sample(window, noise)
    torch.testing.assert_close(w, 0.8 * z + 0.6 * 2.0 * u)
    density = torch.distributions.Normal(mean, std).log_prob(mean + std * e) - slope.log()
    torch.testing.assert_close(log_prob, density.sum((-1, -2)).float(), rtol=1e-4, atol=1e-4)
    mode = steering.mode(window, BatchNoise(5, "cpu", torch.Generator().manual_seed(3)))
    torch.testing.assert_close(mode, 0.8 * z + 0.6 * 2.0 * torch.tanh(mean))
    noise = BatchNoise(5, "cpu", torch.Generator().manual_seed(3))
    assert torch.equal(policy.act(window, noise=noise), policy.decode(window, w))


def test_a_fresh_steering_begins_at_the_middle_and_sees_by_the_bases_normalisers() -> None:
    base, window = make_base(), make_obs(4, 2)
    steering = build_steering(SMALL, base, 1.5)
    assert steering.share == 0.0
    assert torch.equal(steering.distribution(window).mode(), torch.zeros(4, 4, 3))
    assert torch.equal(steering.encoder(window), base.encoder(window))
    assert (steering.config.obs_steps, steering.config.pred_steps, steering.config.exec_steps) == (2, 4, 3)
    some = build_steering(replace(SMALL, obs_keys=("goal.xy",)), base, 1.5)
    assert tuple(some.observation_spec) == ("goal.xy",)
    policy = SteeredPolicy(base, some)
    assert tuple(policy.observation_spec) == tuple(OBSERVATION)
    assert policy.act(window).shape == (4, 4, 3)


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_episode_is_bit_identical_in_any_company(deterministic: bool) -> None:
    check_company(steered(make_base(), 0.7), [9, 4, 7, 1, 5, 8], deterministic=deterministic)


def test_folders_keep_both(tmp_path: Path) -> None:
    """Of a steered policy, and of one with a correction, which lies around it."""
    policy = steered(make_base("ddim"), 0.7)
    for whole in (policy, with_correction(policy, 0.3, seed=2)):
        save_policy(whole, tmp_path / "p", env_args={"env_name": "toy"})
        loaded = load_policy(tmp_path / "p")
        assert type(loaded) is type(whole)
        assert torch.equal(run(loaded), run(whole))
        assert loaded.kind == whole.kind
        assert "diffusion on mlp, steered" in (tmp_path / "p" / "card.md").read_text()
        assert torch.equal(run(load_policy(tmp_path / "p" / BASE_FOLDER)), run(whole.base)), "of its own"
    assert not torch.equal(run(whole), run(policy))


def test_folders_without_their_base_are_refused(tmp_path: Path) -> None:
    save_policy(steered(make_base(), 0.7), tmp_path / "p")
    text = (tmp_path / "p" / CONFIG_FILE).read_text()
    (tmp_path / "p" / CONFIG_FILE).write_text(yaml.safe_dump(yaml.safe_load(text) | {"steers": "../elsewhere"}))
    with pytest.raises(PolicyError, match=r"steers must be 'base', a folder within, received '../elsewhere'"):
        load_policy(tmp_path / "p")
    (tmp_path / "p" / CONFIG_FILE).write_text(text)
    save_policy(make_base(exec_steps=2), tmp_path / "other")
    shutil.rmtree(tmp_path / "p" / BASE_FOLDER)
    shutil.copytree(tmp_path / "other", tmp_path / "p" / BASE_FOLDER)
    with pytest.raises(PolicyError, match=r"exec_steps \(2, 4, 3\), is not one of a policy .* with \(2, 4, 2\)"):
        load_policy(tmp_path / "p")


def test_real_time_and_fast_inference_steer_as_well() -> None:
    policy = steered(make_base(exec_steps=4), 1.0)
    expected = run(policy, 1, 4)
    for fast in (policy, accelerate(policy, dtype=torch.float32)):
        assert isinstance(fast, SteeredPolicy)
        with RealtimeRunner(fast, control_hz=100.0) as runner:
            sequence = frames(4, 1)
            runner.start({key: value[0] for key, value in sequence[0].items()})
            found = torch.stack([runner.act({key: value[0] for key, value in obs.items()}) for obs in sequence])
        torch.testing.assert_close(found, expected[:, 0], rtol=0, atol=1e-5)


def test_what_it_cannot_do_is_refused() -> None:
    policy = steered(make_base())
    with pytest.raises(PolicyError, match=r"a steered policy is not trained by cloning.*the folder `base` within"):
        policy.loss(make_batch(4, 2, 4))
    with pytest.raises(PolicyError, match="finetune --method residual"):
        policy.distribution(make_obs(2, 2))
    with pytest.raises(PolicyError, match="SteeredPolicy"):
        policy.steering.act(make_obs(2, 2))
    assert not policy.exact_likelihood


def test_bases_that_cannot_be_steered(tmp_path: Path) -> None:
    def refused(base: Policy, message: str) -> None:
        with pytest.raises(PolicyError, match=message):
            build_steering(SMALL, base, 1.5)

    refused(make_policy(MixtureHeadConfig()), r"has head 'mixture'; method residual takes any policy as its base")
    for head in (replace(DIFFUSION, solver="ddpm"), replace(DIFFUSION, eta=0.5)):
        refused(make_policy(head), r"without noise of its own.*solver ddim and eta 0 under policy.head in")
    refused(steered(make_base()), r"this one is flow on mlp, steered; steer its base")
    refused(with_correction(make_base(), 0.2), r"corrected by up to 0.2; steer its base .*method residual")
    plain = build_policy(PolicyConfig(head=HEADS["flow"]), OBSERVATION, ACTION)
    refused(plain, r"does not normalise 'state'.*obs_normalisation mean_std")
    with pytest.raises(PolicyError, match="head gaussian with squash true"):
        build_steering(PolicyConfig(head=GaussianHeadConfig(squash=False)), make_base(), 1.5)


def test_the_remedy_of_a_noisy_sampler_works(tmp_path: Path) -> None:
    """As the message says: another sampler by the same network, in the folder's configuration."""
    save_policy(make_policy(replace(DIFFUSION, solver="ddpm")), tmp_path / "p")
    path = tmp_path / "p" / CONFIG_FILE
    description = yaml.safe_load(path.read_text())
    description["policy"]["head"] |= {"solver": "ddim", "eta": 0.0}
    path.write_text(yaml.safe_dump(description))
    assert isinstance(build_steering(SMALL, load_policy(tmp_path / "p"), 1.5), Steering)
