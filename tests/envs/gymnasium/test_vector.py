"""Vector environments of Gymnasium and of others, in every autoreset mode, against single environments one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robolearn.configuration.parts.algorithms import PPOConfig, SACConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream, Transition
from robolearn.rl.collecting.replay_buffer import Replay
from robolearn.rl.from_scratch import train_rl
from robolearn.training.metrics import read_metrics
from tests.envs import toy
from tests.rl.toys import small_run

MODES = ("NextStep", "SameStep", "Disabled")
SYNC = [{"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}} for mode in MODES]
ASYNC = [{"vectorization_mode": "async", "vector_kwargs": {"autoreset_mode": mode}} for mode in MODES]


def env_of(task: str, num_envs: int = 3, kind: Any = "vector", **options: Any) -> GymVectorEnv:
    return GymVectorEnv(TaskConfig(id=task, worker_kind=kind, **options), num_envs)


def transitions(env: GymVectorEnv, steps: int, chunk: int = 1) -> list[tuple[Any, Transition]]:
    """Random actions through the driver that all RL collects with: windows, and copies of what became of them."""
    driver = EpisodeDriver(env, seeds=SeedStream(5, 1000), gamma=0.9, obs_steps=2)
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        window = driver.window
        actions = torch.randn(env.num_envs, chunk, env.action_spec.size, generator=generator)
        transition = driver.advance(actions)
        found.append((window, transition))
        driver.restart(transition.done)
    return found


def assert_same(left: list[tuple[Any, Transition]], right: list[tuple[Any, Transition]]) -> None:
    ended = 0
    for (window, one), (other_window, other) in zip(left, right, strict=True):
        torch.testing.assert_close(window, other_window, rtol=0, atol=0)
        torch.testing.assert_close(vars(one), vars(other), rtol=0, atol=0)
        ended += int(one.done.sum())
    assert ended > 3, "episodes must end for this to say anything"


@pytest.mark.parametrize("kwargs", SYNC + ASYNC, ids=[f"{k}-{m}" for k in ("sync", "async") for m in MODES])
@pytest.mark.parametrize("chunk", [1, 2])
def test_every_autoreset_mode_gives_the_same_transitions(kwargs: dict[str, Any], chunk: int) -> None:
    """True successors, flags and first observations of their own seeds; no step across an episode's end."""
    with env_of(toy.COUNTER, kind="sync", kwargs={"end": 4}) as single:
        expected = transitions(single, 25, chunk)
    with env_of(toy.COUNTER, kwargs={"end": 4} | kwargs) as env:
        assert_same(expected, transitions(env, 25, chunk))


@pytest.mark.parametrize("kind", ["sync", "vector"])
@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 10),
        ({"max_steps": 13}, 13),
        ({"max_steps": 4}, 4),
        ({"kwargs": {"max_episode_steps": 5}}, 5),
        ({"kwargs": {"max_episode_steps": 12}}, 12),
        ({"kwargs": {"max_episode_steps": 5}, "max_steps": 7}, 7),
        ({"kwargs": {"max_episode_steps": -1}}, 10),
    ],
)
def test_the_limit_that_is_told_is_the_one_that_is_applied(kind: str, options: dict[str, Any], limit: int) -> None:
    kwargs = {"end": 99} | options.get("kwargs", {})
    with env_of(toy.COUNTER, 2, kind, **options | {"kwargs": kwargs}) as env:
        assert env.max_steps == limit
        env.reset([0, 1])
        ends = [bool(env.step(torch.zeros(2, 1)).truncated.all()) for _ in range(limit)]
        assert ends == [False] * (limit - 1) + [True]


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(TaskError, match=r"max_episode_steps must be at least 1, received 0; or set --task\.max_steps"):
        env_of(toy.COUNTER, 2, "sync", kwargs={"max_episode_steps": 0})


