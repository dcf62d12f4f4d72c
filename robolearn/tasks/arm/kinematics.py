"""Forward kinematics, Jacobian and damped least squares of a serial chain, batched in torch.

The constants are read from the MJCF model, and the input is joint angles only, so the CPU and the Warp back end get
the same joint targets for the same action.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import torch


class Chain:
    """The hinge joints from the world to a site, in order."""

    def __init__(self, model: mujoco.MjModel, joints: Sequence[str], site: str, device: torch.device):
        """Raises KeyError where the model has no such joint or site (MuJoCo's own message)."""
        end = model.site(site)
        bodies = [int(end.bodyid[0])]
        while bodies[0] != 0:
            bodies.insert(0, int(model.body_parentid[bodies[0]]))
        links = []
        for body in bodies[1:]:
            rotation, joint = _matrix(model.body_quat[body]), int(model.body_jntadr[body])
            moves = model.body_jntnum[body] == 1 and model.joint(joint).name in joints
            axis = model.jnt_axis[joint] if moves else None
            links.append((model.body_pos[body], rotation, axis))
        links.append((end.pos, _matrix(end.quat), None))
        self.size = sum(axis is not None for *_, axis in links)
        assert self.size == len(joints), "every joint of the chain must move a body between the world and the site"

        def tensor(value: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(value, dtype=torch.float32, device=device)

        self._links = [
            (tensor(position), tensor(rotation), None if axis is None else (tensor(axis), *_generators(axis, tensor)))
            for position, rotation, axis in links
        ]
        self._eye = torch.eye(6, device=device)

    def forward(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map (N, J) angles to position (N, 3), rotation (N, 3, 3), Jacobian (N, 6, J; linear first), world frame."""
        position = q.new_zeros(len(q), 3)
        rotation = torch.eye(3, device=q.device).expand(len(q), 3, 3)
        sines, versines = torch.sin(q)[..., None, None], (1 - torch.cos(q))[..., None, None]
        eye, anchors, axes = torch.eye(3, device=q.device), [], []
        for offset, turn, joint in self._links:
            position = position + rotation @ offset
            rotation = rotation @ turn
            if joint is not None:
                axis, generator, square = joint
                j = len(axes)
                anchors.append(position)
                axes.append(rotation @ axis)
                rotation = rotation @ (eye + sines[:, j] * generator + versines[:, j] * square)
        axis_w, anchor_w = torch.stack(axes, -1), torch.stack(anchors, -1)
        linear = torch.linalg.cross(axis_w, position[..., None] - anchor_w, dim=1)
        return position, rotation, torch.cat((linear, axis_w), dim=1)

    def solve(self, jacobian: torch.Tensor, error: torch.Tensor, damping: float) -> torch.Tensor:
        """Return the (N, J) joint step that minimises |J dq - e|^2 + damping^2 |dq|^2; the error e is (N, 6)."""
        normal = jacobian @ jacobian.transpose(1, 2) + damping**2 * self._eye
        # cholesky_ex, because the checking form waits for the device.
        factor, _ = torch.linalg.cholesky_ex(normal)
        return (jacobian.transpose(1, 2) @ torch.cholesky_solve(error[..., None], factor)).squeeze(-1)


def _matrix(quat: np.ndarray) -> np.ndarray:
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, np.asarray(quat, np.float64))
    return out.reshape(3, 3)


def _generators(axis: np.ndarray, tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-product matrix of a unit axis and its square: Rodrigues' R = I + sin K + (1 - cos) K^2."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return tensor(cross), tensor(cross @ cross)
