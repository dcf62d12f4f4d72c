"""What a policy is made of, and what it refuses to be made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any, Literal

import numpy as np
import pytest
import torch

from robolearn.configuration.parts import plugins as policy_plugins, policy as policy_config
from robolearn.configuration.parts.plugins import BaseHeadConfig
from robolearn.configuration.parts.policy import (
    AutoregressiveHeadConfig,
    DeterministicHeadConfig,
    GaussianHeadConfig,
    LSTMConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.configuration.tree import from_dict
from robolearn.errors import ConfigError, PolicyError, TrainingError
from robolearn.imitation.gates.gate import flat
from robolearn.policies.build import build_policy
from robolearn.policies.heads.deterministic import DeterministicHead
from robolearn.rl.collecting.sanity import check_observation
from robolearn.rl.running_statistics import ObservationStatistics
from robolearn.specs import ArraySpec, ObservationSpec
from tests.policies.toy import ACTION, OBSERVATION, make_batch, make_obs, make_policy, statistics

HEADS = {
    "l2": DeterministicHeadConfig(),
    "l1": DeterministicHeadConfig(error="l1"),
    "tanh": GaussianHeadConfig(),
    "gaussian": GaussianHeadConfig(squash=False, state_dependent_std=False),
    "mixture": MixtureHeadConfig(num_modes=3),
}


@pytest.mark.parametrize("backbone", ["mlp", "lstm"])
@pytest.mark.parametrize("head", list(HEADS))
def test_every_combination_trains_and_acts(head: str, backbone: str) -> None:
    policy = make_policy(HEADS[head], backbone, obs_steps=3, pred_steps=4, exec_steps=2)
    batch = make_batch(16, To=3, Tp=4)
    loss, _ = policy.loss(batch)
    loss.backward()
    without = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
    for deterministic in (True, False):
        chunk = policy.act(make_obs(6, 3), deterministic=deterministic)
        assert chunk.shape == (6, 4, 3)
        assert chunk.abs().max() <= 1
    if policy.exact_likelihood:
        sample = policy.distribution(make_obs(6, 3)).sample(torch_noise(6))
        assert policy.distribution(make_obs(6, 3)).log_prob(sample).shape == (6,)
    else:
        with pytest.raises(PolicyError, match="no exact log-probability"):
            policy.distribution(make_obs(6, 3))


def test_an_observation_may_be_a_single_number() -> None:
    """(B, To) windows of shape (), as of a gripper's opening."""
    spec = ObservationSpec({"state": ArraySpec(shape=(5,)), "gap": ArraySpec(shape=())})
    known = statistics()
    gap = {name: value[:1].reshape(()) for name, value in known["state"].items()}
    config = PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)), obs_steps=2)
    policy = build_policy(config, spec, ACTION, known | {"gap": gap})
    moments = ObservationStatistics(policy)
    obs = {"state": torch.randn(4, 2, 5), "gap": torch.randn(4, 2)}
    assert policy.act(obs).shape == (4, 1, 3)
    assert flat({key: value[:, -1] for key, value in obs.items()}, ["gap", "state"]).shape == (4, 6)
    moments.observe(obs)
    gaps = policy.encoder.encoders["obs:gap"].normaliser  # type: ignore[union-attr]
    assert float(gaps.offset) == pytest.approx(float(obs["gap"][:, -1].mean()), abs=1e-6)
    with pytest.raises(TrainingError, match="gap"):
        check_observation({"gap": torch.tensor([0.0, 1e9])}, ["gap"], seeds=[0, 1], steps=torch.zeros(2))


def torch_noise(rows: int) -> Any:
    from robolearn.policies.noise import BatchNoise

    return BatchNoise(rows, "cpu")


