"""Forward kinematics, Jacobian and damped least squares of a serial chain, for all worlds at once.

The constants are read from the MJCF model, and the input is joint angles only, so the CPU and the Warp back end get
the same joint targets for the same action, up to rounding. Arrays are light ones (see `robolearn.tasks.arrays`).
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import torch

from robolearn.tasks.arrays import Array, constant, namespace


class Chain:
    """The J hinge joints from the world to a site, in order.

    A joint's frame in that of the joint before it is [R | p] with R = T (I + sin q K + (1 - cos q) K^2), by Rodrigues,
    where [T | p] is fixed and K the cross-product matrix of the joint's axis. So the frames of all joints are
    A + sin q B + cos q C with constant 4x4 matrices, and what remains is J - 1 products.
    """

    def __init__(self, model: mujoco.MjModel, joints: Sequence[str], site: str, device: torch.device):
        """Read the constants. Raises KeyError where the model has no such joint or site (MuJoCo's own message)."""
        end = model.site(site)
        bodies = [int(end.bodyid[0])]
        while bodies[0] != 0:
            bodies.insert(0, int(model.body_parentid[bodies[0]]))
        fixed, axes, still, sines, cosines = np.eye(4), [], [], [], []
        for body in bodies[1:]:
            fixed = fixed @ _frame(model.body_pos[body], model.body_quat[body])
            joint = int(model.body_jntadr[body])
            if model.body_jntnum[body] == 1 and model.joint(joint).name in joints:
                cross = _cross_matrix(model.jnt_axis[joint])
                axes.append(model.jnt_axis[joint])
                still.append(fixed @ (np.eye(4) + cross @ cross))
                sines.append(fixed @ cross)
                cosines.append(-fixed @ cross @ cross)
                fixed = np.eye(4)
        assert len(axes) == len(joints), "every joint of the chain must move a body between the world and the site"
        self.size = len(axes)
        self._still, self._sines, self._cosines = (constant(values, device) for values in (still, sines, cosines))
        self._axes = constant(axes, device)[..., None]
        self._end = constant(fixed @ _frame(end.pos, end.quat), device)
        self._eye = constant(np.eye(6), device)
        # (3, 9): from a vector d to the matrix with a @ matrix = a x d.
        self._crosses = constant([_cross_matrix(axis)[:3, :3].ravel() for axis in np.eye(3)], device)

    def forward(self, q: Array) -> tuple[Array, Array, Array]:
        """Return the site's position (N, 3), rotation (N, 3, 3) and Jacobian (N, 6, J), linear rows first, world frame.

        Args:
            q: (N, J) float32 angles.
        """
        xp = namespace(q)
        angles = q[..., None, None]
        frames = self._still + xp.sin(angles) * self._sines + xp.cos(angles) * self._cosines  # (N, J, 4, 4)
        for j in range(1, self.size):
            frames[:, j] = frames[:, j - 1] @ frames[:, j]
        end = frames[:, -1] @ self._end
        position, rotation = end[:, :3, 3], end[:, :3, :3]
        axes = (frames[:, :, :3, :3] @ self._axes)[..., 0]  # (N, J, 3)
        levers = position[:, None] - frames[:, :, :3, 3]
        linear = (axes[:, :, None] @ (levers @ self._crosses).reshape(*axes.shape, 3))[:, :, 0]
        return position, rotation, xp.concatenate((linear, axes), -1).swapaxes(1, 2)

    def solve(self, jacobian: Array, error: Array, damping: float) -> Array:
        """Return the (N, J) joint step that minimises |J dq - e|^2 + damping^2 |dq|^2; e is (N, 6)."""
        transposed = jacobian.swapaxes(1, 2)
        return (transposed @ _solve(jacobian @ transposed + damping**2 * self._eye, error[..., None]))[..., 0]


def _solve(matrix: Array, right: Array) -> Array:
    """Solve `matrix` x = `right` for symmetric positive definite (N, 6, 6) and (N, 6, 1)."""
    if isinstance(matrix, np.ndarray):
        return np.linalg.solve(matrix, right)
    # cholesky_ex, because what checks waits for the device.
    return torch.cholesky_solve(right, torch.linalg.cholesky_ex(matrix)[0])


def _frame(position: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """Return the 4x4 matrix of a pose."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.asarray(quat, np.float64))
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rotation.reshape(3, 3), position
    return frame


def _cross_matrix(axis: np.ndarray) -> np.ndarray:
    """Return the cross-product matrix of a unit axis, in 4x4."""
    x, y, z = axis
    cross = np.zeros((4, 4))
    cross[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    return cross
