"""The common part of the planar tasks: a position-controlled puck whose command is moved by the action."""

from __future__ import annotations

import torch

from robolearn.specs import ActionSpec
from robolearn.tasks.task import Sensors, Task

_MAX_STEP_M = 0.02
_MAX_LEAD_M = 0.045
LOW, HIGH = (0.04, -0.36), (0.66, 0.36)
"""Corners of the puck's workspace, metres."""


class PlanarTask(Task):
    """Actions move the commanded position of the puck, which may lead the measured one by 45 mm at most.

    The puck's joints are its x and y, so joint deltas are the same actions.
    """

    cameras = ("top", "front")
    warp_contacts = 24
    warp_constraints = 96

    @property
    def action_spec(self) -> ActionSpec:
        return ActionSpec(low=(-_MAX_STEP_M,) * 2, high=(_MAX_STEP_M,) * 2, names=("delta_x", "delta_y"))

    def control(self, sensors: Sensors, ctrl: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        measured = sensors.all(("pusher_x", "pusher_y"))
        lead = ctrl[:, :2] + _MAX_STEP_M * actions - measured
        length = torch.linalg.vector_norm(lead, dim=-1, keepdim=True)
        wanted = measured + lead * torch.clamp(_MAX_LEAD_M / (length + 1e-9), max=1.0)
        low, high = (torch.tensor(corner, device=wanted.device) for corner in (LOW, HIGH))
        return torch.minimum(torch.maximum(wanted, low), high)

    def proprioception(self, sensors: Sensors) -> torch.Tensor:
        """Return (N, 6): the puck's position 2, velocity 2, servo force 2 (tens of newtons: the command's lead)."""
        names = ("pusher_x", "pusher_y", "pusher_dx", "pusher_dy")
        return torch.cat((sensors.all(names), 0.1 * sensors.all(("pusher_fx", "pusher_fy"))), dim=-1)