def test_observations_are_normalised_with_the_statistics() -> None:
    policy = make_policy(DeterministicHeadConfig())
    obs, stats = make_obs(4, 1), statistics()
    expected = np.concatenate(
        [(obs[k].numpy() - stats[k]["mean"]) / stats[k]["std"] for k in ("state", "goal.xy")], axis=-1
    )
    np.testing.assert_allclose(policy.encoder(obs).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_hidden_dimensions_change_nothing_and_far_ones_are_bounded() -> None:
    policy = make_policy(GaussianHeadConfig(), obs_ranges={"state": (1, 3)}, obs_clip=2.0).eval()
    obs = make_obs(4, 1)
    encoded = policy.encoder(obs)
    assert encoded.shape == (4, 1, 2 + 2)
    known = statistics()["state"]
    scaled = (obs["state"].numpy() - known["mean"]) / known["std"]
    np.testing.assert_allclose(encoded[..., :2], np.clip(scaled[..., 1:3], -2.0, 2.0), atol=1e-5)
    hidden = {key: value.clone() for key, value in obs.items()}
    hidden["state"][..., [0, 3, 4]] += 100.0
    assert torch.equal(policy.act(hidden, deterministic=True), policy.act(obs, deterministic=True))
    far, farther = ({**obs, "state": obs["state"] + offset} for offset in (1e3, 1e6))
    assert torch.equal(policy.act(far, deterministic=True), policy.act(farther, deterministic=True))


def test_small_distances_from_zero_are_told_apart() -> None:
    policy = make_policy(GaussianHeadConfig(), obs_ranges={"state": (1, 3)}, obs_fine=0.01).eval()
    obs = make_obs(4, 1)
    encoded = policy.encoder(obs).numpy()
    assert encoded.shape == (4, 1, 4 + 4)
    in_deviations = obs["state"].numpy()[..., 1:3] / statistics()["state"]["std"][1:3]
    expected = np.sign(in_deviations) * np.log(1 + np.abs(in_deviations) / 0.01) / np.log(101)
    np.testing.assert_allclose(encoded[..., 2:4], expected, atol=1e-5)
    plain = make_policy(GaussianHeadConfig(), obs_ranges={"state": (1, 3)}).eval()
    np.testing.assert_array_equal(encoded[..., [0, 1, 4, 5]], plain.encoder(obs).numpy())


@pytest.mark.parametrize(
    ("ranges", "message"),
    [({"state": (0, 6)}, "up to 6, but it has 5"), ({"front": (0, 1)}, "which the policy does not see")],
)
def test_ranges_that_are_not_there_are_named(ranges: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_policy(GaussianHeadConfig(), obs_ranges=ranges)
    with pytest.raises(ConfigError, match="obs_ranges of 'state'"):
        PolicyConfig(obs_ranges={"state": (3, 3)})


def test_action_normalisation_is_undone_by_act() -> None:
    plain = make_policy(DeterministicHeadConfig())
    scaled = make_policy(DeterministicHeadConfig(), action_normalisation="min_max")
    raw = plain.head.act(plain.features(make_obs(4, 1)), deterministic=True, noise=torch_noise(4))
    low, high = (torch.as_tensor(statistics()["actions"][k], dtype=torch.float32) for k in ("min", "max"))
    expected = (low + (raw + 1) / 2 * (high - low)).clamp(-1, 1)
    torch.testing.assert_close(scaled.act(make_obs(4, 1)), expected)


@pytest.mark.parametrize("head", ["l2", "l1", "tanh", "gaussian", "mixture"])
@pytest.mark.parametrize("backbone", ["mlp", "lstm"])
def test_invalid_steps_do_not_contribute(head: str, backbone: str) -> None:
    policy = make_policy(HEADS[head], backbone, obs_steps=2, pred_steps=3)
    batch = make_batch(8, To=2, Tp=3)
    valid = batch.valid.clone()
    valid[:, 2:] = False
    valid[0] = False
    poisoned = batch.actions.masked_fill(~valid[..., None], 1e4)
    losses = [policy.loss(replace(batch, actions=a, valid=valid))[0] for a in (batch.actions, poisoned)]
    assert torch.equal(*losses)
    assert torch.isfinite(losses[0])
    assert not torch.equal(losses[0], policy.loss(batch)[0])


def test_a_causal_backbone_learns_every_step_and_sees_no_future() -> None:
    policy = make_policy(HEADS["l2"], "lstm", obs_steps=4).eval()
    obs = make_obs(3, 4)
    changed = {k: v.clone() for k, v in obs.items()}
    changed["state"][:, 3] += 10.0
    before, after = (policy.features(o, every_step=True) for o in (obs, changed))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])
    batch = make_batch(8, To=4)
    first_label = batch.actions.clone()
    first_label[:, 0] *= -1
    assert not torch.equal(policy.loss(batch)[0], policy.loss(replace(batch, actions=first_label))[0])


