"""One rule for pictures, wherever they come from: files of any tool and observation spaces of any environment.

A picture is brought to uint8 of shape (height, width, channels):

| comes as | told by | becomes |
|---|---|---|
| (H, W, C) uint8 | C of 1, 3 or 4, or the smallest and last | as it is |
| (C, H, W) uint8 | C of 1, 3 or 4 first and not last, or the smallest and first | channels moved last |
| (H, W) uint8 | two sides of at least SMALLEST | (H, W, 1) |
| (K, H, W, C) or (K, C, H, W) uint8 | a stack of K frames | (H, W, K C), oldest channels first |
| float, all values within 0 to 1 | the values | 255 x, rounded |
| float, all values whole and within 0 to 255 | the values | rounded |
| one channel of uint16, or of other floats | depth | scaled by the range that the caller gives, else left as it is |

One channel of floats is a picture only with two sides of at least SMALLEST_DEPTH: matrices and height scans are none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robolearn.specs import ArraySpec

Layout = Literal["auto", "hwc", "chw"]
SMALLEST = 8
"""Pixels of a side: smaller arrays of two dimensions are matrices (poses, say), not grey pictures."""
SMALLEST_DEPTH = 32
"""Pixels of a side of a picture of one channel of floats."""
FEW = 32
"""Channels are at most so many."""
USUAL = (1, 3, 4)
"""Channels of one picture: grey, colour, colour with transparency."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """How one frame of a source becomes a picture."""

    spec: ArraySpec
    """Of the picture: uint8 (H, W, C), or a depth picture as it is, (H, W, 1)."""
    convert: Callable[[np.ndarray], np.ndarray]
    """(..., *frame) -> (..., H, W, C); leading dimensions stay."""
    note: str
    """What was done, for people; empty where nothing was."""

    @property
    def is_depth(self) -> bool:
        """Return whether this is a depth picture that no range has made a picture of 8 bits of."""
        return self.spec.dtype != "uint8"


def picture_of(
    shape: tuple[int, ...],
    dtype: np.dtype,
    bounds: tuple[float, float] | None,
    *,
    layout: Layout = "auto",
    depth_range: tuple[float, float] | None = None,
    whole: bool = True,
) -> Picture | None:
    """Return how frames of this shape and dtype become pictures; None where they are none.

    Args:
        bounds: smallest and largest value seen (or allowed); None where it is not known, floats then are no pictures.
        layout: hwc or chw where `auto` would guess wrong.
        depth_range: what depth pictures are scaled by, smallest and largest distance in their own unit.
        whole: whether all values seen are whole numbers.
    """
    axes = _axes(shape, layout)
    if axes is None or min(shape) < 1:
        return None
    order, height, width, channels = axes
    moved = _mover(shape, order, (height, width, channels))
    what = _layout_note(shape, order)
    if dtype == np.uint8:
        return _picture((height, width, channels), moved, what)
    smallest = SMALLEST_DEPTH if channels == 1 and dtype.kind == "f" else SMALLEST
    if dtype.kind not in "fu" or min(height, width) < smallest:
        return None
    if depth_range is not None and channels == 1:
        low, high = depth_range

        def scaled(frames: np.ndarray) -> np.ndarray:
            share = (moved(frames).astype(np.float64) - low) / (high - low)
            return np.rint(255.0 * np.clip(np.nan_to_num(share, posinf=1.0), 0.0, 1.0)).astype(np.uint8)

        return _picture((height, width, 1), scaled, f"depth from {low:g} to {high:g} is scaled to 0 to 255")
    if dtype.kind == "f" and bounds is not None and bounds[0] >= 0.0 and bounds[1] <= 1.0:
        return _picture((height, width, channels), _rounding(moved, 255.0), _joined(what, "0 to 1 is scaled to 255"))
    if dtype.kind == "f" and bounds is not None and bounds[0] >= 0.0 and bounds[1] <= 255.0 and whole:
        return _picture((height, width, channels), _rounding(moved, 1.0), _joined(what, "floats are rounded to 8 bits"))
    if channels != 1:
        return None
    note = _joined(what, "depth, kept as it is")
    return Picture(spec=ArraySpec(shape=(height, width, 1), dtype=dtype.name), convert=moved, note=note)


def is_depth(spec: ArraySpec) -> bool:
    """Return whether an observation is a depth picture, (height, width, 1) of any type but uint8."""
    one = len(spec.shape) == 3 and spec.shape[2] == 1 and spec.dtype != "uint8"
    return one and min(spec.shape[:2]) >= SMALLEST_DEPTH


def _axes(shape: tuple[int, ...], layout: Layout) -> tuple[str, int, int, int] | None:
    """Return the order of a frame's axes (k stack, h, w, c), height, width, channels; None where it is no picture."""
    if len(shape) == 2:
        return None if min(shape) < SMALLEST else ("hw", *shape, 1)
    if len(shape) == 3:
        if _channels_first(shape, layout):
            return "chw", shape[1], shape[2], shape[0]
        return "hwc", *shape
    if len(shape) == 4 and shape[0] <= FEW:
        if _channels_first(shape[1:], layout):
            return "kchw", shape[2], shape[3], shape[0] * shape[1]
        return ("khwc", shape[1], shape[2], shape[0] * shape[3]) if shape[3] <= FEW else None
    return None


def _channels_first(shape: tuple[int, ...], layout: Layout) -> bool:
    first, _, last = shape
    if layout != "auto":
        return layout == "chw"
    if last in USUAL or first in USUAL:
        return last not in USUAL
    return first <= FEW and first < min(shape[1:])


def _mover(shape: tuple[int, ...], order: str, picture: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    n = len(shape)

    def moved(frames: np.ndarray) -> np.ndarray:
        lead = frames.shape[: frames.ndim - n]
        if order == "chw":
            frames = np.moveaxis(frames, -3, -1)
        elif order == "khwc":
            frames = np.moveaxis(frames, -4, -2)  # (..., H, W, K, C)
        elif order == "kchw":
            frames = np.moveaxis(frames, (-4, -3), (-2, -1))  # (..., H, W, K, C)
        return frames.reshape(*lead, *picture)

    return moved


def _rounding(moved: Callable[[np.ndarray], np.ndarray], factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda frames: np.rint(np.clip(factor * moved(frames).astype(np.float64), 0.0, 255.0)).astype(np.uint8)


def _layout_note(shape: tuple[int, ...], order: str) -> str:
    words = {
        "hwc": "",
        "hw": "grey, (H, W)",
        "chw": f"channels first, {shape}, moved last",
        "khwc": f"a stack of {shape[0]} frames, joined along the channels",
        "kchw": f"a stack of {shape[0]} frames, channels first, joined along the channels",
    }
    return words[order]


def _joined(*words: str) -> str:
    return "; ".join(word for word in words if word)


def _picture(shape: tuple[int, int, int], convert: Callable[[np.ndarray], np.ndarray], note: str) -> Picture:
    return Picture(spec=ArraySpec(shape=shape, dtype="uint8"), convert=convert, note=note)
