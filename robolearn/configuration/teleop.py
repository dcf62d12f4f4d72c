"""Configuration of teleoperation: device profiles, action maps and `robolearn teleop`; free of torch.

A profile says which input of a device does what. Inputs have the same names on every device that has them: keys are
called as browsers call them (W3C `KeyboardEvent.code`: the key's place, whatever is printed on it), gamepads have the
layout of the W3C's standard gamepad.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from robolearn.errors import ConfigError

BUTTONS = (
    *(
        "start",
        "success",
        "failure",
        "discard",
        "rerecord",
        "undo",
        "pause",
        "quit",
        "takeover",
        "release",
        "rewind",
        "mark",
    ),
)
"""What a session can be told by a button."""
AXES = ("x", "y", "z", "roll", "pitch", "yaw")
"""The six of a twist, in order: along and about x, y and z."""

KEYS = (
    *(f"Key{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    *(f"Digit{digit}" for digit in "1234567890"),
    *("Enter", "Escape", "Backspace", "Tab", "Space", "Minus", "Equal", "BracketLeft", "BracketRight", "Backslash"),
    *("Semicolon", "Quote", "Backquote", "Comma", "Period", "Slash", "CapsLock"),
    *(f"F{number}" for number in range(1, 13)),
    *("Insert", "Home", "PageUp", "Delete", "End", "PageDown", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"),
    *("NumpadDivide", "NumpadMultiply", "NumpadSubtract", "NumpadAdd", "NumpadEnter", "NumpadDecimal"),
    *(f"Numpad{digit}" for digit in "1234567890"),
    *("ControlLeft", "ShiftLeft", "AltLeft", "ControlRight", "ShiftRight", "AltRight"),
)
PAD_AXES = ("left_x", "left_y", "right_x", "right_y", "left_trigger", "right_trigger")
"""Sticks are 1 to the right and at the bottom; triggers run from 0 to 1."""
PAD_BUTTONS = (
    *("a", "b", "x", "y", "left_shoulder", "right_shoulder", "back", "start"),
    *("left_stick", "right_stick", "dpad_up", "dpad_down", "dpad_left", "dpad_right", "guide"),
)
PUCK_AXES = AXES
PUCK_BUTTONS = tuple(f"button_{number}" for number in range(1, 33))
TOUCH_AXES = ("touch_left_x", "touch_left_y", "touch_right_x", "touch_right_y")
MOUSE_AXES = ("mouse_x", "mouse_y", "wheel")
MOUSE_BUTTONS = ("mouse_left", "mouse_middle", "mouse_right")

INPUTS: dict[str, tuple[str, ...]] = {
    "keyboard": KEYS,
    "gamepad": (*PAD_AXES, *PAD_BUTTONS),
    "spacemouse": (*PUCK_AXES, *PUCK_BUTTONS),
    "browser": (*KEYS, *PAD_AXES, *PAD_BUTTONS, *TOUCH_AXES, *MOUSE_AXES, *MOUSE_BUTTONS),
    "network": AXES,
}
"""What a profile of each of our own devices may name."""
ACTING = ("expert", "policy", "replay")
"""Our own devices that act by themselves."""


@dataclass(frozen=True, kw_only=True)
class GripperInputs:
    """The inputs that move the gripper."""

    open: tuple[str, ...] = ()
    """Inputs that open it."""
    close: tuple[str, ...] = ()
    """Inputs that close it."""
    toggle: tuple[str, ...] = ()
    """Inputs that close an open gripper and open a closed one."""
    squeeze: str | None = None
    """An input whose travel is the gripper's: a trigger, or a key that closes it while held."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.open, *self.close, *self.toggle, *((self.squeeze,) if self.squeeze else ()))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The meaning of a device's inputs."""

    device: str
    """The device it is for."""
    frame: Literal["world", "camera"] = "world"
    """What the motion is in: the environment's world, or the picture looked at (x into it, y left, z up)."""
    axes: dict[str, str] = field(default_factory=dict)
    """Motion in every mode: an input and the signed axis that it moves along or about, as in `KeyW: +x`."""
    modes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Motion in one mode only, by the mode's name; the first mode is the one at the start."""
    mode_inputs: tuple[str, ...] = ()
    """Inputs that go on to the next mode."""
    gripper: GripperInputs = field(default_factory=GripperInputs)
    """What moves the gripper."""
    buttons: dict[str, str] = field(default_factory=dict)
    """What the session is told: an input and one of start, success, failure, discard, rerecord, undo, pause, quit,
    takeover, release, mark."""
    deadman: tuple[str, ...] = ()
    """Inputs of which one must be held for the robot to move; none: it always may."""
    fine: tuple[str, ...] = ()
    """Inputs that make the motion slow while held."""
    fine_scale: float = 0.3
    """How slow, as a share of the usual speed."""
    dead_zone: float = 0.0
    """Share of a stick's travel around its middle that counts as still, in [0, 1)."""
    curve: float = 1.0
    """Exponent of the travel beyond the dead zone: 1 is straight, 2 is finer around the middle."""
    scale: dict[str, float] = field(default_factory=dict)
    """Share of full speed for an axis, in (0, 1]; 1 where left out."""
    locks: tuple[str, ...] = ()
    """Axes that never move."""

    def __post_init__(self) -> None:
        for place, name in self._signed_axes():
            _check(name.lstrip("+-"), AXES, f"axis in {place}")
            if name[:1] not in ("+", "-") or len(name.lstrip("+-")) != len(name) - 1:
                raise ConfigError(f"{place} must be a sign and an axis, as +x or -yaw; received {name!r}")
        for place, names in (("scale", self.scale), ("locks", self.locks)):
            for name in names:
                _check(name, AXES, f"axis in {place}")
        for name, button in self.buttons.items():
            _check(button, BUTTONS, f"session button in buttons.{name}")
        self._check_numbers()
        if self.mode_inputs and len(self.modes) < 2:
            raise ConfigError(f"mode_inputs need at least two modes to go between, received {list(self.modes)}")
        self._check_inputs_used_once()
        if self.device in INPUTS:
            self.check_inputs(INPUTS[self.device])

    def check_inputs(self, known: Collection[str]) -> None:
        """Raise ConfigError on an input that the device does not have, with the list of those that it has."""
        for place, name in self._uses():
            _check(name, known, f"input of the {self.device} in {place}")

    def motion(self, mode: str | None) -> dict[str, str]:
        """Return the signed axis of each input that moves the robot in `mode`."""
        return self.axes | (self.modes[mode] if mode is not None else {})

    def _signed_axes(self) -> Iterable[tuple[str, str]]:
        yield from ((f"axes.{name}", axis) for name, axis in self.axes.items())
        for mode, motion in self.modes.items():
            yield from ((f"modes.{mode}.{name}", axis) for name, axis in motion.items())

    def _uses(self) -> Iterable[tuple[str, str]]:
        """Yield where each input is named: (place, input)."""
        yield from (("axes", name) for name in self.axes)
        for mode, motion in self.modes.items():
            yield from ((f"modes.{mode}", name) for name in motion)
        yield from (("gripper", name) for name in self.gripper.inputs)
        yield from (("buttons", name) for name in self.buttons)
        for place in ("mode_inputs", "deadman", "fine"):
            yield from ((place, name) for name in getattr(self, place))

    def _check_inputs_used_once(self) -> None:
        """An input that does two things at once is a slip; only different modes may use the same one."""
        seen: dict[str, str] = {}
        for place, name in self._uses():
            before = seen.get(name)
            if before is not None and not (before.startswith("modes.") and place.startswith("modes.")):
                raise ConfigError(f"{name} is used in {before} and again in {place}; an input can do one thing only")
            seen[name] = place

    def _check_numbers(self) -> None:
        if not 0.0 <= self.dead_zone < 1.0:
            raise ConfigError(f"dead_zone must lie in [0, 1), received {self.dead_zone}")
        if not 0.1 <= self.curve <= 10.0:
            raise ConfigError(f"curve must lie in [0.1, 10], received {self.curve}")
        shares = {"fine_scale": self.fine_scale} | {f"scale.{axis}": share for axis, share in self.scale.items()}
        for place, share in shares.items():
            if not 0.0 < share <= 1.0:
                raise ConfigError(f"{place} must lie in (0, 1], received {share}")


