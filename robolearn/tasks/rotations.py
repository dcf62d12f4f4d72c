"""Rotations as the tasks use them: quaternions (w first, MuJoCo's order), matrices, and yaw about the vertical."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import torch

from robolearn.tasks.arrays import Array, columns, namespace


def yaw_to_quat(yaw: torch.Tensor) -> torch.Tensor:
    """Map (...) radians about the vertical -> (..., 4)."""
    zero = torch.zeros_like(yaw)
    return torch.stack((torch.cos(yaw / 2), zero, zero, torch.sin(yaw / 2)), -1)


def quat_yaw(quat: Array) -> Array:
    """Map (..., 4) -> (...) heading of the body's x axis in the horizontal plane, in radians."""
    w, x, y, z = quat[..., 0], quat[..., 1], quat[..., 2], quat[..., 3]
    return namespace(quat).arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))


def quat_axes(quat: Array) -> Array:
    """Map (N, 4) -> (N, 9): the body's x, y and z axes, the columns of its matrix."""
    w, x, y, z = quat[:, 0], quat[:, 1], quat[:, 2], quat[:, 3]
    x_axis = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    y_axis = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    z_axis = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    return columns((*x_axis, *y_axis, *z_axis))


def cube_axes(quat: Array, heading: Array, turns: Array) -> Array:
    """Map (N, 4) -> (N, 6): x and y axes of a cube whose faces look alike.

    Of its 24 orientations that nobody can tell apart, the one nearest to that of a body upright at `heading` (N,), in
    radians, is taken. `turns` is `cube_turns()` as a light array.
    """
    xp, rows = namespace(quat), quat_axes(quat).reshape(-1, 3, 3)
    cos, sin = xp.cos(heading)[:, None], xp.sin(heading)[:, None]
    along, across = cos * rows[..., 0] + sin * rows[..., 1], cos * rows[..., 1] - sin * rows[..., 0]
    # The trace of (turn x rows seen from the heading): three for the same orientation.
    likeness = xp.concatenate((along, across, rows[..., 2]), -1) @ turns.reshape(24, 9).T
    return (turns[likeness.argmax(-1)] @ rows)[:, :2].reshape(-1, 6)


def cube_turns() -> np.ndarray:
    """Return (24, 3, 3): the rotations that map a cube onto itself, the one that does nothing first."""
    signed = [np.eye(3)[list(p)] * s for p in permutations(range(3)) for s in product((1, -1), repeat=3)]
    return np.array([turn for turn in signed if np.linalg.det(turn) > 0])


def wrap(angle: Array, period: float = 2 * math.pi) -> Array:
    """Bring angles into [-period/2, period/2)."""
    return namespace(angle).remainder(angle + period / 2, period) - period / 2


def turn_down(yaw: Array, rotation: Array, parts: Array) -> Array:
    """Return (N, 3): the rotation vector from `rotation` (N, 3, 3) to a tool that points down, exact near zero.

    Half the sum of r_k x t_k over the columns of `rotation` and of the target, whose columns are (cos, sin, 0),
    (sin, -cos, 0) and (0, 0, -1) of `yaw` (N,), the heading of the tool's x axis. So it is U cos + V sin + W, where
    U, V and W are linear in `rotation`: `parts` is `turn_down_parts()` as a light array.
    """
    u, v, w = (rotation.reshape(-1, 9) @ parts).reshape(-1, 3, 3).swapaxes(0, 1)
    return u * namespace(yaw).cos(yaw)[:, None] + v * namespace(yaw).sin(yaw)[:, None] + w


def turn_down_parts() -> np.ndarray:
    """Return (9, 9): from a rotation's entries, row by row, to U, V and W of `turn_down`."""
    targets = np.array([[[1, 0, 0], [0, -1, 0], [0, 0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.diag([0, 0, -1])])
    basis = np.eye(9).reshape(9, 1, 3, 3)
    return 0.5 * np.cross(basis, targets, axis=2).sum(-1).reshape(9, 9)
