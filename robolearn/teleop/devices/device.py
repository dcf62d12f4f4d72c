"""What every device gives, whatever it is: one `Command` for each read. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from robolearn.configuration.teleop import BUTTONS
from robolearn.errors import DeviceError, DeviceLost

if TYPE_CHECKING:
    import torch

__all__ = [
    "BUTTONS",
    "Command",
    "Device",
    "DeviceError",
    "DeviceLost",
    "EpisodicDevice",
    "GrippingDevice",
    "SeeingDevice",
    "hold",
]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the operator wants now."""

    twist: np.ndarray
    """(6,) float64: vx vy vz wx wy wz in [-1, 1], already mapped, curved, scaled and locked as the profile says."""
    gripper: float | None
    """-1 open .. 1 closed; None leaves it as it is."""
    buttons: tuple[str, ...]
    """Session buttons pressed since the last read, in order; each is one of BUTTONS."""
    engaged: bool
    """The deadman is held, or the device has none; False: the robot holds still."""
    sampled_at: float
    """time.monotonic() of the newest input that it reflects, seconds."""
    action: np.ndarray | None = None
    """(A,) float32 in [-1, 1], of devices that know actions (expert, policy, replay, network) instead of a twist."""
    frame: Literal["world", "camera"] = "world"
    """What the twist is in. Camera: x into the picture, y to its left, z up in it; the session rotates."""


@runtime_checkable
class Device(Protocol):
    """Something to drive with."""

    def connect(self) -> None:
        """Raise DeviceError naming what to install or plug in where the device cannot be had."""
        ...

    def read(self) -> Command:
        """Return the newest command without ever waiting. Raises DeviceLost where the device has gone."""
        ...

    def close(self) -> None:
        """Let go of the device; closing twice is fine."""
        ...


@runtime_checkable
class EpisodicDevice(Device, Protocol):
    """A device that remembers something about the episode: a mode, or whether the gripper was closed."""

    def reset(self, seed: int) -> None:
        """Begin an episode, whose gripper is open."""
        ...


@runtime_checkable
class GrippingDevice(Device, Protocol):
    """A device that remembers whether the gripper is closed, and must hear of it where a policy moves it."""

    def follow_gripper(self, gripper: float) -> None:
        """Take where the gripper was told to be, -1 open .. 1 closed."""
        ...


@runtime_checkable
class SeeingDevice(EpisodicDevice, Protocol):
    """A device that acts on what is seen: expert, policy, replay."""

    def see(self, obs: Mapping[str, torch.Tensor]) -> Any:
        """Take (1, ...) observations, once for each control step, before `read`."""
        ...


def hold(sampled_at: float, buttons: tuple[str, ...] = (), frame: Literal["world", "camera"] = "world") -> Command:
    """Return the command under which the robot holds still."""
    return Command(twist=np.zeros(6), gripper=None, buttons=buttons, engaged=False, sampled_at=sampled_at, frame=frame)