@dataclass(frozen=True, kw_only=True)
class ActionMap:
    """A table of the axes of a command that drive the dimensions of an environment's action."""

    tasks: tuple[str, ...] = ("*",)
    """Tasks it is for, without `gym:`; * stands for anything, as in Meta-World/*."""
    actions: dict[str, str] = field(default_factory=dict)
    """An action's name and a signed axis (+x, -yaw) or +gripper, -gripper; 0 keeps it at zero."""
    scale: float = 1.0
    """Share of the action's limit that a full command asks for, in (0, 1]; the gripper has its full travel."""

    def __post_init__(self) -> None:
        if not self.actions:
            raise ConfigError("actions must name at least one action, received none")
        for name, drive in self.actions.items():
            if drive == "0":
                continue
            if drive[:1] not in ("+", "-"):
                raise ConfigError(f"actions.{name} must be a sign and an axis, as +x, or 0; received {drive!r}")
            _check(drive[1:], (*AXES, "gripper"), f"axis in actions.{name}")
        if not (math.isfinite(self.scale) and 0.0 < self.scale <= 1.0):
            raise ConfigError(f"scale must lie in (0, 1], received {self.scale}")


@dataclass(frozen=True, kw_only=True)
class DeviceTestConfig:
    """Show a device's live signals."""

    device: str = "keyboard"
    """Device to test; `robolearn teleop devices` lists them."""
    profile: str | None = None
    """Profile, a file or the name of one in teleop/; none takes the one named like the device."""
    seconds: float | None = None
    """How long; none goes on until Ctrl-C."""
    host: str = "127.0.0.1"
    """network: address to listen on."""
    port: int = 8765
    """network: port to listen on."""
    token: str = ""
    """network: what a client must have in its link."""
    index: int = 0
    """gamepad: number of the gamepad."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0.0:
            raise ConfigError(f"seconds must be positive, received {self.seconds}")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in [0, 65536), received {self.port}")
        if self.index < 0:
            raise ConfigError(f"index must be at least 0, received {self.index}")


@dataclass(frozen=True, kw_only=True)
class DevicesConfig:
    """List the devices."""


def _check(name: str, known: Collection[str], what: str) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? Known" if close else "known"
    raise ConfigError(f"unknown {what}: {name!r}; {hint}: {', '.join(known)}")
