"""The batched form of Gymnasium's MuJoCo tasks, against Gymnasium's own environments: equal to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.gymnasium.mujoco_rules import RULES
from robolearn.envs.gymnasium.native import NativeWorkers
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.sim import rendering

N = 3


def env_of(name: str, num_envs: int = N, **options: Any) -> GymVectorEnv:
    options = {"worker_kind": "native"} | options
    return GymVectorEnv(TaskConfig(id=f"gym:{name}", **options), num_envs)


def states_of(env: GymVectorEnv) -> np.ndarray:
    states = env.get_states()
    assert states is not None
    return states


def actions_for(env: GymVectorEnv, steps: int, *, strength: float = 1.0, seed: int = 0) -> torch.Tensor:
    """(steps, N, A), some of them out of bounds."""
    generator = torch.Generator().manual_seed(seed)
    return strength * torch.randn(steps, env.num_envs, env.action_spec.size, generator=generator)


def physical(env: GymVectorEnv, action: torch.Tensor) -> np.ndarray:
    return env.action_spec.to_physical(action.numpy())


def assert_same(native: dict[str, torch.Tensor], row: int, obs: np.ndarray) -> None:
    np.testing.assert_array_equal(native["state"][row].numpy(), obs.astype(np.float32))


@pytest.fixture(params=sorted(RULES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def originals(name: str) -> Iterator[list[gym.Env]]:
    made = [gym.make(name) for _ in range(N)]
    yield made
    for env in made:
        env.close()


@pytest.mark.parametrize("strength", [0.05, 1.0])
def test_episodes_are_gymnasiums_to_the_last_bit(name: str, originals: list[gym.Env], strength: float) -> None:
    """Weak actions keep walkers up for long, strong ones make all of them fall and start again."""
    seeds = [11, 12, 13]
    ended = 0
    with env_of(name) as env:
        assert isinstance(env._workers, NativeWorkers)
        first = env.reset(seeds)
        for i, original in enumerate(originals):
            assert_same(first, i, original.reset(seed=seeds[i])[0])
        assert env.max_steps == gym.spec(name).max_episode_steps
        for action in actions_for(env, 250, strength=strength):
            step = env.step(action)
            for i, original in enumerate(originals):
                space = original.action_space
                assert isinstance(space, gym.spaces.Box)
                given = np.clip(physical(env, action)[i], space.low, space.high)
                obs, reward, terminated, truncated, _ = original.step(given)
                assert_same(step.obs, i, obs)
                assert step.reward[i].item() == np.float32(reward)
                assert (step.terminated[i], step.truncated[i]) == (terminated, truncated and not terminated)
                assert not step.success[i]
            if step.done.any():
                fresh = [100 + ended + k for k in range(int(step.done.sum()))]
                ended += len(fresh)
                obs = env.reset(fresh, step.done)
                for i, seed in zip(step.done.nonzero().flatten().tolist(), fresh):
                    assert_same(obs, i, originals[i].reset(seed=seed)[0])
    if strength == 1.0 and name in ("Hopper-v5", "Walker2d-v5", "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5"):
        assert ended > 0, "a test of endings that never sees one"


def test_specs_and_wrapping_are_those_of_the_worker_form(name: str) -> None:
    """The whole interface, whatever the options: limits, success by return, kept states, restored ones."""
    options = {"max_steps": 9, "success_threshold": 4.0, "obs_keys": ("state",)}
    with env_of(name, **options) as env, env_of(name, worker_kind="sync", **options) as reference:
        assert (env.observation_spec, env.action_spec) == (reference.observation_spec, reference.action_spec)
        assert (env.control_hz, env.max_steps, env.env_args) == (reference.control_hz, 9, reference.env_args)
        assert torch.equal(env.reset([5, 6, 7])["state"], reference.reset([5, 6, 7])["state"])
        kept: list[np.ndarray] = []
        for t, action in enumerate(actions_for(env, 12, strength=0.3)):
            mask = torch.tensor([True, t % 2 == 0, t % 3 == 0])
            ours, theirs = env.step(action, mask), reference.step(action, mask)
            for field in ("reward", "terminated", "truncated", "success"):
                assert torch.equal(getattr(ours, field)[mask], getattr(theirs, field)[mask]), (t, field)
            assert torch.equal(ours.obs["state"], theirs.obs["state"])
            if t >= 5:
                kept.append(states_of(env))
                np.testing.assert_array_equal(kept[-1], states_of(reference))
        mask = torch.tensor([True, False, True])
        after = []
        for e in (env, reference):
            e.reset([5, 7], mask)
            restored = e.set_states(kept[0][mask.numpy()], mask)["state"]
            step = e.step(actions_for(env, 1)[0], mask)
            after.append((restored, step.obs["state"], step.reward, torch.from_numpy(states_of(e)[mask.numpy()])))
        for ours, theirs in zip(*after):
            assert torch.equal(ours, theirs)


def test_success_ends_episodes_only_where_asked() -> None:
    for ends in (True, False):
        options = {"success_threshold": 0.5, "success_measure": "reward", "terminate_on_success": ends}
        with env_of("InvertedPendulum-v5", **options) as env:
            env.reset([0, 1, 2])
            step = env.step(torch.zeros(N, 1))
            assert step.success.all()
            assert (step.terminated == ends).all()


def test_an_ended_environment_keeps_still_until_it_is_reset() -> None:
    with env_of("HalfCheetah-v5", max_steps=2) as env:
        env.reset([0, 1, 2])
        for action in actions_for(env, 2):
            last = env.step(action)
        assert last.truncated.all()
        env.reset([9], torch.tensor([False, True, False]))
        step = env.step(torch.ones(N, 6))
        for row in (0, 2):
            assert torch.equal(step.obs["state"][row], last.obs["state"][row])
        assert not torch.equal(step.obs["state"][1], last.obs["state"][1])
        assert step.reward[[0, 2]].tolist() == [0.0, 0.0]
        assert step.done.tolist() == [True, False, True]


def test_a_seed_gives_the_same_episode_whatever_came_before() -> None:
    with env_of("Ant-v5", 1) as alone, env_of("Ant-v5", 4, workers=2) as many:
        many.reset([1, 2, 3, 4])
        actions = actions_for(alone, 40)
        for action in actions:
            many.step(action.expand(4, -1))  # contact forces of another episode
        mask = torch.tensor([False, False, True, False])
        assert torch.equal(alone.reset([8])["state"][0], many.reset([8], mask)["state"][2])
        for action in actions:
            one, other = alone.step(action), many.step(action.expand(4, -1), mask)
            assert torch.equal(one.obs["state"][0], other.obs["state"][2])
            assert one.reward[0] == other.reward[2]


def test_results_are_not_views_of_memory_that_the_next_step_overwrites() -> None:
    with env_of("Hopper-v5") as env:
        first = env.reset([0, 1, 2])["state"]
        copy = first.clone()
        step = env.step(torch.zeros(N, 3))
        kept = (step.obs["state"].clone(), step.reward.clone())
        env.step(torch.ones(N, 3))
        assert torch.equal(first, copy)
        assert torch.equal(step.obs["state"], kept[0])
        assert torch.equal(step.reward, kept[1])


def test_nan_actions_are_refused_where_they_count() -> None:
    with env_of("Swimmer-v5") as env:
        env.reset([0, 1, 2])
        poisoned = torch.zeros(N, 2)
        poisoned[1, 0] = torch.nan
        with pytest.raises(TaskError, match=r"environment 1 received the action \[nan"):
            env.step(poisoned)
        step = env.step(poisoned, torch.tensor([True, False, True]))
        assert step.reward.isfinite().all()


def test_physics_that_diverges_is_named_and_leaves_the_others_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log into the working directory
    monkeypatch.setenv("ROBOLEARN_CRASH_DIR", str(tmp_path))
    with env_of("HalfCheetah-v5") as env, env_of("HalfCheetah-v5") as other:
        for e in (env, other):
            e.reset([0, 1, 2])
        states = states_of(env)
        states[1, 10:19] = 1e12  # velocities
        env.set_states(states)
        with pytest.raises(TaskError, match="unstable in environment 1"):
            env.step(torch.zeros(N, 6))
        expected = other.step(torch.zeros(N, 6))
        with pytest.raises(TaskError, match="environment 1 was stepped before its first reset"):
            env.step(torch.zeros(N, 6))
        obs = env.reset([1], torch.tensor([False, True, False]))["state"]
        assert torch.equal(obs[[0, 2]], expected.obs["state"][[0, 2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: env.step(torch.zeros(N, 3)), "environment 0 was stepped before its first reset"),
        (lambda env: env.reset([1]), "one seed for each of the 3"),
        (lambda env: env.reset([0, 1, -1]), "seeds must lie"),
        (lambda env: env.reset([0, 1, 2]) and env.step(torch.zeros(N, 4)), r"shape \(3, 3\)"),
        (lambda env: env.reset([0, 1, 2]) and env.step(torch.zeros(N, 3), torch.ones(2, dtype=torch.bool)), "mask"),
        (lambda env: env.set_states(np.zeros((N, 2))), "states of shape"),
        (lambda env: env.set_states(states_of(env)), "needs a reset"),
        (lambda env: env.render(), "render needs a reset"),
    ],
)
def test_wrong_input_is_refused(call, message: str) -> None:
    with env_of("Hopper-v5") as env, pytest.raises(TaskError, match=message):
        call(env)


def test_closed_is_closed() -> None:
    env = env_of("Reacher-v5")
    env.close()
    env.close()
    with pytest.raises(TaskError, match="closed"):
        env.reset([0, 1, 2])


@pytest.mark.skipif(rendering.find_backend() is None, reason=rendering.ADVICE)
def test_pictures_are_those_of_the_worker_form() -> None:
    pictures = []
    for kind in ("native", "sync"):
        with env_of("Reacher-v5", worker_kind=kind) as env:
            env.reset([3, 4, 5])
            for action in actions_for(env, 5):
                env.step(action)
            env.set_states(states_of(env))  # frames that lag behind by a substep are drawn where they belong
            pictures.append(env.render(2))
    np.testing.assert_array_equal(*pictures)


class TestSelection:
    @pytest.mark.parametrize(
        ("task", "native"),
        [
            (TaskConfig(id="gym:Hopper-v5"), True),
            (TaskConfig(id="gym:Hopper-v5", max_steps=5, success_threshold=3.0, obs_keys=("state",)), True),
            (TaskConfig(id="gym:Hopper-v5", kwargs={"reset_noise_scale": 0.0}), False),
            (TaskConfig(id="gym:Hopper-v5", success_key="is_success"), False),
            (TaskConfig(id="gym:Hopper-v4"), False),
            (TaskConfig(id="gym:Hopper-v5", worker_kind="sync"), False),
            (TaskConfig(id="gym:Pendulum-v1"), False),
        ],
    )
    def test_auto_takes_the_native_form_where_there_is_one(self, task: TaskConfig, native: bool) -> None:
        with make(task) as env:
            assert isinstance(env, GymVectorEnv)
            assert isinstance(env._workers, NativeWorkers) == native
            assert "worker_kind" not in str(env.env_args)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"id": "gym:Pendulum-v1"}, r"Pendulum-v1 has no native form.*HalfCheetah-v5.*Ant-v5"),
            ({"id": "gym:Ant-v5", "kwargs": {"frame_skip": 2}}, "default arguments only.*frame_skip"),
            ({"id": "gym:Ant-v5", "success_key": "won"}, "no success_key 'won'"),
        ],
    )
    def test_asked_for_where_there_is_none(self, options: dict, message: str) -> None:
        with pytest.raises(TaskError, match=message):
            GymVectorEnv(TaskConfig(**options, worker_kind="native"), 1)

    def test_an_unknown_observation_key_is_refused(self) -> None:
        with pytest.raises(TaskError, match="obs_keys"):
            env_of("Ant-v5", obs_keys=("camera",))
