"""What tasks calculate with numpy on the CPU: by torch the same, and control against C MuJoCo in float64."""

from __future__ import annotations

import math
import sys

import mujoco
import numpy as np
import pytest
import torch

from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.tasks import registry
from robolearn.tasks.arm.arm_task import JOINTS, ArmTask
from robolearn.tasks.planar import coverage
from robolearn.tasks.task import Sensors

ARM = ["Reach", "Lift", "PickPlace", "Stack", "PegInsert"]


@pytest.fixture
def by_torch(monkeypatch):
    """Tasks calculate with torch, as they do on a GPU."""
    for name, module in list(sys.modules.items()):
        if name.startswith("robolearn.") and hasattr(module, "light"):
            monkeypatch.setattr(module, "light", lambda values: values)
    coverage._constants.cache_clear()
    yield
    coverage._constants.cache_clear()


def episode(name, **options):
    """Observations, rewards and flags of some steps of the expert's and some at random, all from one state each."""
    env = make_task(name, 4, reward="dense", max_steps=18, **options)
    obs, generator, out = env.reset(range(4)), torch.Generator().manual_seed(0), []
    for k in range(20):
        mask = torch.tensor([True, True, False, True]) if k == 7 else None
        step = env.step(2 * torch.rand(4, env.action_spec.size, generator=generator) - 1, mask)
        out.append((step.obs, step.reward, step.terminated, step.truncated, step.success))
    env.close()
    return [(obs, *out[0][1:])[:1], *out]


@pytest.mark.parametrize("control", ["ee", "joint"])
@pytest.mark.parametrize("name", registry.own_names())
def test_torch_calculates_the_same(name, control, request):
    expected = episode(name, control=control)
    request.getfixturevalue("by_torch")
    found = episode(name, control=control)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def joint_targets(task: ArmTask, sensors: Sensors, ctrl: np.ndarray, actions: np.ndarray, data: mujoco.MjData):
    """One world's next joint targets by C MuJoCo's kinematics and numpy's least squares, in float64."""
    model, site, q = task.model, task.model.site("tcp").id, ctrl[:6]
    data.qpos[:6] = q
    mujoco.mj_forward(model, data)
    step = dict(zip(task.axes, actions))
    measured = sensors["tcp_pos"][0].double().numpy()
    lead = data.site_xpos[site] + 0.015 * np.array([step[a] for a in "xyz"]) - measured
    wanted = measured + lead * min(1.0, 0.03 / np.linalg.norm(lead))
    wanted = np.clip(wanted, [0.28, -0.32, 0.008], [0.66, 0.32, 0.42])
    present, tool = data.site_xmat[site].reshape(3, 3), np.zeros(9)
    mujoco.mju_quat2Mat(tool, sensors["tcp_quat"][0].double().numpy())
    tool_yaw = math.atan2(tool[3], tool[0])
    ahead = math.atan2(present[1, 0], present[0, 0]) + 0.12 * step.get("yaw", 0.0) - tool_yaw
    yaw = tool_yaw + np.clip(math.remainder(ahead, 2 * math.pi), -0.35, 0.35)
    down = np.array([[math.cos(yaw), math.sin(yaw), 0], [math.sin(yaw), -math.cos(yaw), 0], [0, 0, -1]])
    turn = 0.5 * np.cross(present, down, axis=0).sum(1)
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, linear, angular, site)
    jacobian = np.vstack((linear, angular))[:, :6]
    error = np.r_[wanted - data.site_xpos[site], turn, np.zeros(6)]
    dq = np.linalg.lstsq(np.vstack((jacobian, 0.03 * np.eye(6))), error, rcond=None)[0]
    low, high = np.array([model.joint(j).range for j in JOINTS]).T
    return np.clip(q + np.clip(dq, -0.2, 0.2), low, high)


@pytest.mark.parametrize("name", ARM)
def test_joint_targets_are_the_damped_least_squares_of_c_mujoco(name):
    """Along the expert's episode, and so of every object and contact that it meets: to a millionth of a radian."""
    env = make_task(name, 1)
    assert isinstance(env, TaskEnv)
    assert isinstance(env.task, ArmTask)
    expert, obs, data = env.expert(), env.reset([11]), mujoco.MjData(env.task.model)
    expert.reset([11])
    for _ in range(90):
        action, sensors, ctrl = expert.act(obs), Sensors.read(env.simulation), env.simulation.ctrl[0].numpy().copy()
        expected = joint_targets(env.task, sensors, ctrl, action[0].double().numpy(), data)
        obs = env.step(action).obs
        np.testing.assert_allclose(env.simulation.ctrl[0, :6], expected, rtol=0, atol=4e-6)
    env.close()
