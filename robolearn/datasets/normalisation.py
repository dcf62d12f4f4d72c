"""Statistics for normalising observations and actions, which a few absurd values do not rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.format.schema import stored_as_frames
from robolearn.errors import DatasetError, option

QUANTILES = {"q01": 0.01, "q99": 0.99}
GLITCH_SPANS, GLITCH_STEPS = 20.0, 2
"""A value is a glitch where it lies so many spans from the others, the span being the range of nearly all of them, and
is back after so many steps: what lasts is how the world is, a cube on its side."""
ABSURD_SPANS = 1000.0
"""So far off, it is one however long it lasts."""
SUSPICIOUS_DEVIATIONS = 8.0
"""Only dimensions with a value so far from the mean are looked at closely: among a normal million there is none."""
APART = 2.0
"""It lies so many times as far away as all others: a tail that leads up to it, as of forces at contacts, is honest."""
FEWEST_ROWS = 20
"""With fewer there is no telling what is usual."""
HEAVY_TAILS = 50.0
"""Where the range of nearly all rows is so much larger than that of the middle half, far values are usual."""
RARE = 0.005
"""Glitches are at most this share of the rows; what is more often so is how the robot is."""


@dataclass(frozen=True, kw_only=True)
class Glitch:
    """One value that lies absurdly far from all others of its dimension."""

    name: str
    episode: str
    step: int
    value: float
    low: float
    """The others lie between this..."""
    high: float
    """...and this."""

    def __str__(self) -> str:
        return (
            f"{self.name} is {self.value:g} at step {self.step} of {self.episode}, the others lie within {self.low:g} "
            f"and {self.high:g}: a glitch, left out of the statistics and of training (leave the episode out: "
            f"{option('exclude', self.episode)})"
        )


def normalisation_statistics(dataset: Dataset, keys: Sequence[str] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Return per key, over all steps: `min`, `max`, `mean`, `std`, `q01`, `q99`, float32 of the key's shape.

    Args:
        keys: observation keys and "actions"; all that are not images where None. Images are scaled by their range and
            have no statistics: asking for one raises DatasetError.
    """
    names = (*dataset.low_dim_keys(), "actions") if keys is None else tuple(keys)
    for key in names:
        if key != "actions" and key in dataset.observation_spec and stored_as_frames(dataset.observation_spec[key]):
            raise DatasetError(f"{key} is an image; images are scaled by their range of values and need no statistics")
    if not len(dataset):
        raise DatasetError("a dataset without episodes has no statistics")
    paths = {key: key if key == "actions" else f"obs/{key}" for key in names}
    columns = dataset.columns(tuple(paths.values()))
    return {key: describe(columns[path], dataset.lengths) for key, path in paths.items()}


def describe(values: np.ndarray, lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Return statistics of (rows, ...) values over those without glitches, in float64 and returned as float32.

    Args:
        lengths: rows of each episode, which lie one after the other.
    """
    values = values.astype(np.float64)
    bad = glitch_mask(values, lengths)
    if bad is not None:
        values = values[~bad.reshape(len(values), -1).any(axis=1)]
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
    }
    found |= {name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def glitch_mask(values: np.ndarray, lengths: Sequence[int]) -> np.ndarray | None:
    """Return which of (rows, ...) values are glitches, of the same shape; None where none is.

    The usual range of a dimension is that of its rows without the few largest and smallest. A glitch lies GLITCH_SPANS
    of these ranges beyond it for GLITCH_STEPS at most, or ABSURD_SPANS, and APART from all others; where nearly all
    rows are equal, a thousand times their size (so that a rare contact force or flag is none).

    Args:
        lengths: rows of each episode, which lie one after the other.
    """
    rows = len(values)
    if rows < FEWEST_ROWS or values.dtype.kind not in "fiu":
        return None
    flat = values.reshape(rows, -1).astype(np.float64, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(flat - flat.mean(axis=0)).max(axis=0)
        suspicious = distance > min(SUSPICIOUS_DEVIATIONS, 0.7 * np.sqrt(rows - 1)) * flat.std(axis=0)
    mask = np.zeros(flat.shape, bool)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    for column in np.flatnonzero(suspicious).tolist():
        mask[:, column] = _glitches_of(flat[:, column], episode)
    return mask.reshape(values.shape) if mask.any() else None


def _glitches_of(column: np.ndarray, episode: np.ndarray) -> np.ndarray:
    low, high = usual_range(column)
    span = high - low
    reach = GLITCH_SPANS * span if span > 0 else 1000.0 * max(1.0, abs(low))
    lower, upper = np.quantile(column, (0.25, 0.75))
    if span > 0 and span > HEAVY_TAILS * (upper - lower):
        return np.zeros(len(column), bool)
    beyond = np.maximum(low - column, column - high)
    far = beyond > reach
    bad = far & (_run_lengths(far, episode) <= GLITCH_STEPS) | (beyond > reach / GLITCH_SPANS * ABSURD_SPANS)
    bad &= beyond > APART * beyond[~bad].max(initial=0.0)
    return bad if bad.sum() <= max(2, RARE * len(column)) else np.zeros(len(column), bool)


def _run_lengths(flags: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Return for each of (rows,) flags how many rows of the same episode around it have the same flag."""
    changes = (flags[1:] != flags[:-1]) | (episode[1:] != episode[:-1])
    run = np.concatenate([[0], np.cumsum(changes)])
    return np.bincount(run)[run]


def usual_range(column: np.ndarray) -> tuple[float, float]:
    """Return the range of (rows,) values without the few largest and smallest."""
    few = max(3, int(0.01 * len(column)))
    ordered = np.partition(column, (few, len(column) - 1 - few))
    return float(ordered[few]), float(ordered[len(column) - 1 - few])


def find_glitches(name: str, values: np.ndarray, lengths: Sequence[int], episodes: Sequence[str]) -> list[Glitch]:
    """Return the glitches of one array of several episodes, one for each step, the farthest first."""
    mask = glitch_mask(values, lengths)
    if mask is None:
        return []
    flat, mask = values.reshape(len(values), -1).astype(np.float64), mask.reshape(len(values), -1)
    starts = np.cumsum([0, *lengths])
    found: list[Glitch] = []
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        column = int(mask[row].argmax())
        low, high = usual_range(flat[:, column])
        episode = int(np.searchsorted(starts, row, side="right")) - 1
        where = f"{name}[{column}]" if flat.shape[1] > 1 else name
        found.append(
            Glitch(
                name=where,
                episode=episodes[episode],
                step=row - int(starts[episode]),
                value=float(flat[row, column]),
                low=low,
                high=high,
            )
        )
    return sorted(found, key=lambda glitch: -max(glitch.low - glitch.value, glitch.value - glitch.high))
