"""Evaluation on fixed seeds: the same outcome whatever runs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.policy import LSTMConfig, MixtureHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.experts import NoisyExpert, make_expert
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.make import make
from robolearn.errors import RobolearnError, TaskError
from robolearn.evaluation.evaluate import evaluate, rollouts
from robolearn.evaluation.results import EvaluationResult
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from tests.envs import toy

SEEDS = [3, 14, 15, 92, 65, 35, 89]


def env_of(num_envs: int, task_id: str = toy.POINT_REACH, **options) -> GymVectorEnv:
    return GymVectorEnv(TaskConfig(id=task_id, **({"worker_kind": "sync"} | options)), num_envs)


def expert_of(env: GymVectorEnv, std: float = 0.0) -> NoisyExpert:
    return NoisyExpert(make_expert("tests.envs.toy:point_reach_expert", env), std, seed=1)


def policy_for(env: GymVectorEnv, backbone: MLPConfig | LSTMConfig) -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(head=MixtureHeadConfig(), backbone=backbone, obs_steps=2, pred_steps=3, exec_steps=2)
    return build_policy(config, env.observation_spec, env.action_spec)


class Constant:
    """Always the same unit action."""

    def __init__(self, num_envs: int, action: Sequence[float]) -> None:
        self.action = torch.tensor(action).expand(num_envs, -1)

    def reset(self, *, seeds: Sequence[int], mask: torch.Tensor) -> None: ...

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.action


def test_records_are_those_worked_out_by_hand() -> None:
    with env_of(2, toy.COUNTER, kwargs={"end": 4}) as env:
        result = evaluate(Constant(2, [0.5]), env, [7, 8, 9], name="half", record="trajectory", record_limit=2)
    assert result.seeds == (7, 8, 9)
    for episode in result.episodes:
        assert (episode.steps, episode.episode_return) == (4, 1 + 2 + 3 + 4)
        assert (episode.success, episode.time_to_success_s) == (False, None)
        assert (episode.terminated, episode.truncated) == (True, False)
    first, second, third = (e.trajectory for e in result.episodes)
    assert third is None
    assert first is not None
    assert second is not None
    assert first.obs["state"].tolist() == [[7, t, 0.5 * t] for t in range(5)]  # the true last observation included
    assert second.obs["state"][:, 0].tolist() == [8] * 5
    assert first.actions.tolist() == [[0.5]] * 4
    assert first.rewards.tolist() == [1, 2, 3, 4]


def test_an_experts_times_are_exact() -> None:
    with env_of(3) as env:
        result = evaluate(expert_of(env), env, SEEDS)
    assert result.success_rate == 1.0
    for episode in result.episodes:
        rng = np.random.default_rng(episode.seed)
        gap = np.abs(rng.uniform(-1, 1, 2) - rng.uniform(-1, 1, 2))
        steps, left = 0, gap
        while np.linalg.norm(left) >= 0.05:
            steps, left = steps + 1, np.maximum(left - 0.1, 0)
        assert episode.steps == steps
        assert episode.score is None
        assert episode.time_to_success_s == pytest.approx(steps / 10)


@pytest.mark.parametrize("kind", ["sync", "process", "vector"])
def test_the_largest_score_of_an_episode_is_kept(kind: str, tmp_path: Path) -> None:
    class Past(Constant):
        def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
            seen.append(obs["state"].clone())
            return super().act(obs)

    seen: list[torch.Tensor] = []
    with env_of(2, worker_kind=kind, score_key="closeness", max_steps=9, kwargs={"tolerance": 0.0}) as env:
        result = evaluate(Past(2, [0.3, -0.2]), env, [4, 5])
    ways = torch.stack(seen)[1:]  # the last step's is not asked about: its score is larger only where it gets nearer
    largest = -torch.linalg.vector_norm(ways[..., :2] - ways[..., 2:], dim=-1).amin(dim=0)
    last = ways[-1, :, :2] + 0.1 * torch.tensor([0.3, -0.2]) - ways[-1, :, 2:]
    expected = torch.maximum(largest, -torch.linalg.vector_norm(last, dim=-1)).tolist()
    assert [episode.score for episode in result.episodes] == pytest.approx(expected, abs=1e-5)
    assert result.mean_score == pytest.approx(np.mean(expected), abs=1e-5)
    assert f"mean largest score {result.mean_score:.3f}" in str(result)
    assert EvaluationResult.load(result.save(tmp_path / "found.json")) == result


def test_a_score_key_that_never_comes_is_an_error_naming_those_that_do() -> None:
    with env_of(1, score_key="coverage") as env:
        env.reset([0])
        with pytest.raises(TaskError, match="no score_key 'coverage'; it holds closeness, is_success"):
            env.step(torch.zeros(1, 2))


def test_pusht_is_scored_by_what_is_covered() -> None:
    with make("PushT", 3, max_steps=400) as env:
        result = evaluate(env.expert(), env, [1, 2, 3])
    for episode in result.episodes:
        assert episode.score is not None
        assert (episode.score == 1.0) == episode.success
    assert result.summary()["mean_score"] == result.mean_score


@pytest.mark.parametrize("std", [0.0, 0.5])
def test_experts_give_the_same_records_whatever_the_environments_and_workers(std: float) -> None:
    with env_of(1) as env:
        reference = evaluate(expert_of(env, std), env, SEEDS)
    for num_envs, options in ((2, {}), (16, {}), (3, {"worker_kind": "process", "workers": 2})):
        with env_of(num_envs, **options) as env:
            assert evaluate(expert_of(env, std), env, SEEDS) == reference


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("backbone", [MLPConfig(hidden_sizes=(64, 64)), LSTMConfig(hidden_size=24, num_layers=1)])
def test_policies_give_the_same_bits_whatever_runs_beside_them(
    backbone: MLPConfig | LSTMConfig, deterministic: bool
) -> None:
    runs = []
    for num_envs in (1, 2, 5):
        with env_of(num_envs, max_steps=12) as env:
            policy = policy_for(env, backbone)
            seeds = SEEDS if num_envs != 5 else SEEDS[::-1]
            result = evaluate(policy, env, seeds, deterministic=deterministic, record="trajectory")
            runs.append({e.seed: e for e in result.episodes})
    for run in runs[1:]:
        for seed in SEEDS:
            ours, theirs = run[seed], runs[0][seed]
            assert ours == theirs
            assert ours.trajectory is not None
            assert theirs.trajectory is not None
            np.testing.assert_array_equal(ours.trajectory.actions, theirs.trajectory.actions)
            np.testing.assert_array_equal(ours.trajectory.obs["state"], theirs.trajectory.obs["state"])
    actions = [e.trajectory.actions.tobytes() for e in runs[0].values() if e.trajectory]
    assert len(set(actions)) == len(SEEDS)


def test_episodes_are_reported_as_they_end_and_no_environment_idles() -> None:
    seen = []
    with env_of(2, toy.COUNTER, max_steps=3) as env:
        steps = 0
        original = env.step

        def counting(actions, mask=None):
            nonlocal steps
            steps += 1
            return original(actions, mask)

        env.step = counting
        result = evaluate(Constant(2, [0.0]), env, [1, 2, 3, 4, 5], on_episode=lambda e: seen.append(e.seed))
    assert seen == [1, 2, 3, 4, 5]
    assert steps == 3 * 3  # five episodes of three steps in two environments
    assert len(result.episodes) == 5


def test_an_interrupted_evaluation_keeps_what_it_has() -> None:
    kept = []
    with env_of(1, toy.COUNTER, max_steps=2) as env:
        for _, episode in rollouts(Constant(1, [0.0]), env, [4, 5, 6]):
            kept.append(episode)
            if len(kept) == 2:
                break
    assert [e.seed for e in kept] == [4, 5]


def test_full_records_hold_images_and_states() -> None:
    with env_of(1, toy.NESTED, max_steps=3) as env:
        (low,) = evaluate(Constant(1, [0.1] * 4), env, [0], record="trajectory").episodes
        (full,) = evaluate(Constant(1, [0.1] * 4), env, [0], record="full").episodes
    assert low.trajectory is not None
    assert full.trajectory is not None
    assert set(low.trajectory.obs) == {"robot/joints", "robot/mode", "buttons"}
    assert full.trajectory.obs["camera"].shape == (4, 4, 6, 3)
    with env_of(2, "gym:HalfCheetah-v5", max_steps=4) as env:
        episodes = evaluate(Constant(2, [0.1] * 6), env, [0, 1], record="full").episodes
        assert episodes[1].trajectory is not None
        states = episodes[1].trajectory.states
        assert states is not None
        env.reset([1, 1])
        env.set_states(np.repeat(states[3:], 2, 0))
        last = env.step(torch.full((2, 6), 0.1)).obs["state"][0]
        np.testing.assert_array_equal(last, episodes[1].trajectory.obs["state"][4])


def test_no_seeds_is_an_error() -> None:
    with env_of(1) as env, pytest.raises(TaskError, match="at least one seed"):
        evaluate(expert_of(env), env, [])


def test_results_reload_bit_for_bit_with_trajectories(tmp_path: Path) -> None:
    with env_of(2, toy.NESTED, max_steps=3) as env:
        result = evaluate(Constant(2, [0.1] * 4), env, [5, 6, 7], record="full", record_limit=2)
    again = EvaluationResult.load(result.save(tmp_path / "new" / "result.json"))
    assert again == result
    assert [e.trajectory is None for e in again.episodes] == [False, False, True]
    for ours, theirs in zip(again.episodes[:2], result.episodes[:2]):
        assert ours.trajectory is not None
        assert theirs.trajectory is not None
        for name, array in theirs.trajectory.arrays().items():
            np.testing.assert_array_equal(ours.trajectory.arrays()[name], array)
            assert ours.trajectory.arrays()[name].dtype == array.dtype
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["result.json", "result.npz"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}', '{"episodes": [{"sed": 1}]}', "\x00"])
def test_damaged_results_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(RobolearnError, match=r"cannot read the evaluation .*result\.json"):
        EvaluationResult.load(path)


def test_a_damaged_or_pickled_npz_is_refused(tmp_path: Path) -> None:
    with env_of(1, toy.COUNTER, max_steps=2) as env:
        path = evaluate(Constant(1, [0.0]), env, [1], record="trajectory").save(tmp_path / "r.json")
    path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:-30])
    with pytest.raises(RobolearnError, match="cannot read the evaluation"):
        EvaluationResult.load(path)
    np.savez(path.with_suffix(".npz"), **{"1/actions": np.array([object()], dtype=object)})
    with pytest.raises(RobolearnError, match="cannot read the evaluation"):
        EvaluationResult.load(path)