@pytest.mark.parametrize("kwargs", SYNC, ids=MODES)
def test_early_ends_and_success_are_those_of_single_environments(kwargs: dict[str, Any]) -> None:
    """Episodes that end by our own limit or by success while the environment would go on."""
    options = {"max_steps": 6, "kwargs": {"tolerance": 0.4}}
    with env_of(toy.POINT_REACH, 6, "sync", **options) as single:
        expected = transitions(single, 40)
    options["kwargs"] |= kwargs
    with env_of(toy.POINT_REACH, 6, **options) as env:
        found = transitions(env, 40)
    assert_same(expected, found)
    assert any(t.terminated.any() for _, t in found)
    assert any(t.truncated.any() for _, t in found)


def test_success_at_the_end_is_read_from_the_episodes_own_last_info() -> None:
    with env_of(toy.POINT_REACH, 6, kwargs={"tolerance": 0.4, "terminates": True} | SYNC[1]) as env:
        env.reset(list(range(6)))
        solved = torch.zeros(6, dtype=torch.bool)
        for _ in range(50):
            step = env.step(torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), ~solved)
            assert torch.equal(step.success[~solved], step.terminated[~solved])
            solved |= step.terminated
            if solved.any():
                break
        assert solved.any()


@pytest.mark.parametrize("task", [toy.NESTED, toy.WALK])
def test_spaces_of_every_kind(task: str) -> None:
    with env_of(task, 2, "sync") as single, env_of(task, 2) as env:
        assert env.observation_spec == single.observation_spec
        torch.testing.assert_close(env.reset([1, 2]), single.reset([1, 2]))
        discrete = env.discrete_actions is not None
        actions = torch.tensor([0, 1]) if discrete else torch.rand(2, env.action_spec.size)
        torch.testing.assert_close(vars(env.step(actions)), vars(single.step(actions)))


