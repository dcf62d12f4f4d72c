"""Our tasks as Gymnasium environments, judged by Gymnasium's and Stable-Baselines3's own checkers."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import robolearn.envs.gymnasium.registration  # noqa: F401 (gives the ids)
from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.errors import TaskError
from robolearn.sim import rendering
from robolearn.tasks import registry
from robolearn.tasks.arm.lift import Lift


@pytest.mark.parametrize("name", registry.own_names())
def test_gymnasiums_checker_is_content(name):
    env = gymnasium.make(f"robolearn/{name}-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", registry.own_names())
def test_stable_baselines_checker_is_content(name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gymnasium.make(f"robolearn/{name}-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(env.unwrapped)
    env.close()


@pytest.mark.skipif(rendering.find_backend() is None, reason="no OpenGL here")
def test_with_pictures_both_checkers_are_content():
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gymnasium.make("robolearn/Lift-v0", render_mode="rgb_array", cameras=("wrist",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
        checker.check_env(env.unwrapped)
    assert env.unwrapped.render().shape == (480, 640, 3)
    env.close()


def test_a_seed_is_the_same_episode_as_in_our_own_form():
    env, own = gymnasium.make("robolearn/Lift-v0"), TaskEnv.of(Lift, 1)
    obs, _ = env.reset(seed=17)
    ours = own.reset([17])
    for key in ours:
        assert np.array_equal(obs[key], ours[key][0].numpy())


def test_success_is_in_info_and_ends_the_episode():
    env, own = gymnasium.make("robolearn/Reach-v0"), make_task("Reach")
    expert = own.expert()
    expert.reset([3])
    obs, info = env.reset(seed=3)
    assert info == {"is_success": False}
    import torch

    for _ in range(100):
        batch = {key: torch.as_tensor(value)[None] for key, value in obs.items()}
        obs, reward, terminated, truncated, info = env.step(expert.act(batch)[0].numpy())
        if terminated or truncated:
            break
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def test_the_vector_form_restarts_in_the_next_step():
    env = gymnasium.make_vec("robolearn/Reach-v0", num_envs=3, max_steps=2)
    obs, _ = env.reset(seed=5)
    single, _ = gymnasium.make("robolearn/Reach-v0").reset(seed=6)
    assert np.array_equal(obs["goal"][1], single["goal"]), "environment i has seed + i"
    action = np.zeros(env.action_space.shape, np.float32)
    outcomes = [env.step(action) for _ in range(4)]
    assert [bool(o[3].all()) for o in outcomes] == [False, True, False, False]
    ended, restarted = outcomes[1][0], outcomes[2][0]
    assert np.array_equal(ended["goal"][:, :3], obs["goal"][:, :3]), "the true last observation"
    assert not np.array_equal(restarted["goal"][:, :3], ended["goal"][:, :3])
    assert outcomes[2][1].tolist() == [0.0, 0.0, 0.0]
    env.close()


def goals_by_episode(env, episodes, seed):
    """The goal of each episode in turn, (episodes, N, 3); every episode is one step long."""
    action, goals = np.zeros(env.action_space.shape, np.float32), [env.reset(seed=seed)[0]["goal"]]
    while len(goals) < episodes:
        env.step(action)  # ends it
        goals.append(env.step(action)[0]["goal"])
    return np.stack(goals)[..., :3]


def test_later_episodes_follow_from_each_environments_own_seed():
    env = gymnasium.make_vec("robolearn/Reach-v0", num_envs=2, max_steps=1)
    goals = goals_by_episode(env, 3, [8, 3])
    for column, seed in enumerate((8, 3)):
        single = gymnasium.make("robolearn/Reach-v0")
        alone = [single.reset(seed=seed)[0]["goal"][:3], *(single.reset()[0]["goal"][:3] for _ in range(2))]
        assert np.array_equal(goals[:, column], alone)
    for same in (np.array([8, 3]), [np.int64(8), 3]):
        assert np.array_equal(goals_by_episode(env, 3, same), goals)
    assert np.array_equal(goals_by_episode(env, 3, np.int64(2)), goals_by_episode(env, 3, [2, 3]))
    again = goals_by_episode(env, 3, [8, None])
    assert np.array_equal(again[:, 0], goals[:, 0])
    assert not np.array_equal(again[:, 1], goals[:, 1]), "it goes on where its generator stood"
    env.reset(seed=[8, 3])
    env.reset(seed=[0, 3], options={"reset_mask": np.array([False, True])})
    assert np.array_equal(goals_by_episode(env, 2, None), goals[1:]), "who was not reset keeps its generator"
    with pytest.raises(TaskError, match="one seed for each of the 2 environments, received 3"):
        env.reset(seed=[1, 2, 3])
    env.close()


def test_registering_loads_neither_torch_nor_mujoco():
    code = (
        "import sys, robolearn.envs.gymnasium.registration as r; r.register(); "
        "print([m for m in ('torch', 'mujoco') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_id_alone_is_enough_where_it_names_the_module():
    code = (
        "import gymnasium; env = gymnasium.make('robolearn.envs.gymnasium.registration:robolearn/Reach-v0'); "
        "print(env.reset(seed=1)[0]['goal'].shape)"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(6,)", done.stderr
