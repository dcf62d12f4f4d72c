"""A policy and its correction: zero is the base to the bit, the sum is the sum, folders keep both, no cloning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from robolearn.configuration.parts.policy import (
    DeterministicHeadConfig,
    GaussianHeadConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.deploy.inference import accelerate
from robolearn.deploy.realtime import RealtimeRunner
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.folder import BASE_FOLDER, CONFIG_FILE, load_policy, save_policy
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION, ResidualPolicy, build_correction
from tests.deploy.test_runner import LARGE_HEADS, check_company
from tests.policies.toy import ACTION, OBSERVATION, make_batch, make_obs, make_policy

SMALL = PolicyConfig(head=GaussianHeadConfig(initial_std=0.2), backbone=MLPConfig(hidden_sizes=(16,)))
HEADS: dict[str, Any] = {
    "deterministic": DeterministicHeadConfig(),
    "gaussian": GaussianHeadConfig(),
    "mixture": MixtureHeadConfig(num_modes=3),
    **LARGE_HEADS,
}


def make_base(head: str = "mixture", **config: Any) -> Policy:
    steps = {"obs_steps": 2, "pred_steps": 4, "exec_steps": 3} | config
    return make_policy(HEADS[head], **steps).eval()


def with_correction(base: Policy, scale: float = 0.2, *, seed: int | None = None) -> ResidualPolicy:
    """A correction of zero, or one of drawn weights."""
    correction = build_correction(SMALL, base, scale).eval()
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in correction.parameters():
                parameter.normal_(0.0, 0.5, generator=generator)
    return ResidualPolicy(base, correction).eval()


def frames(steps: int, envs: int = 3) -> list[dict[str, torch.Tensor]]:
    return [make_obs(envs, seed=t) for t in range(steps)]


def run(policy: Policy, envs: int = 3, steps: int = 9, *, replan_at: int = -1, **options: Any) -> torch.Tensor:
    """Actions (steps, envs, A), with one environment begun anew and one made to plan anew on the way."""
    runner = PolicyRunner(policy, envs, **options)
    runner.reset(range(envs))
    actions = []
    for t, obs in enumerate(frames(steps, envs)):
        if t == 4:
            runner.reset([77], torch.arange(envs) == 1)
        if t == replan_at:
            runner.replan(torch.arange(envs) == 0)
        actions.append(runner.act(obs))
    return torch.stack(actions)


@pytest.mark.parametrize("options", [{}, {"exec_steps": 1}, {"temporal_ensemble": 0.1}, {"replan_at": 5}])
@pytest.mark.parametrize("head", HEADS)
def test_a_correction_of_zero_is_the_base_bit_for_bit(head: str, options: dict[str, Any]) -> None:
    base = make_base(head)
    assert torch.equal(run(with_correction(base), **options), run(base, **options))


def test_the_sum_by_hand_and_nested() -> None:
    """a = clamp(b + scale tanh(mean)), and a correction of the corrected once more, from the networks themselves."""
    base = make_base()
    once = with_correction(base, 0.3, seed=1)
    twice = with_correction(once, 0.9, seed=2)
    proposed = run(base)
    for policy in (once, twice):
        correction = policy.correction
        expected = torch.stack(
            [
                b + correction.scale * torch.tanh(mean(correction, obs, b))
                for b, obs in zip(proposed, frames(len(proposed)))
            ]
        ).clamp(-1.0, 1.0)
        found = run(policy)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert (found - proposed).abs().max() > 0.05
        proposed = found
    assert proposed.abs().max() == 1.0, "some of it was clamped"


def mean(correction: Policy, obs: dict[str, torch.Tensor], proposed: torch.Tensor) -> torch.Tensor:
    window = {key: value[:, None] for key, value in (obs | {BASE_ACTION: proposed}).items()}
    features = correction.features(window)
    return correction.head.mean(features)  # type: ignore[operator]


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_episode_is_bit_identical_in_any_company(deterministic: bool) -> None:
    policy = with_correction(make_base(), seed=1)
    check_company(policy, [9, 4, 7, 1, 5, 8], deterministic=deterministic)


@pytest.mark.parametrize("options", [{}, {"temporal_ensemble": 0.1}])
def test_environments_that_rest_keep_history_and_chunks(options: dict[str, Any]) -> None:
    """Stepped one at a time in any order, each does what it does alone."""
    policy = with_correction(make_base(), seed=1)
    alone = run_rows(policy, [[0] * 6], options)
    orders = [[0, 1, 2, 0, 0, 1], [2, 2, 2, 1, 0, 1]]
    for order in orders:
        runner = PolicyRunner(policy, 3, **options)
        runner.reset([5, 5, 5])
        done = [0, 0, 0]
        for row in order:
            obs = {key: value.expand(3, *value.shape[1:]).clone() for key, value in make_obs(1, seed=done[row]).items()}
            for other in {0, 1, 2} - {row}:
                for value in obs.values():
                    value[other] = torch.nan
            action = runner.act(obs, torch.arange(3) == row)[row]
            assert torch.equal(action, alone[done[row]])
            done[row] += 1


def run_rows(policy: Policy, order: list[list[int]], options: dict[str, Any]) -> list[torch.Tensor]:
    runner = PolicyRunner(policy, 1, **options)
    runner.reset([5])
    return [runner.act(make_obs(1, seed=t))[0] for t in range(len(order[0]))]


def test_its_distribution_is_that_of_corrections_around_the_base() -> None:
    correction = build_correction(SMALL, make_base(), 0.25)
    window = make_obs(6, 1) | {BASE_ACTION: torch.rand(6, 1, 3) * 2 - 1}
    distribution = correction.distribution(window)
    noise = BatchNoise(6, "cpu", torch.Generator().manual_seed(0))
    sample, log_prob = distribution.sample_with_log_prob(noise)
    inner = (sample - window[BASE_ACTION]) / 0.25
    assert inner.abs().max() < 1.0
    torch.testing.assert_close(log_prob, distribution.log_prob(sample), rtol=1e-3, atol=1e-3)
    # Against a tanh-Gaussian written out: log N(atanh c; 0, 0.2) - log(1 - c^2), summed over dimensions.
    normal = torch.distributions.Normal(0.0, correction.distribution(window).corrections.std)  # type: ignore[attr-defined]
    direct = (normal.log_prob(torch.atanh(inner)) - torch.log1p(-inner.square())).sum((-1, -2))
    torch.testing.assert_close(log_prob, direct, rtol=1e-3, atol=1e-3)
    assert torch.equal(distribution.mode(), window[BASE_ACTION])


@pytest.mark.parametrize("head", ["mixture", "diffusion", "act"])
def test_folders_keep_both(head: str, tmp_path: Path) -> None:
    policy = with_correction(with_correction(make_base(head), 0.3, seed=1), 0.1, seed=2)
    save_policy(policy, tmp_path / "p", env_args={"env_name": "toy"})
    loaded = load_policy(tmp_path / "p")
    assert torch.equal(run(loaded), run(policy))
    assert loaded.kind == policy.kind
    assert "corrected by up to 0.1" in (tmp_path / "p" / "card.md").read_text()
    base = load_policy(tmp_path / "p" / BASE_FOLDER)
    assert torch.equal(run(base), run(policy.base)), "the base is a policy of its own"
    save_policy(loaded, tmp_path / "p")
    assert torch.equal(run(load_policy(tmp_path / "p")), run(policy)), "saved in place"


def test_folders_without_their_base_are_refused(tmp_path: Path) -> None:
    policy = with_correction(make_base(), seed=1)
    save_policy(policy, tmp_path / "p")
    text = (tmp_path / "p" / CONFIG_FILE).read_text()
    (tmp_path / "p" / CONFIG_FILE).write_text(yaml.safe_dump(yaml.safe_load(text) | {"base": "../elsewhere"}))
    with pytest.raises(PolicyError, match=r"base must be 'base', a folder within, received '../elsewhere'"):
        load_policy(tmp_path / "p")
    (tmp_path / "p" / CONFIG_FILE).write_text(text)
    shutil.rmtree(tmp_path / "p" / BASE_FOLDER)
    with pytest.raises(PolicyError, match=r"there is no policy folder .*base"):
        load_policy(tmp_path / "p")
    save_policy(make_base(), tmp_path / "outside")
    (tmp_path / "p" / BASE_FOLDER).symlink_to(tmp_path / "outside")
    with pytest.raises(PolicyError, match="a folder within"):
        load_policy(tmp_path / "p")


def test_real_time_and_fast_inference_correct_as_well() -> None:
    policy = with_correction(make_base(exec_steps=4), 0.3, seed=1)
    expected = run(policy, 1, 4)
    for fast in (policy, accelerate(policy, dtype=torch.float32)):
        with RealtimeRunner(fast, control_hz=100.0) as runner:
            sequence = frames(4, 1)
            runner.start({key: value[0] for key, value in sequence[0].items()})
            found = torch.stack([runner.act({key: value[0] for key, value in obs.items()}) for obs in sequence])
        torch.testing.assert_close(found, expected[:, 0], rtol=0, atol=1e-5)


def test_what_only_a_runner_or_reward_can_do_is_refused() -> None:
    policy = with_correction(make_base())
    with pytest.raises(PolicyError, match=r"not trained by cloning, it learns from reward: finetune --method residual"):
        policy.loss(make_batch(4, 2, 4))
    with pytest.raises(PolicyError, match="PolicyRunner"):
        policy.act(make_obs(2, 2))
    with pytest.raises(PolicyError, match="finetune --method residual"):
        policy.distribution(make_obs(2, 2))
    assert not policy.exact_likelihood


def test_corrections_that_cannot_be() -> None:
    base = make_base()
    with pytest.raises(PolicyError, match="received obs_steps 1, pred_steps 2"):
        build_correction(PolicyConfig(head=GaussianHeadConfig(), pred_steps=2), base)
    with pytest.raises(PolicyError, match="take head gaussian"):
        build_correction(PolicyConfig(head=DeterministicHeadConfig()), base)
    with pytest.raises(PolicyError, match="head gaussian with squash true"):
        build_correction(PolicyConfig(head=GaussianHeadConfig(squash=False)), base)
    plain = build_policy(PolicyConfig(head=GaussianHeadConfig()), OBSERVATION, ACTION)
    with pytest.raises(PolicyError, match=r"does not normalise 'state'.*obs_normalisation mean_std"):
        build_correction(SMALL, plain)


def test_it_sees_by_the_bases_normalisers() -> None:
    base = make_base()
    correction = build_correction(SMALL, with_correction(base), 0.2)
    assert tuple(correction.observation_spec) == (*OBSERVATION, BASE_ACTION)
    obs = make_obs(4, 1)
    theirs, ours = base.encoder(obs), correction.encoder(obs | {BASE_ACTION: torch.full((4, 1, 3), 0.5)})
    assert torch.equal(ours[..., :-3], theirs)
    assert (ours[..., -3:] == 0.5).all()
