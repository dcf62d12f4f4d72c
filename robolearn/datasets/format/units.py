"""Actions from one set of physical limits to another, without clipping: what lies outside stays so, to be named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.specs import ActionSpec

ROUNDING = 1e-6
"""Actions may lie outside of [-1, 1] by so much: float32 and text on their way."""


@dataclass(frozen=True)
class Rescaling:
    """The map from actions in [-1, 1] of one spec to actions in [-1, 1] of another."""

    old: ActionSpec
    new: ActionSpec

    @property
    def is_identity(self) -> bool:
        return (self.old.low, self.old.high) == (self.new.low, self.new.high)

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """(T, A) -> (T, A) float32; by less than a rounding outside of [-1, 1] is on its border."""
        if self.is_identity:
            return actions.astype(np.float32, copy=False)
        return to_unit(to_physical(actions, self.old), self.new)


def action_limits(low: np.ndarray, high: np.ndarray, names: tuple[str, ...] = ()) -> ActionSpec:
    """Return physical limits from the smallest and largest (A,) action recorded; a dimension that never moves gets
    room around it."""
    still = high - low < 1e-6 * np.maximum(1.0, np.abs(high))
    return ActionSpec(
        low=tuple(np.where(still, low - 0.5, low).astype(float).tolist()),
        high=tuple(np.where(still, high + 0.5, high).astype(float).tolist()),
        names=names,
    )


def to_unit(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Map (T, A) physical actions to float32, [-1, 1] within the limits; in float64, so that the way back gives the
    same numbers."""
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    unit = (2.0 * actions.astype(np.float64) - (low + high)) / (high - low)
    over = np.abs(unit) - 1.0
    return np.where((over > 0) & (over < ROUNDING), np.sign(unit), unit).astype(np.float32)


def to_physical(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Map (T, A) actions in [-1, 1] to float64 physical ones."""
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    return 0.5 * (low + high) + actions.astype(np.float64) * (0.5 * (high - low))
