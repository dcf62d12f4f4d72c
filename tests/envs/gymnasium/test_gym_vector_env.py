"""The vector environment, against numbers worked out by hand and against Gymnasium itself."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.interface import VectorEnv
from robolearn.errors import TaskError
from robolearn.sim import rendering
from tests.envs import toy

LOCAL = {"worker_kind": "sync"}


def env_of(task_id: str, num_envs: int, **options) -> GymVectorEnv:
    return GymVectorEnv(TaskConfig(id=task_id, **(LOCAL | options)), num_envs)


def test_implements_the_protocol() -> None:
    with env_of(toy.COUNTER, 2) as env:
        assert isinstance(env, VectorEnv)
        assert (env.num_envs, env.control_hz, env.max_steps) == (2, 20.0, 10)
        assert env.env_args == {"env_name": toy.COUNTER.removeprefix("gym:"), "type": 2, "env_kwargs": {}}


def test_time_limit_truncates_and_delivers_the_true_last_observation() -> None:
    with env_of(toy.COUNTER, 1) as env:
        env.reset([7])
        for t in range(1, 11):
            step = env.step(torch.tensor([[0.5]]))
            assert step.obs["state"].tolist() == [[7.0, t, 0.5 * t]]  # also at the end: no hidden reset
            assert step.reward.item() == t
            assert (step.terminated.item(), step.truncated.item()) == (False, t == 10)
            assert not step.success.item()


def test_termination_is_told_apart_and_wins_over_a_limit_at_the_same_step() -> None:
    for end, limit in ((4, 10), (4, 4)):
        with env_of(toy.COUNTER, 1, kwargs={"end": end}, max_steps=limit) as env:
            env.reset([0])
            flags = [env.step(torch.zeros(1, 1)) for _ in range(end)][-1]
            assert (flags.terminated.item(), flags.truncated.item()) == (True, False)


def test_an_ended_environment_keeps_still_until_it_is_reset() -> None:
    with env_of(toy.COUNTER, 2, max_steps=2) as env:
        env.reset([1, 2])
        for _ in range(2):
            env.step(torch.zeros(2, 1))
        obs = env.reset([3], torch.tensor([False, True]))
        assert obs["state"].tolist() == [[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]
        step = env.step(torch.ones(2, 1))
        assert step.obs["state"].tolist() == [[1.0, 2.0, 0.0], [3.0, 1.0, 1.0]]
        assert step.reward.tolist() == [0.0, 1.0]
        assert step.done.tolist() == [True, False]


def test_step_moves_only_the_masked() -> None:
    with env_of(toy.COUNTER, 3) as env:
        env.reset([0, 0, 0])
        poisoned = torch.tensor([[torch.nan], [1.0], [torch.nan]])
        step = env.step(poisoned, torch.tensor([False, True, False]))
        assert step.obs["state"][:, 1].tolist() == [0.0, 1.0, 0.0]


def test_results_are_not_views_of_memory_that_the_next_step_overwrites() -> None:
    with env_of(toy.COUNTER, 1) as env:
        first = env.reset([5])
        step = env.step(torch.zeros(1, 1))
        env.step(torch.zeros(1, 1))
        assert first["state"].tolist() == [[5.0, 0.0, 0.0]]
        assert step.obs["state"].tolist() == [[5.0, 1.0, 0.0]]
        assert step.reward.item() == 1.0


def test_actions_are_scaled_to_the_bounds_and_clipped() -> None:
    with env_of(toy.POINT_REACH, 1) as env:
        assert (env.action_spec.low, env.action_spec.high) == ((-0.5, 0.0), (0.5, 2.0))
        start = env.reset([3])["state"][0]
        moved = env.step(torch.tensor([[0.25, -7.0]])).obs["state"][0]  # unit action = move in tenths per axis
        np.testing.assert_allclose(moved[:2] - start[:2], [0.025, -0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "ends", "reward_at_end"),
    [
        ({}, "terminated", 1.0),
        ({"terminate_on_success": False}, "truncated", 1.0),
        ({"success_key": "is_success"}, "terminated", 1.0),
        ({"success_threshold": 1.0, "success_measure": "reward"}, "terminated", 1.0),
        ({"success_threshold": 2.0, "terminate_on_success": True}, "terminated", 1.0),
    ],
)
def test_success_ends_episodes_where_asked(options: dict, ends: str, reward_at_end: float) -> None:
    with env_of(toy.POINT_REACH, 1, **options) as env:
        obs = env.reset([0])["state"].numpy()
        for _ in range(env.max_steps):
            physical = toy.point_reach_expert(obs[0].astype(np.float64))[None].astype(np.float32)
            step = env.step(torch.from_numpy(env.action_spec.to_unit(physical)))
            obs = step.obs["state"].numpy()
            if step.done.item():
                break
        assert getattr(step, ends).item()
        assert step.success.item()
        assert step.reward.item() == reward_at_end


def test_return_threshold_counts_the_sum_of_rewards() -> None:
    with env_of(toy.COUNTER, 1, success_threshold=6.0) as env:  # rewards 1, 2, 3: the return reaches 6 at step 3
        env.reset([0])
        assert [env.step(torch.zeros(1, 1)).success.item() for _ in range(3)] == [False, False, True]


def test_a_success_key_that_never_comes_is_an_error_naming_those_that_do() -> None:
    with env_of(toy.NESTED, 1, success_key="won") as env:
        env.reset([0])
        for _ in range(9):
            env.step(torch.zeros(1, 4))
        with pytest.raises(TaskError, match=r"success_key 'won'.*\['solved'\]"):
            env.step(torch.zeros(1, 4))


def test_nested_observations_of_every_kind() -> None:
    with env_of(toy.NESTED, 2) as env:
        shapes = {key: (spec.shape, spec.dtype) for key, spec in env.observation_spec.items()}
        assert shapes == {
            "robot/joints": ((4,), "float32"),
            "robot/mode": ((3,), "float32"),
            "camera": ((4, 6, 3), "uint8"),
            "chw": ((5, 7, 1), "uint8"),
            "buttons": ((2,), "float32"),
        }
        env.reset([0, 1])
        obs = env.step(torch.tensor([[0.5] * 4, [-0.5] * 4])).obs
        assert obs["robot/joints"].tolist() == [[1.0] * 4, [-1.0] * 4]
        assert obs["robot/mode"].tolist() == [[0.0, 1.0, 0.0]] * 2
        assert obs["camera"].dtype == torch.uint8
        assert obs["camera"][:, 0, 0, 0].tolist() == [40, 216]


def test_discrete_actions_are_for_dqn_only() -> None:
    with env_of(toy.WALK, 2) as env:
        assert env.discrete_actions == 2
        with pytest.raises(TaskError, match="2 discrete actions"):
            _ = env.action_spec
        env.reset([0, 0])
        step = env.step(torch.tensor([1, 0]))
        assert step.obs["state"].argmax(1).tolist() == [4, 2]
        with pytest.raises(TaskError, match=r"environment 1 received action 2; there are 0 to 1"):
            env.step(torch.tensor([0, 2]))
        with pytest.raises(TaskError, match="integers"):
            env.step(torch.zeros(2, 1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_actions_that_are_not_finite_are_named_by_environment(value: float) -> None:
    with env_of(toy.COUNTER, 3) as env:
        env.reset([0, 1, 2])
        actions = torch.zeros(3, 1)
        actions[2] = value
        with pytest.raises(TaskError, match="environment 2 received the action"):
            env.step(actions)
        assert env.step(torch.zeros(3, 1)).obs["state"][:, 1].tolist() == [1.0] * 3  # nobody had moved


@pytest.mark.parametrize(("fault", "words"), [("nan", "'state' that is not finite"), ("reward", "returned the reward")])
def test_numbers_that_are_not_finite_are_named_by_environment(fault: str, words: str) -> None:
    with env_of(toy.FAULTY, 2, kwargs={"fault": fault, "at": 1, "seed": 9}) as env:
        env.reset([8, 9])
        with pytest.raises(TaskError, match=f"environment 1.*{words}"):
            env.step(torch.zeros(2, 1))


def test_misuse_is_explained() -> None:
    with env_of(toy.COUNTER, 2) as env:
        with pytest.raises(TaskError, match="stepped before its first reset"):
            env.step(torch.zeros(2, 1))
        with pytest.raises(TaskError, match="one seed for each of the 2"):
            env.reset([1])
        with pytest.raises(TaskError, match="seeds must lie in"):
            env.reset([1, -1])
        env.reset()
        with pytest.raises(TaskError, match=r"shape \(2, 1\)"):
            env.step(torch.zeros(1, 1))
        with pytest.raises(TaskError, match=r"mask must be \(2,\)"):
            env.step(torch.zeros(2, 1), torch.tensor([1, 0]))
        with pytest.raises(TaskError, match="no physics states"):
            env.set_states(np.zeros((2, 3)))
    with pytest.raises(TaskError, match="was closed"):
        env.reset()


def test_unseeded_resets_draw_new_episodes_and_say_which() -> None:
    with env_of(toy.POINT_REACH, 64) as env:
        obs = env.reset()["state"]
        assert len(set(env.seeds.tolist())) == 64
        np.testing.assert_array_equal(env.reset(env.seeds.tolist())["state"], obs)


@pytest.mark.parametrize("task_id", ["HalfCheetah-v5", "FetchReach-v4", "Pendulum-v1"])
def test_equals_gymnasium_step_by_step(task_id: str) -> None:
    if task_id.startswith("Fetch"):
        gym.register_envs(pytest.importorskip("gymnasium_robotics"))
    reference = gym.make(task_id, disable_env_checker=True)
    obs, _ = reference.reset(seed=11)
    with env_of(f"gym:{task_id}", 2, terminate_on_success=False) as env:
        ours = env.reset([5, 11])
        rng = np.random.default_rng(0)
        for _ in range(30):
            for key, value in (obs if isinstance(obs, dict) else {"state": obs}).items():
                np.testing.assert_array_equal(ours[key][1], np.float32(value))
            action = rng.uniform(-1, 1, (2, env.action_spec.size)).astype(np.float32)
            obs, reward, *_ = reference.step(env.action_spec.to_physical(action)[1])
            step = env.step(torch.from_numpy(action))
            assert step.reward[1].item() == np.float32(reward)
            ours = step.obs
    reference.close()


@pytest.mark.parametrize("task_id", ["HalfCheetah-v5", "Hopper-v5", "FetchPickAndPlace-v4"])
def test_a_restored_state_continues_bit_for_bit_in_another_environment(task_id: str) -> None:
    if task_id.startswith("Fetch"):
        pytest.importorskip("gymnasium_robotics")
    actions = torch.rand(20, 2, 4 if task_id.startswith("Fetch") else 3 if "Hopper" in task_id else 6) * 2 - 1
    with env_of(f"gym:{task_id}", 2) as env, env_of(f"gym:{task_id}", 1) as other:
        env.reset([3, 4])
        env.get_states()
        for action in actions[:10]:
            env.step(0.1 * action)
        states = env.get_states()
        assert states is not None
        original = [env.step(0.1 * action) for action in actions[10:]]
        other.reset([4])
        other.step(torch.ones(1, actions.shape[2]))
        other.set_states(states[1:])
        replayed = [other.step(0.1 * action[1:]) for action in actions[10:]]
        for ours, theirs in zip(replayed, original):
            for key in ours.obs:
                np.testing.assert_array_equal(ours.obs[key][0], theirs.obs[key][1])
            assert ours.truncated[0] == theirs.truncated[1]


def test_states_keep_count_of_the_time_limit() -> None:
    with env_of("gym:HalfCheetah-v5", 1, max_steps=5) as env:
        env.reset([0])
        for _ in range(3):
            env.step(torch.zeros(1, 6))
        states = env.get_states()
        assert states is not None
        env.step(torch.zeros(1, 6))
        env.set_states(states)
        assert [env.step(torch.zeros(1, 6)).truncated.item() for _ in range(2)] == [False, True]


def test_pictures() -> None:
    with env_of(toy.POINT_REACH, 2) as env:
        env.reset([0, 1])
        picture = env.render(1)
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert (picture == (200, 0, 0)).all(-1).sum() in range(1, 26)
        with pytest.raises(TaskError, match="0 to 1"):
            env.render(2)
    with env_of(toy.COUNTER, 1) as env:
        env.reset([0])
        with pytest.raises(TaskError, match="no pictures"):
            env.render()


def test_mujocos_pictures_show_something() -> None:
    if rendering.find_backend() is None:
        pytest.skip("no OpenGL here")
    with env_of("gym:HalfCheetah-v5", 1, kwargs={"width": 96, "height": 64}) as env:
        env.reset([0])
        picture = env.render()
        assert picture.shape == (64, 96, 3)
        assert picture.std() > 5
