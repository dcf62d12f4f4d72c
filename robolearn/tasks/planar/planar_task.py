"""The common part of the planar tasks: a position-controlled puck whose command is moved by the action."""

from __future__ import annotations

from functools import cached_property

import torch

from robolearn.specs import ActionSpec
from robolearn.tasks.arrays import Array, columns, constant, light, shortened, tensor
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
        measured = self._puck(sensors)
        lead = light(ctrl)[:, :2] + _MAX_STEP_M * light(actions) - measured
        return tensor((measured + shortened(lead, _MAX_LEAD_M)).clip(*self._workspace))

    @cached_property
    def _workspace(self) -> tuple[Array, Array]:
        return constant(LOW, self.device), constant(HIGH, self.device)

    def _puck(self, sensors: Sensors) -> Array:
        """Return the puck's x and y (N, 2)."""
        return columns((sensors.array("pusher_x")[:, 0], sensors.array("pusher_y")[:, 0]))

    def proprioception(self, sensors: Sensors) -> torch.Tensor:
        """Return (N, 6): the puck's position 2, velocity 2, servo force 2 (tens of newtons: the command's lead)."""
        places, units = self._proprioception
        return tensor(sensors.arrays[:, places] * units)

    @cached_property
    def _proprioception(self) -> tuple[Array, Array]:
        """Places and units of the 6 numbers."""
        places = self.places("pusher_x", "pusher_y", "pusher_dx", "pusher_dy", "pusher_fx", "pusher_fy")
        return light(torch.tensor(places, device=self.device)), constant([1.0] * 4 + [0.1] * 2, self.device)
