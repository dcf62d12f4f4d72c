"""The page's inputs. Whoever serves the page feeds its messages in; this is what they may say and what they mean.

A message is a JSON object that holds the whole state (nothing in it adds up over messages, so a lost one costs
nothing but the presses it told), sent at every change and at least every 100 ms:

    {"keys": ["KeyW", "ShiftLeft"],              held now, KeyboardEvent.code
     "focused": true,                            false: the tab is hidden or has lost the focus
     "gamepad": {"axes": [0, 0, 0, 0], "buttons": [0, 1, ...]},   as the Gamepad API's standard mapping has them
     "touch": {"left": [0, 0], "right": [0, 0]}, on-screen sticks, 1 to the right and at the bottom
     "mouse": {"x": 0, "y": 0, "wheel": 0, "buttons": ["mouse_left"]},   travel, as a stick's
     "buttons": ["start"],                       session buttons of the page pressed since the last message
     "gripper": 0.5}                             -1 open .. 1 closed; null or left out: no word about it

Everything may be left out; numbers lie in [-1, 1].
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, ClassVar

from robolearn.configuration.teleop import KEYS, MOUSE_AXES, MOUSE_BUTTONS, Profile
from robolearn.teleop.devices.messages import MANY, Malformed, button_names, names, number, numbers
from robolearn.teleop.devices.signals import STALE_S, Presses, SignalDevice, Signals

GAMEPAD_AXES = ("left_x", "left_y", "right_x", "right_y")
GAMEPAD_BUTTONS = (
    *("a", "b", "x", "y", "left_shoulder", "right_shoulder", "left_trigger", "right_trigger", "back", "start"),
    *("left_stick", "right_stick", "dpad_up", "dpad_down", "dpad_left", "dpad_right", "guide"),
)
"""The W3C's standard gamepad, in its order."""
_FIELDS = frozenset(("keys", "focused", "gamepad", "touch", "mouse", "buttons", "gripper"))
_KEYS = frozenset(KEYS)


class BrowserDevice(SignalDevice):
    """Drives by the messages of a page. `feed` may be called from any thread."""

    summary: ClassVar = "a page in the browser: keys, gamepad, touch and mouse, also from afar"
    needs: ClassVar = "a browser"

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self._lock = threading.Lock()
        self._presses = Presses()
        self._values: dict[str, float] = {}
        self._buttons: deque[str] = deque(maxlen=MANY)
        self._gripper: float | None = None
        self._focused = False
        self._fed_at = -float("inf")
        self._counts: Counter[str] = Counter()

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        return None

    def connect(self) -> None:
        """Nothing: whoever serves the page connects it."""

    def close(self) -> None:
        """Forget the page's last message, so that nobody drives."""
        with self._lock:
            self._fed_at = -float("inf")

    @property
    def counts(self) -> dict[str, int]:
        """Messages taken ("accepted") and turned away, by what was wrong with them."""
        with self._lock:
            return dict(self._counts)

    def feed(self, message: Mapping[str, Any]) -> None:
        """Take a message of the page; a malformed one is counted and changes nothing."""
        try:
            values, told = _values(message), button_names(message)
            gripper = None if message.get("gripper") is None else number(message["gripper"])
        except Malformed as fault:
            with self._lock:
                self._counts[str(fault)] += 1
            return
        with self._lock:
            self._counts["accepted"] += 1
            self._focused = message.get("focused", True)
            self._values = values if self._focused else {}
            self._presses.update(self._values)
            self._buttons.extend(told)
            self._gripper = self._gripper if gripper is None else gripper
            self._fed_at = time.monotonic()

    def signals(self) -> Signals:
        with self._lock:
            gripper, self._gripper = self._gripper, None
            buttons = tuple(self._buttons)
            self._buttons.clear()
            return Signals(
                values=self._values,
                pressed=self._presses.take(),
                buttons=buttons,
                gripper=gripper,
                live=self._focused and time.monotonic() - self._fed_at < STALE_S,
                sampled_at=self._fed_at,
            )


def _values(message: Any) -> dict[str, float]:
    """The travel of each input that is not at rest."""
    if not isinstance(message, Mapping):
        raise Malformed("not an object")
    if not message.keys() <= _FIELDS:
        raise Malformed("unknown field")
    if not isinstance(message.get("focused", True), bool):
        raise Malformed("focused is not true or false")
    keys = names(message.get("keys", ()), "keys")
    values = dict.fromkeys((key for key in keys if key in _KEYS), 1.0)
    values |= _gamepad(message.get("gamepad"))
    values |= _touch(message.get("touch"))
    values |= _mouse(message.get("mouse"))
    return {name: value for name, value in values.items() if value != 0.0}


def _gamepad(part: Any) -> dict[str, float]:
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise Malformed("gamepad is not an object")
    axes, buttons = numbers(part.get("axes", ())), numbers(part.get("buttons", ()))
    # Pads with more than the standard has put their own at the end.
    return dict(zip(GAMEPAD_AXES, axes)) | dict(zip(GAMEPAD_BUTTONS, buttons))


def _touch(part: Any) -> dict[str, float]:
    if part is None:
        return {}
    if not isinstance(part, Mapping) or not part.keys() <= {"left", "right"}:
        raise Malformed("touch is not left and right")
    values: dict[str, float] = {}
    for side, stick in part.items():
        x, y = numbers(stick, size=2)
        values |= {f"touch_{side}_x": x, f"touch_{side}_y": y}
    return values


def _mouse(part: Any) -> dict[str, float]:
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise Malformed("mouse is not an object")
    moved = {name: number(part.get(name.removeprefix("mouse_"), 0.0)) for name in MOUSE_AXES}
    held = names(part.get("buttons", ()), "mouse buttons")
    return moved | dict.fromkeys((name for name in held if name in MOUSE_BUTTONS), 1.0)
