"""Reading of files: one group of options, the same in every verb that opens a data set. Free of h5py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from robolearn.errors import ConfigError

DATA_LIMITS = "data"
"""Instead of numbers: the range that the data spans."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Answers to what files of other tools do not say, and the part of a file that is wanted."""

    control_hz: float | None = None
    """The control rate in Hz, for files that do not say it."""
    limits: tuple[str, ...] = ()
    """Physical limits of the actions: LOW HIGH for all dimensions, or such a pair for each (`--limits -180 180`), by
    which they are scaled to [-1, 1]; `data` takes the range in the data."""
    success: bool | None = None
    """Whether episodes that do not say so count as successful."""
    rename: dict[str, str] = field(default_factory=dict)
    """Other names for observation keys: `--rename '{robot0_eef_pos: eef_pos}'`."""
    drop: tuple[str, ...] = ()
    """Observation keys to leave out, by their names in the file."""
    exclude: tuple[str, ...] = ()
    """Episodes to leave out: `demo_3`, or `FILE:demo_3` where there are several files; `@LIST` reads names from a text
    file, one a line."""
    actions: tuple[str, ...] = ()
    """Arrays that together are the action, in order: `--actions action base_action`; none takes the layout's own."""
    picture_layout: Literal["auto", "hwc", "chw"] = "auto"
    """Where the channels of pictures are, where their shape does not tell."""
    depth_range: tuple[float, ...] = ()
    """Smallest and largest distance, in the file's unit: depth is scaled by them to pictures of 8 bits."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(name for word in self.exclude for name in _listed(word)))
        if self.control_hz is not None and not (isfinite(self.control_hz) and self.control_hz > 0):
            raise ConfigError(f"control_hz must be positive and finite, received {self.control_hz}")
        if self.limits and self.limits != (DATA_LIMITS,):
            numbers = _numbers(self.limits)
            if len(numbers) % 2 or any(low >= high for low, high in zip(numbers[::2], numbers[1::2])):
                raise ConfigError(
                    f"limits must be pairs LOW HIGH with LOW < HIGH, or the word {DATA_LIMITS}; received "
                    f"{' '.join(self.limits)}"
                )
        if self.depth_range and not (len(self.depth_range) == 2 and self.depth_range[0] < self.depth_range[1]):
            raise ConfigError(f"depth_range must be two numbers, smaller first, received {list(self.depth_range)}")
        twice = [name for name in set(self.rename.values()) if list(self.rename.values()).count(name) > 1]
        if twice:
            raise ConfigError(f"rename gives several keys the name {twice[0]!r}; every key needs one of its own")

    @property
    def reading(self) -> Reading:
        """These options by themselves, of a verb's configuration."""
        return Reading(**{f.name: getattr(self, f.name) for f in fields(Reading)})

    @property
    def changes(self) -> bool:
        """Return whether anything but the choice of episodes differs from what lies in the file."""
        return any(getattr(self, f.name) != getattr(NOTHING, f.name) for f in fields(Reading) if f.name != "exclude")

    def bounds(self, size: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return the lower and upper limits of `size` actions; None where none are given or the data decides."""
        if not self.limits or self.limits == (DATA_LIMITS,):
            return None
        numbers = _numbers(self.limits)
        if len(numbers) == 2:
            return (numbers[0],) * size, (numbers[1],) * size
        if len(numbers) != 2 * size:
            raise ConfigError(f"limits must be one pair LOW HIGH or {size} of them, received {len(numbers) / 2:g}")
        return tuple(numbers[::2]), tuple(numbers[1::2])

    def options(self, **changes: Any) -> tuple[str, ...]:
        """Return words of a command line that ask for this reading, with some of it changed."""
        words: list[str] = []
        values = {f.name: getattr(self, f.name) for f in fields(Reading)} | changes
        for name, value in values.items():
            if value == getattr(NOTHING, name):
                continue
            words.append(f"--{name}")
            if isinstance(value, Mapping):
                words.append("{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}")
            else:
                words += [_word(v) for v in value] if isinstance(value, tuple) else [_word(value)]
        return tuple(words)


NOTHING = Reading()
"""Files as they are."""


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _listed(word: str) -> list[str]:
    """Return the episodes that a word names: itself, or the lines of the file after an @."""
    if not word.startswith("@"):
        return [word]
    try:
        lines = Path(word[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"exclude: the list {word[1:]} cannot be read: {error}") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _numbers(limits: tuple[str, ...]) -> list[float]:
    """Return the numbers in words like `-1`, `1` and `-1:1`."""
    try:
        numbers = [float(part) for word in limits for part in word.split(":")]
    except ValueError:
        numbers = []
    if not numbers or not all(isfinite(number) for number in numbers):
        raise ConfigError(f"limits must be finite numbers, LOW HIGH, received {' '.join(limits)!r}")
    return numbers
