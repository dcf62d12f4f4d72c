"""Meta-World: seeds that count, exact episodes whatever the workers, exact restoring, and its scripted experts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.experts import make_expert
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.make import make
from robolearn.errors import TaskError

pytest.importorskip("metaworld")


def env_of(num_envs: int, name: str = "pick-place-v3", **options) -> GymVectorEnv:
    return GymVectorEnv(TaskConfig(id="gym:Meta-World/MT1", kwargs={"env_name": name}, **options), num_envs)


def run(env: GymVectorEnv, seeds: list[int], steps: int) -> list[np.ndarray]:
    """Actions that depend on the seed only; observations and rewards of each seed, however they are spread."""
    results = []
    for start in range(0, len(seeds), env.num_envs):
        part = seeds[start : start + env.num_envs]
        mask = torch.arange(env.num_envs) < len(part)
        rngs = [np.random.default_rng(seed) for seed in part]
        obs = env.reset(part, mask)["state"]
        rows = [[obs[i].numpy()] for i in range(len(part))]
        for _ in range(steps):
            actions = torch.zeros(env.num_envs, 4)
            for i, rng in enumerate(rngs):
                actions[i] = torch.from_numpy(rng.uniform(-1, 1, 4))
            step = env.step(actions, mask)
            for i, row in enumerate(rows):
                row.append(np.append(step.obs["state"][i].numpy(), step.reward[i].item()))
        results += [np.concatenate(row) for row in rows]
    return results


@pytest.mark.long
def test_one_two_and_three_workers_give_the_same_bits() -> None:
    seeds = [5, 17, 400]
    with env_of(1) as env:
        reference = run(env, seeds, 15)
    assert len({r.tobytes() for r in reference}) == len(seeds)
    for workers in (1, 2, 3):
        with env_of(workers, workers=workers) as env:
            for ours, theirs in zip(run(env, seeds, 15), reference, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_every_seed_has_its_own_start_beyond_the_fifty_fixed_tasks() -> None:
    with env_of(1) as env:
        starts = {env.reset([seed])["state"].numpy().tobytes() for seed in range(80)}
    assert len(starts) == 80


@pytest.mark.parametrize("name", ["reach-v3", "door-open-v3", "peg-insert-side-v3", "drawer-close-v3"])
@pytest.mark.long
def test_other_tasks_are_as_exact(name: str) -> None:
    with env_of(1, name) as used, env_of(1, name) as fresh:
        run(used, [1, 2], 30)
        np.testing.assert_array_equal(run(used, [7], 30)[0], run(fresh, [7], 30)[0])


@pytest.mark.parametrize("name", ["pick-place-v3", "door-open-v3"])
def test_a_restored_state_continues_bit_for_bit(name: str) -> None:
    actions = torch.rand(40, 1, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with env_of(1, name) as env, env_of(1, name) as other:
        env.reset([6])
        for action in actions[:20]:
            here = env.step(action)
        state = env.get_states()
        assert state is not None
        other.reset([6])
        other.step(torch.ones(1, 4))
        np.testing.assert_array_equal(other.set_states(state)["state"], here.obs["state"])
        for action in actions[20:]:
            a, b = env.step(action), other.step(action)
            np.testing.assert_array_equal(a.obs["state"], b.obs["state"])
            assert torch.equal(a.reward, b.reward)


def test_the_time_limit_is_meta_worlds_own() -> None:
    with env_of(1) as env:
        assert (env.max_steps, env.control_hz) == (500, 80.0)
        env.reset([0])
        for _ in range(499):
            assert not env.step(torch.zeros(1, 4)).done.item()
        step = env.step(torch.zeros(1, 4))
        assert (step.terminated.item(), step.truncated.item()) == (False, True)


def test_the_scripted_policy_solves_the_task_from_unit_actions() -> None:
    with env_of(4, workers=2) as env:
        expert = make_expert("auto", env)
        obs, solved = env.reset([0, 1, 2, 3]), torch.zeros(4, dtype=torch.bool)
        expert.reset([0, 1, 2, 3])
        for _ in range(120):
            actions = expert.act(obs).clamp(-1.0, 1.0)  # its scripted policies ask for more, which is cut off
            step = env.step(actions)
            obs, solved = step.obs, solved | step.success
        assert solved.all()
        assert step.terminated.all()


def test_errors_name_the_way_out() -> None:
    with pytest.raises(TaskError, match="pick-place-v3"):
        env_of(1, "pick-plac-v3")
    with pytest.raises(TaskError, match=r"--task\.kwargs\.env_name"):
        make("gym:Meta-World/MT1")
    with pytest.raises(TaskError, match="vector form"):
        make("gym:Meta-World/MT10")
    with make("gym:HalfCheetah-v5") as env, pytest.raises(TaskError, match="knows Meta-World's tasks"):
        make_expert("metaworld", env)
