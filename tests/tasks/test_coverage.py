"""Coverage of the T against counting points, and against areas worked out by hand."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from robolearn.sim.simulation import sensor_slices
from robolearn.tasks.planar.coverage import BAR, STEM, coverage
from robolearn.tasks.planar.push_t import PushT
from robolearn.tasks.rotations import yaw_to_quat
from robolearn.tasks.task import Sensors


def count_points(x, y, yaw, spacing=0.0008):
    """The share of a fine grid of points of the goal's T (at the origin) that lie in the other T."""
    inside_of = []
    grid = np.arange(-0.12, 0.12, spacing) + spacing / 2
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    c, s = math.cos(yaw), math.sin(yaw)
    moved = (points - [x, y]) @ np.array([[c, -s], [s, c]])
    for p in (points, moved):
        masks = [(np.abs(p - [cx, cy]) <= [hx, hy]).all(-1) for cx, cy, hx, hy in (BAR, STEM)]
        inside_of.append(masks[0] | masks[1])
    return (inside_of[0] & inside_of[1]).sum() / inside_of[0].sum()


def cover(x, y, yaw, dtype=torch.float64):
    zero = torch.zeros(1, dtype=dtype)
    return float(coverage(torch.tensor([[x, y]], dtype=dtype), zero + yaw, torch.zeros(1, 2, dtype=dtype), zero))


@example(x=0.0, y=1e-6, yaw=0.0)
@example(x=-1e-6, y=0.0, yaw=0.0)
@settings(max_examples=60)
@given(x=st.floats(-0.1, 0.1), y=st.floats(-0.1, 0.1), yaw=st.floats(-math.pi, math.pi))
def test_coverage_is_the_share_of_points(x, y, yaw):
    assert cover(x, y, yaw) == pytest.approx(count_points(x, y, yaw), abs=0.012)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("yaw", [0.0, 0.3, math.pi / 4, 2.0])
def test_the_same_pose_covers_everything(dtype, yaw):
    position = torch.tensor([[0.36, -0.2]], dtype=dtype)
    angle = torch.full((1,), yaw, dtype=dtype)
    assert float(coverage(position, angle, position, angle)) == pytest.approx(1.0, abs=1e-4)


def test_areas_worked_out_by_hand():
    area = 4 * (BAR[2] * BAR[3] + STEM[2] * STEM[3])
    d = 0.01
    # Shifted sideways by d, bar and stem each lose a strip of their height; the stem's strip stays outside the bar.
    lost = d * (2 * BAR[3]) + d * (2 * STEM[3])
    assert cover(d, 0, 0) == pytest.approx(1 - lost / area, abs=1e-4)
    assert cover(1.0, 0, 0) == 0.0


def test_it_does_not_matter_where_and_how_the_pair_lies():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(50, 2, generator=generator, dtype=torch.float64) * 0.04 for _ in range(2))
    yaw_a, yaw_b, turn = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(3))
    rotation = torch.stack((torch.cos(turn), -torch.sin(turn), torch.sin(turn), torch.cos(turn)), -1).view(-1, 2, 2)

    def moved(p):
        return (rotation @ p[..., None])[..., 0] + 0.3

    expected = coverage(a, yaw_a, b, yaw_b)
    torch.testing.assert_close(coverage(moved(a), yaw_a + turn, moved(b), yaw_b + turn), expected, rtol=0, atol=5e-5)
    torch.testing.assert_close(coverage(b, yaw_b, a, yaw_a), expected, rtol=0, atol=5e-5)


def test_the_shape_is_that_of_the_mjcf():
    model = PushT().model
    for name, (x, y, half_x, half_y) in {"bar": BAR, "stem": STEM}.items():
        np.testing.assert_allclose(model.geom(name).pos[:2], [x, y], atol=1e-6)
        np.testing.assert_allclose(model.geom(name).size[:2], [half_x, half_y], atol=1e-6)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    tee = model.body("tee")
    np.testing.assert_allclose(tee.ipos[:2], 0.0, atol=1e-5, err_msg="the origin is the centre of mass")


def test_a_task_is_solved_exactly_where_enough_is_covered():
    """Though coverage is only computed where the T is near its outline: on its edge, at both sides of the threshold."""
    env = PushT(torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    readings = torch.zeros(4000, env.model.nsensordata, dtype=torch.float64)
    slices = sensor_slices(env.model)
    distance, bearing = 0.03 * torch.rand(4000, generator=generator), 7.0 * torch.rand(4000, generator=generator)
    readings[:, slices["tee_pos"].start] = distance * bearing.cos()
    readings[:, slices["tee_pos"].start + 1] = distance * bearing.sin()
    turn = 0.05 * torch.randn(4000, generator=generator) * (torch.rand(4000, generator=generator) < 0.5)
    readings[:, slices["tee_quat"]] = yaw_to_quat(turn).double()
    readings[:, slices["goal_quat"].start] = 1.0
    sensors = Sensors(readings, slices)
    covered = env.covered(sensors)
    assert torch.equal(env.solved(sensors), covered >= 0.95)
    assert 40 < int(env.solved(sensors).sum()) < 2000
    assert float(distance[covered >= 0.95].max()) < 0.018
    assert not env.solved(Sensors(readings[distance > 0.02], slices)).any()
