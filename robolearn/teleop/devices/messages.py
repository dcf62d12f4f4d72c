"""Checking what comes over a line: every fault has a short name of which there are few, so that they can be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robolearn.configuration.teleop import BUTTONS

TOLERANCE = 0.5
"""Sticks may report a little more than full travel, which is cut; more than this is no stick."""
MANY = 64
"""Longest list of a message."""


class Malformed(ValueError):
    """A message that means nothing; its text names the kind of fault."""


def button_names(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the session buttons that a message tells. Raises Malformed on one that there is not."""
    told = names(message.get("buttons", ()), "buttons")
    if any(name not in BUTTONS for name in told):
        raise Malformed("unknown session button")
    return told


def names(part: Any, what: str) -> tuple[str, ...]:
    """Return a list of names. Raises Malformed."""
    if not isinstance(part, (list, tuple)) or not all(isinstance(name, str) for name in part):
        raise Malformed(f"{what} is not a list of names")
    if len(part) > MANY:
        raise Malformed("too long")
    return tuple(part)


def numbers(part: Any, size: int | None = None) -> Sequence[float]:
    """Return a list of numbers in [-1, 1], `size` of them where it is given. Raises Malformed."""
    if not isinstance(part, (list, tuple)) or (size is not None and len(part) != size):
        raise Malformed("not a list of numbers")
    if len(part) > MANY:
        raise Malformed("too long")
    return [number(value) for value in part]


def number(value: Any) -> float:
    """Return a number in [-1, 1]. Raises Malformed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Malformed("not a number")
    if not abs(value) <= 1.0 + TOLERANCE:  # also NaN
        raise Malformed("not finite or out of range")
    return min(max(float(value), -1.0), 1.0)