@pytest.mark.long
def test_overfits_actions_at_exactly_plus_and_minus_one() -> None:
    """Grippers say exactly +-1: heads must be able to say it too."""
    for name in ("l2", "tanh", "gaussian", "mixture"):
        policy = make_policy(HEADS[name])
        batch = make_batch(32)
        batch = replace(batch, actions=batch.actions.sign())
        optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
        for step in range(1000):
            optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / 1000)
            loss, _ = policy.loss(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert torch.isfinite(loss)
        error = (policy.act(batch.obs, deterministic=True)[:, 0] - batch.actions[:, 0]).abs().max()
        assert error < 0.05, name


def test_refusals_name_the_culprit() -> None:
    with pytest.raises(PolicyError, match=r"obs_keys names \['elbow'\].*'state'"):
        build_policy(PolicyConfig(obs_keys=("state", "elbow")), OBSERVATION, ACTION)
    camera = ObservationSpec({"state": ArraySpec(shape=(5,)), "note": ArraySpec(shape=(1,), dtype="str")})
    with pytest.raises(PolicyError, match="'note' has dtype str"):
        build_policy(PolicyConfig(), camera, ACTION)
    with pytest.raises(PolicyError, match=r"no statistics of 'goal\.xy'"):
        build_policy(PolicyConfig(), OBSERVATION, ACTION, {"state": statistics()["state"]})
    wrong = statistics() | {"state": {k: v[:4] for k, v in statistics()["state"].items()}}
    with pytest.raises(PolicyError, match="'state' has 5 dimensions"):
        build_policy(PolicyConfig(), OBSERVATION, ACTION, wrong)
    with pytest.raises(ConfigError, match="exec_steps must not exceed"):
        PolicyConfig(exec_steps=2)
    with pytest.raises(ConfigError, match="use 'none' or 'min_max'"):
        PolicyConfig(action_normalisation="mean_std")
    PolicyConfig(head=GaussianHeadConfig(squash=False, bounded_mean=False), action_normalisation="mean_std")
    for bad in ({"hidden_sizes": (64, 0)}, {"hidden_sizes": ()}, {"dropout": 1.0}):
        with pytest.raises(ConfigError):
            MLPConfig(**bad)
    with pytest.raises(ConfigError):
        LSTMConfig(num_layers=0)
    with pytest.raises(ConfigError):
        GaussianHeadConfig(min_std=1.0)
    with pytest.raises(ConfigError):
        MixtureHeadConfig(num_modes=0)
    for head in (MixtureHeadConfig, AutoregressiveHeadConfig):
        with pytest.raises(ConfigError, match=r"min_p must lie in \[0, 1\], received 2"):
            head(min_p=2.0)


@dataclass(frozen=True, kw_only=True)
class PluginHeadConfig(BaseHeadConfig):
    name: Literal["tests-plugin"] = "tests-plugin"
    error: Literal["l1", "l2"] = "l1"
    module = "tests.policies.test_build:PluginHead"


class PluginHead(DeterministicHead):
    pass


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("nothing_of_that_name:Head", "does not load: No module named 'nothing_of_that_name'"),
        ("robolearn.specs:ArraySpec", "does not derive from BaseHeadConfig"),
    ],
)
def test_what_is_no_head_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str, hint: str) -> None:
    point = EntryPoint(name="head.strange", value=value, group=policy_plugins.PLUGINS)
    monkeypatch.setattr(policy_plugins, "entry_points", lambda group: [point])
    with pytest.raises(ConfigError, match=hint):
        policy_plugins.plugins("head")


def test_plugins_add_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    class EntryPoint:
        name = "head.tests-plugin"

        def load(self) -> type:
            return PluginHeadConfig

    monkeypatch.setattr(policy_plugins, "entry_points", lambda group: [EntryPoint()])
    assert policy_plugins.plugins("head") == (PluginHeadConfig,)
    assert policy_plugins.plugins("backbone") == ()
    monkeypatch.setattr(policy_config, "HeadConfig", policy_config.HeadConfig | PluginHeadConfig)
    config = from_dict(PolicyConfig, {"head": {"name": "tests-plugin", "error": "l2"}})
    policy = build_policy(config, OBSERVATION, ACTION)
    assert type(policy.head).__name__ == "PluginHead"
    monkeypatch.delattr(PluginHeadConfig, "module")
    with pytest.raises(PolicyError, match="PluginHeadConfig names no module"):
        build_policy(config, OBSERVATION, ACTION)
