"""Rotations as the tasks use them: quaternions (w first, MuJoCo's order), matrices, and yaw about the vertical."""

from __future__ import annotations

import math

import torch


def quat_to_matrix(quat: torch.Tensor) -> torch.Tensor:
    """Map (..., 4) unit quaternions -> (..., 3, 3)."""
    w, x, y, z = quat.unbind(-1)
    entries = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def yaw_to_quat(yaw: torch.Tensor) -> torch.Tensor:
    """Map (...) radians about the vertical -> (..., 4)."""
    zero = torch.zeros_like(yaw)
    return torch.stack((torch.cos(yaw / 2), zero, zero, torch.sin(yaw / 2)), -1)


def quat_yaw(quat: torch.Tensor) -> torch.Tensor:
    """Map (..., 4) -> (...) heading of the body's x axis in the horizontal plane, in radians."""
    w, x, y, z = quat.unbind(-1)
    return torch.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))


def wrap(angle: torch.Tensor, period: float = 2 * math.pi) -> torch.Tensor:
    """Bring angles into [-period/2, period/2)."""
    return torch.remainder(angle + period / 2, period) - period / 2


def rotation_error(target: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
    """Map (..., 3, 3) twice -> (..., 3): the rotation vector that turns `current` into `target`, exact near zero."""
    delta = target @ current.transpose(-1, -2)
    skew = delta - delta.transpose(-1, -2)
    return 0.5 * torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), -1)
