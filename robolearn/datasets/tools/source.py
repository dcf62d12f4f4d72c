"""A dataset to convert, whatever it is stored in, and the mapping of its actions to [-1, 1] and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from robolearn.datasets.format.schema import Header
from robolearn.specs import ActionSpec, Episode


@dataclass
class Source:
    """Episodes and what holds for all of them, as a reader of one layout delivers them to a writer of another."""

    header: Header
    episodes: Iterator[Episode]
    """In order; consumed once."""
    count: int
    models: Mapping[str, bytes] = field(default_factory=dict)
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Indices of episodes by mask name."""
    lost: list[str] = field(default_factory=list)
    """Facts that the source does not state, or that we cannot hold; complete once the episodes are consumed."""


def action_limits(low: np.ndarray, high: np.ndarray) -> ActionSpec:
    """Return physical limits from the smallest and largest (A,) action recorded; a dimension that never moves gets
    room around it."""
    still = high - low < 1e-6
    return ActionSpec(
        low=tuple(np.where(still, low - 0.5, low).astype(float).tolist()),
        high=tuple(np.where(still, high + 0.5, high).astype(float).tolist()),
    )


def to_unit(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Map (T, A) physical actions to float32 in [-1, 1]; in float64, so that the way back gives the same numbers."""
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    return np.clip((2.0 * actions.astype(np.float64) - (low + high)) / (high - low), -1.0, 1.0).astype(np.float32)


def to_physical(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Map (T, A) actions in [-1, 1] to float64 physical ones."""
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    return 0.5 * (low + high) + actions.astype(np.float64) * (0.5 * (high - low))
