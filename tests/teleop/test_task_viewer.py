"""The browser viewer: a real server on a real port."""

from __future__ import annotations

import urllib.request
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("viser")
pytest.importorskip("mjviser")

from robolearn.envs.task_env import TaskEnv
from robolearn.errors import TaskError
from robolearn.tasks.arm.lift import Lift
from robolearn.teleop.task_viewer import TaskViewer


@pytest.fixture
def viewer():
    made = TaskViewer("Lift", port=8790, seed=3)
    yield made
    made.close()


def test_it_serves_a_page(viewer):
    page = urllib.request.urlopen(f"http://localhost:{viewer.port}", timeout=20).read()
    assert b"<html" in page.lower()


def test_the_expert_plays_the_episode_of_the_seed_and_then_the_next(viewer):
    env, expert = TaskEnv.of(Lift, 1), Lift().expert(1)
    obs = env.reset([3])
    expert.reset([3])
    done = False
    while not done:
        viewer.tick()
        step = env.step(expert.act(obs))
        obs, done = step.obs, bool(step.done[0])
        assert torch.equal(viewer.env.simulation.qpos, env.simulation.qpos)
    viewer.tick()
    assert viewer.seed == 4


def test_pausing_and_other_drivers(viewer):
    viewer.tick()
    viewer.paused = True
    before = viewer.env.simulation.qpos.clone()
    viewer.tick()
    assert torch.equal(viewer.env.simulation.qpos, before)
    viewer.paused = False
    viewer._driver = SimpleNamespace(value="random")
    viewer.tick()
    assert not torch.equal(viewer.env.simulation.qpos, before)


def test_an_unknown_task_is_named():
    with pytest.raises(TaskError, match="did you mean 'Lift'"):
        TaskViewer("Lif")
