"""Kinematics and rotations against C MuJoCo and numpy."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st

from robolearn.tasks.arm.arm_task import HOME, JOINTS
from robolearn.tasks.arm.kinematics import Chain
from robolearn.tasks.arm.lift import Lift
from robolearn.tasks.rotations import (
    cube_axes,
    cube_turns,
    quat_axes,
    quat_yaw,
    turn_down,
    turn_down_parts,
    wrap,
    yaw_to_quat,
)


@pytest.fixture(scope="module")
def model():
    return Lift().model


@pytest.fixture(scope="module")
def chain(model):
    return Chain(model, JOINTS, "tcp", torch.device("cpu"))


def configurations(model, count=40):
    rng = np.random.default_rng(0)
    low, high = model.jnt_range[:6].T
    return rng.uniform(low, high, (count, 6))


def test_position_rotation_and_jacobian_are_mujocos(model, chain):
    qs = configurations(model)
    position, rotation, jacobian = chain.forward(qs.astype(np.float32))
    data, linear, angular = mujoco.MjData(model), np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for i, q in enumerate(qs):
        data.qpos[:6] = q
        mujoco.mj_forward(model, data)
        mujoco.mj_jacSite(model, data, linear, angular, model.site("tcp").id)
        np.testing.assert_allclose(position[i], data.site("tcp").xpos, atol=2e-6)
        np.testing.assert_allclose(rotation[i].ravel(), data.site("tcp").xmat, atol=2e-6)
        np.testing.assert_allclose(jacobian[i], np.vstack((linear, angular))[:, :6], atol=3e-6)


def test_damped_least_squares_minimises_what_it_says(model, chain):
    q, rng = configurations(model, 8).astype(np.float32), np.random.default_rng(1)
    jacobian, error, damping = chain.forward(q)[2], rng.normal(size=(8, 6)).astype(np.float32), 0.05
    step = chain.solve(jacobian, error, damping)
    for i in range(8):
        stacked = np.vstack((jacobian[i], damping * np.eye(6)))
        expected = np.linalg.lstsq(stacked, np.r_[error[i], np.zeros(6)], rcond=None)[0]
        np.testing.assert_allclose(step[i], expected, rtol=2e-3, atol=2e-4)


def test_home_points_down_and_is_far_from_singular(chain):
    position, rotation, jacobian = chain.forward(np.array([HOME], np.float32))
    np.testing.assert_allclose(rotation[0], np.diag([1.0, -1.0, -1.0]), atol=2e-3)
    np.testing.assert_allclose(position[0], [0.45, 0.0, 0.2], atol=2e-3)
    assert np.linalg.svd(jacobian[0])[1].min() > 0.1


@given(angles=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_quaternions(angles):
    quat, expected = np.zeros(4), np.zeros(9)
    mujoco.mju_euler2Quat(quat, np.array(angles), "xyz")
    mujoco.mju_quat2Mat(expected, quat)
    axes = expected.reshape(3, 3).T.ravel()
    np.testing.assert_allclose(quat_axes(torch.tensor(quat)[None])[0], axes, atol=1e-12)
    assert float(quat_yaw(torch.tensor(quat))) == pytest.approx(math.atan2(expected[3], expected[0]), abs=1e-9)


@given(yaw=st.floats(-3.1, 3.1))
def test_yaw_there_and_back(yaw):
    assert float(quat_yaw(yaw_to_quat(torch.tensor(yaw, dtype=torch.float64)))) == pytest.approx(yaw, abs=1e-9)


@given(angle=st.floats(-50, 50), period=st.sampled_from([math.pi / 2, 2 * math.pi]))
def test_wrap(angle, period):
    wrapped = float(wrap(torch.tensor(angle, dtype=torch.float64), period))
    assert -period / 2 <= wrapped <= period / 2
    turns = (angle - wrapped) / period
    assert turns == pytest.approx(round(turns), abs=1e-6)


@given(yaw=st.floats(-3.1, 3.1), angles=st.lists(st.floats(-0.05, 0.05), min_size=3, max_size=3))
def test_turn_down_is_the_rotation_vector_near_zero(yaw, angles):
    target = np.array([[math.cos(yaw), math.sin(yaw), 0], [math.sin(yaw), -math.cos(yaw), 0], [0, 0, -1]])
    quat, turned, vector = np.zeros(4), np.zeros(9), np.array(angles)
    length = float(np.linalg.norm(vector))
    mujoco.mju_axisAngle2Quat(quat, vector / max(length, 1e-12), length)
    mujoco.mju_quat2Mat(turned, quat)
    rotation = turned.reshape(3, 3).T @ target  # which `vector` turns into the target
    turn = turn_down(np.array([yaw]), rotation[None], turn_down_parts())
    np.testing.assert_allclose(turn[0], vector, atol=1e-4)


@given(angles=st.lists(st.floats(-3, 3), min_size=3, max_size=3), heading=st.floats(-3, 3), turn=st.integers(0, 23))
def test_a_cube_looks_the_same_from_all_its_sides(angles, heading, turn):
    quat, matrix, turned = np.zeros(4), np.zeros(9), np.zeros(4)
    mujoco.mju_euler2Quat(quat, np.array(angles), "xyz")
    mujoco.mju_quat2Mat(matrix, quat)
    turns, matrix = cube_turns(), matrix.reshape(3, 3)
    mujoco.mju_mat2Quat(turned, (matrix @ turns[turn]).ravel())
    upright = np.array(
        [[math.cos(heading), -math.sin(heading), 0], [math.sin(heading), math.cos(heading), 0], [0, 0, 1]]
    )
    # How far it is from upright, in radians, for each of the 24 ways to name its faces.
    apart = [math.acos(np.clip((np.trace(upright.T @ matrix @ t) - 1) / 2, -1, 1)) for t in turns]
    nearest, second = np.sort(apart)[:2]
    assume(second - nearest > 1e-3)
    expected = (matrix @ turns[int(np.argmin(apart))])[:, :2].T.ravel()
    for q in (quat, turned):
        np.testing.assert_allclose(cube_axes(q[None], np.array([heading]), turns)[0], expected, atol=1e-6)
        both = cube_axes(torch.tensor(q)[None], torch.tensor([heading], dtype=torch.float64), torch.tensor(turns))
        np.testing.assert_allclose(both[0], expected, atol=1e-6)
