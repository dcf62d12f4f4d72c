"""A 3Dconnexion SpaceMouse, by pyspacemouse (HID)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import time
from typing import Any, ClassVar

from robolearn.configuration.teleop import PUCK_AXES, PUCK_BUTTONS, Profile
from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices.signals import Presses, SignalDevice, Signals

_PACKAGE = "pyspacemouse (pip install 'robolearn[teleop]')"
_LIBRARY = (
    "the HID library (Debian: apt-get install libhidapi-hidraw0; macOS: brew install hidapi), and on Linux the right "
    "to read the device (docs/devices.md has the udev rule)"
)
_MOST_REPORTS = 64
"""Reports taken in one read: more than a device sends between two control steps, so that what is read is the newest."""


class SpaceMouse(SignalDevice):
    """Six axes: x away from the operator, y to the left, z up (ROS REP 103), and turns about them."""

    summary: ClassVar = "a SpaceMouse of this machine, six axes at once"
    needs: ClassVar = "a SpaceMouse, pyspacemouse and the HID library"

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self._mouse: Any = None
        self._unplugged: tuple[type[Exception], ...] = ()
        self._presses = Presses()

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        if importlib.util.find_spec("pyspacemouse") is None:
            return _PACKAGE
        import pyspacemouse

        try:
            return None if pyspacemouse.get_connected_devices() else "a SpaceMouse, plugged in"
        except RuntimeError:
            return _LIBRARY

    def connect(self) -> None:
        """Open the first SpaceMouse. Raises DeviceError naming what is missing."""
        if missing := self.missing():
            raise DeviceError(f"the SpaceMouse needs {missing}")
        import easyhid
        import pyspacemouse

        self._unplugged = (easyhid.HIDException,)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it greets
                self._mouse = pyspacemouse.open(axis_convention=pyspacemouse.AxisConvention.ROS)
        except (RuntimeError, ValueError) as error:
            raise DeviceError(f"the SpaceMouse cannot be opened ({error}); it needs {_LIBRARY}") from None
        self._presses = Presses()

    def close(self) -> None:
        if self._mouse is not None:
            self._mouse.close()
            self._mouse = None

    def signals(self) -> Signals:
        if self._mouse is None:
            raise DeviceLost("the SpaceMouse is closed; connect again")
        try:
            for _ in range(_MOST_REPORTS):
                before = self._mouse.state.t
                self._presses.update(self._held())
                if self._mouse.read().t == before:
                    break
            self._presses.update(self._held())
        except self._unplugged as error:
            raise DeviceLost(f"the SpaceMouse was unplugged ({error}); plug it in and connect again") from error
        state = self._mouse.state
        moved = {axis: min(max(getattr(state, axis), -1.0), 1.0) for axis in PUCK_AXES}
        return Signals(values=moved | self._held(), pressed=self._presses.take(), sampled_at=time.monotonic())

    def _held(self) -> dict[str, float]:
        return {name: 1.0 for name, held in zip(PUCK_BUTTONS, self._mouse.state.buttons) if held}