def test_our_own_vector_form_is_one_of_them() -> None:
    task = "gym:robolearn.envs.gymnasium.registration:robolearn/Reach-v0"
    actions = torch.rand(8, 3, 3, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    with make("Reach", 3, max_steps=4) as own, env_of(task, kwargs={"max_steps": 4}, max_steps=4) as env:
        first, expected = env.reset([3, 4, 5]), own.reset([3, 4, 5])
        torch.testing.assert_close(first, {k: expected[k] for k in first}, rtol=0, atol=0)
        for i, action in enumerate(actions):
            step, reference = env.step(action), own.step(action)
            torch.testing.assert_close(step.obs, {k: reference.obs[k] for k in step.obs}, rtol=0, atol=0)
            assert torch.equal(step.done, reference.done)
            if step.done.any():
                for other in (env, own):
                    other.reset([10 + i, 20 + i, 30 + i])


def test_a_third_partys_same_step_reset_needs_no_partial_reset() -> None:
    """Row i of `Team` is truncated after 2 + i steps; its rows tell episode, step and sum of actions."""
    with env_of(toy.TEAM) as env:
        found = transitions(env, 30)
        driver = EpisodeDriver(env, seeds=SeedStream(5, 1000), gamma=0.9)
        replay = Replay(60, driver.window, torch.zeros(3, 1, 1))
        for _ in range(20):
            window, actions = driver.window, torch.rand(3, 1, 1)
            transition = driver.advance(actions)
            replay.add(window, actions, transition)
            driver.restart(transition.done)
    for window, t in found:
        now, then = window["state"][:, -1], t.next_obs["state"][:, -1]
        assert torch.equal(now[:, 0], then[:, 0]), "the successor is of the same episode"
        assert torch.equal(now[:, 1] + 1, then[:, 1])
        assert torch.equal(t.truncated, then[:, 1] == 2 + torch.arange(3.0))
    batch = replay.gather(torch.arange(len(replay)))
    assert torch.equal(batch.obs["state"][:, 0, 0], batch.next_obs["state"][:, 0, 0])
    assert torch.equal(batch.obs["state"][:, 0, 1] + 1, batch.next_obs["state"][:, 0, 1])
    assert (batch.discounts == 0.9).all(), "truncated, so the value beyond counts"


@pytest.mark.parametrize("kwargs", [*SYNC, ASYNC[0]], ids=[*MODES, "async"])
def test_running_episodes_are_brought_back(kwargs: dict[str, Any]) -> None:
    """A vector environment cannot hold the younger episodes still while the older ones are replayed."""
    task = TaskConfig(id=toy.COUNTER, worker_kind="vector", kwargs={"end": 4} | kwargs)
    generator = torch.Generator().manual_seed(0)
    with GymVectorEnv(task, 3) as env, GymVectorEnv(task, 3) as fresh:
        driver = EpisodeDriver(env, seeds=SeedStream(5, 1000), gamma=0.9)
        for early in ([False] * 3, [False, True, False], [False] * 3, [True, False, False]):
            done = driver.advance(torch.randn(3, 1, 1, generator=generator)).done
            driver.restart(done | torch.tensor(early))
        assert driver.lengths.tolist() == [0, 2, 0], "three ages"
        driver.restart(driver.advance(torch.randn(3, 1, 1, generator=generator)).done & False)
        resumed = EpisodeDriver(fresh, seeds=SeedStream(5, 1000), gamma=0.9)
        resumed.load_state_dict(driver.state_dict())
        actions = torch.randn(3, 1, 1, generator=generator)
        torch.testing.assert_close(resumed.window, driver.window)
        torch.testing.assert_close(vars(resumed.advance(actions)), vars(driver.advance(actions)))


@pytest.mark.parametrize("algorithm", [PPOConfig(num_steps=16, batch_size=16, epochs=2), SACConfig(random_steps=32)])
def test_training_from_scratch(algorithm: Any, tmp_path: Any) -> None:
    task = TaskConfig(id=toy.TEAM, worker_kind="vector")
    config = replace(small_run(algorithm, tmp_path / "run"), task=task)
    assert train_rl(config).env_steps >= 160
    assert any("eval_return" in row for row in read_metrics(config.output))


def test_refusals_say_what_to_do() -> None:
    def play(**options: Any) -> None:
        with env_of(toy.TEAM, **options) as env:
            transitions(env, 6)

    with pytest.raises(TaskError, match=r"does not know reset_mask.*SAME_STEP"):
        play(kwargs={"autoreset": "NextStep"})
    with pytest.raises(TaskError, match="no final_obs"):
        play(kwargs={"tells": False})
    with pytest.raises(TaskError, match=r"autoreset_mode.*NextStep, SameStep.*None"):
        play(kwargs={"autoreset": ""})
    with pytest.raises(TaskError, match=r"only where its episode ends by itself.*max_steps"):
        play(max_steps=3)
    with pytest.raises(TaskError, match="worker_kind vector"):
        make(TaskConfig(id=toy.TEAM, worker_kind="sync"), 2)
    with env_of(toy.POINT_REACH) as env:
        env.reset()
        assert env.get_states() is None
        with pytest.raises(TaskError, match=r"render_mode None.*kwargs.render_mode rgb_array"):
            env.render(1)
    with env_of(toy.POINT_REACH, kwargs={"render_mode": "rgb_array"}) as env:
        env.reset()
        assert env.render(1).shape == (64, 64, 3)


def test_an_environment_that_is_refused_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its processes, if it has any, would wait for the garbage collector."""
    closed: list[toy.Team] = []
    monkeypatch.setattr(toy.Team, "close", lambda self, **_: closed.append(self))
    with pytest.raises(TaskError, match="autoreset_mode"):
        env_of(toy.TEAM, kwargs={"autoreset": ""})
    assert closed


def test_a_fault_names_the_environments_words() -> None:
    with env_of(toy.FAULTY, kwargs={"fault": "raise", "seed": 7}) as env:
        env.reset([6, 7, 8])
        env.step(torch.zeros(3, 1))
        env.step(torch.zeros(3, 1))
        with pytest.raises(TaskError, match="the gripper fell off"):
            env.step(torch.zeros(3, 1))
