"""What all devices with sticks and keys share: their signals, and the profile that makes commands of them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from robolearn.configuration.teleop import AXES, Profile
from robolearn.teleop.devices.device import Command, hold

STALE_S = 0.2
"""Silence after which a remote operator counts as gone, and the robot holds still."""
HELD = 0.5
"""Travel from which an input counts as held."""
_WAITING = 64
"""Presses that wait to be read; who reads so late is not told of older ones."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The raw state of a device."""

    values: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Travel of each input that is not at rest: keys and buttons 1, sticks -1 .. 1, triggers 0 .. 1."""
    pressed: tuple[str, ...] = ()
    """Inputs that were pressed since the last read, in order."""
    buttons: tuple[str, ...] = ()
    """Session buttons told directly, by a page or a client."""
    gripper: float | None = None
    """-1 open .. 1 closed, told directly."""
    action: np.ndarray | None = None
    """(A,) told directly."""
    live: bool = True
    """False where nobody is there: the focus is elsewhere, or the line is silent."""
    sampled_at: float = field(default_factory=time.monotonic)


class Presses:
    """Remembers which inputs are held, and in which order they were pressed since they were last taken."""

    def __init__(self) -> None:
        self._held: frozenset[str] = frozenset()
        self._waiting: deque[str] = deque(maxlen=_WAITING)

    def update(self, values: Mapping[str, float]) -> None:
        """Take note of the inputs' travel."""
        held = frozenset(name for name, value in values.items() if value > HELD)
        self._waiting.extend(name for name in values if name in held and name not in self._held)
        self._held = held

    def take(self) -> tuple[str, ...]:
        """Return what was pressed since the last call."""
        pressed = tuple(self._waiting)
        self._waiting.clear()
        return pressed


class Interpreter:
    """Makes commands of signals as a profile says; remembers the mode and whether the gripper was closed."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._modes = tuple(profile.modes) or (None,)
        self._scale = np.array([0.0 if a in profile.locks else profile.scale.get(a, 1.0) for a in AXES])
        self.reset()

    @property
    def mode(self) -> str | None:
        """The mode's name; None where the profile has none."""
        return self._modes[self._mode]

    def reset(self) -> None:
        """Begin an episode: the first mode, and an open gripper that the next toggle closes."""
        self._mode = 0
        self._closed = False

    def follow_gripper(self, gripper: float) -> None:
        """Take where the gripper was told to be; the next toggle turns that over."""
        self._closed = gripper > 0.0

    def command(self, signals: Signals) -> Command:
        """Return what the signals mean."""
        profile = self.profile
        changes = sum(name in profile.mode_inputs for name in signals.pressed)
        self._mode = (self._mode + changes) % len(self._modes)
        told = tuple(profile.buttons[name] for name in signals.pressed if name in profile.buttons)
        buttons = signals.buttons + told
        if not (signals.live and self._may_move(signals.values)):
            return hold(signals.sampled_at, buttons, profile.frame)
        return Command(
            twist=self._twist(signals.values),
            gripper=self._gripper(signals),
            buttons=buttons,
            engaged=True,
            sampled_at=signals.sampled_at,
            action=signals.action,
            frame=profile.frame,
        )

    def _may_move(self, values: Mapping[str, float]) -> bool:
        deadman = self.profile.deadman
        return not deadman or any(values.get(name, 0.0) > HELD for name in deadman)

    def _twist(self, values: Mapping[str, float]) -> np.ndarray:
        twist = np.zeros(len(AXES))
        for name, signed in self.profile.motion(self.mode).items():
            value = self._shaped(values.get(name, 0.0))
            twist[AXES.index(signed[1:])] += -value if signed[0] == "-" else value
        fine = any(values.get(name, 0.0) > HELD for name in self.profile.fine)
        return np.clip(twist, -1.0, 1.0) * self._scale * (self.profile.fine_scale if fine else 1.0)

    def _shaped(self, value: float) -> float:
        """Travel beyond the dead zone, from 0 at its edge to 1 at the end, bent by the curve."""
        dead, size = self.profile.dead_zone, min(abs(value), 1.0)
        return math.copysign(max(0.0, (size - dead) / (1.0 - dead)) ** self.profile.curve, value)

    def _gripper(self, signals: Signals) -> float | None:
        inputs, gripper = self.profile.gripper, signals.gripper
        if inputs.squeeze is not None:
            gripper = 2.0 * min(max(signals.values.get(inputs.squeeze, 0.0), 0.0), 1.0) - 1.0
        for name in signals.pressed:
            if name in inputs.toggle:
                gripper = -1.0 if self._closed else 1.0
            elif name in inputs.open or name in inputs.close:
                gripper = 1.0 if name in inputs.close else -1.0
            else:
                continue
            self._closed = gripper > 0.0
        if gripper is not None:
            self._closed = gripper > 0.0
        return gripper


class SignalDevice:
    """A device that is read as signals; one for each kind says how (`signals`)."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._interpreter = Interpreter(profile)

    def signals(self) -> Signals:
        """Return the state now, without waiting. Raises DeviceLost where the device has gone."""
        raise NotImplementedError

    def read(self) -> Command:
        """Return the newest command without waiting. Raises DeviceLost where the device has gone."""
        return self.interpret(self.signals())

    def interpret(self, signals: Signals) -> Command:
        """Return what signals mean by the profile; to be called once for each, in order."""
        return self._interpreter.command(signals)

    @property
    def mode(self) -> str | None:
        """The profile's mode; None where it has none."""
        return self._interpreter.mode

    def follow_gripper(self, gripper: float) -> None:
        """Take where somebody else has told the gripper to be, -1 open .. 1 closed; the next toggle turns that over."""
        self._interpreter.follow_gripper(gripper)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: back to the first mode, and the next toggle closes the gripper."""
        self._interpreter.reset()
