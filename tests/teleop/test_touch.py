"""The forces that the page shows are those that the policy observes."""

from __future__ import annotations

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.experts import make_expert
from robolearn.envs.make import make
from robolearn.teleop.touch import Touch
from tests.envs.toy import POINT_REACH


def test_fingers_that_hold_the_cube_feel_it() -> None:
    with make("Lift", 1) as env:
        touch, expert = Touch(env), make_expert("auto", env)
        obs = env.reset([3])
        expert.reset([3])
        assert touch.newtons() == {"left": 0.0, "right": 0.0}
        done = False
        while not done:
            step = env.step(expert.act(obs))
            obs, done = step.obs, bool(step.done[0])
        forces = touch.newtons()
        assert min(forces.values()) > 0.5
        np.testing.assert_allclose(list(forces.values()), 10 * obs["proprio"][0, 6:8].numpy(), atol=0.06)


def test_where_there_is_no_model_nothing_is_felt() -> None:
    with make(TaskConfig(id=POINT_REACH, worker_kind="sync"), 1) as env:
        env.reset([0])
        assert Touch(env).newtons() == {}
