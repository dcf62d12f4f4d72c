"""Experts by name, and noise that depends on the episode and the step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.envs.experts import NoisyExpert, make_expert
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.evaluation.evaluate import evaluate
from tests.envs import toy


def env_of(num_envs: int, task_id: str = toy.POINT_REACH) -> GymVectorEnv:
    env = make(task_id, num_envs)
    assert isinstance(env, GymVectorEnv)
    return env


def episode(env: GymVectorEnv, expert: NoisyExpert, row: int, seeds: list[int]) -> np.ndarray:
    obs = env.reset(seeds)
    expert.reset(seeds)
    actions = []
    for _ in range(8):
        action = expert.act(obs)
        actions.append(torch.cat([action[row], expert.label[row]]).numpy())
        obs = env.step(action).obs
    return np.stack(actions)


def test_a_function_of_the_flat_state_gives_physical_actions_that_are_scaled() -> None:
    with env_of(3) as env:
        expert = make_expert("tests.envs.toy:point_reach_expert", env)
        obs = env.reset([0, 1, 2])
        states = obs["state"].numpy()
        expected = env.action_spec.to_unit(np.stack([toy.point_reach_expert(s) for s in states]).astype(np.float32))
        np.testing.assert_array_equal(expert.act(obs), expected)


def test_noise_depends_on_seed_episode_and_step_only() -> None:
    with env_of(1) as one, env_of(3) as three:
        alone = NoisyExpert(make_expert("tests.envs.toy:point_reach_expert", one), 0.3, seed=1)
        together = NoisyExpert(make_expert("tests.envs.toy:point_reach_expert", three), 0.3, seed=1)
        reference = episode(one, alone, 0, [42])
        episode(three, together, 0, [5, 6, 7])
        np.testing.assert_array_equal(episode(three, together, 2, [3, 4, 42]), reference)
        np.testing.assert_array_equal(episode(one, alone, 0, [42]), reference)
        other = NoisyExpert(make_expert("tests.envs.toy:point_reach_expert", one), 0.3, seed=2)
        assert not np.array_equal(episode(one, other, 0, [42]), reference)


def test_the_label_is_clean_and_the_executed_action_has_the_noise_asked_for() -> None:
    class Still:
        def reset(self, seeds, mask=None) -> None: ...

        def act(self, obs):
            return torch.full((200, 3), 0.25)

    expert = NoisyExpert(Still(), 0.1)
    expert.reset(range(200))
    executed = torch.stack([expert.act({}) for _ in range(50)])
    assert torch.equal(expert.label, torch.full((200, 3), 0.25))
    noise = executed - 0.25
    assert abs(noise.mean().item()) < 0.003  # 30,000 draws: 5 standard errors
    assert abs(noise.std().item() - 0.1) < 0.003
    assert torch.unique(noise).numel() > 29_000
    loud = NoisyExpert(Still(), 5.0)
    loud.reset(range(200))
    assert loud.act({}).abs().max() == 1.0


class Remembering:
    """One instance per environment, forgetting at reset."""

    def __init__(self) -> None:
        self.calls = 0

    def reset(self) -> None:
        self.calls = 0

    def __call__(self, state: np.ndarray) -> np.ndarray:
        self.calls += 1
        return np.array([0.1 * self.calls, 1.0])


def test_a_class_is_instantiated_for_each_environment_and_reset_by_mask() -> None:
    with env_of(2) as env:
        expert = make_expert("tests.envs.test_experts:Remembering", env)
        obs = env.reset([0, 1])
        expert.act(obs)
        expert.reset([5], torch.tensor([False, True]))
        np.testing.assert_allclose(expert.act(obs)[:, 0], [0.4, 0.2], atol=1e-6)


def dictionary_expert(obs: dict[str, np.ndarray]) -> np.ndarray:
    assert obs["camera"].shape == (4, 6, 3)
    return np.full(4, 2.0)


def nan_expert(state: np.ndarray) -> np.ndarray:
    return np.array([np.nan, 0.0]) if state[0] == 1 else np.zeros(2)


def test_dictionary_observations_arrive_as_dictionaries() -> None:
    with env_of(1, toy.NESTED) as env:
        expert = make_expert("tests.envs.test_experts:dictionary_expert", env)
        assert expert.act(env.reset([0])).tolist() == [[1.0] * 4]


def test_bad_answers_are_named() -> None:
    with env_of(2) as env:
        expert = make_expert("tests.envs.test_experts:nan_expert", env)
        with pytest.raises(TaskError, match=r"2 finite numbers, received .*nan.* environment 1"):
            expert.act({"state": torch.tensor([[0.0] * 4, [1.0] * 4])})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metaword", "did you mean 'metaworld'"),
        ("auto", "brings no expert of its own"),
        ("no_such_module:f", "cannot be imported"),
        ("tests.envs.toy:point_reach_exprt", "did you mean 'point_reach_expert'"),
    ],
)
def test_unknown_experts(name: str, words: str) -> None:
    with env_of(1) as env, pytest.raises(TaskError, match=words):
        make_expert(name, env)


@pytest.mark.parametrize("name", ["FetchReach-v4", "FetchPickAndPlace-v4"])
def test_the_fetch_expert_solves_its_tasks_with_a_trembling_hand(name: str) -> None:
    pytest.importorskip("gymnasium_robotics")
    with make(f"gym:{name}", 2) as env:
        result = evaluate(NoisyExpert(make_expert("auto", env), 0.1), env, range(10))
    assert result.successes >= 9
    with env_of(1) as env, pytest.raises(TaskError, match="knows FetchReach and FetchPickAndPlace, received"):
        make_expert("fetch", env)


def test_a_module_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_expert.py").write_text("def still(state):\n    return [0.0, 1.0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    with env_of(1) as env:
        assert make_expert("my_own_expert:still", env).act(env.reset([0])).tolist() == [[0.0, 0.0]]
