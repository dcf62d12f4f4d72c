"""Affine scaling by data statistics, stored as buffers so that a saved policy is self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Method = Literal["mean_std", "min_max", "quantile", "none"]


TINY = 1e-4
"""Below this a scale is an honest one only where the values are as small themselves: rounding on top of 1 is not."""
HONEST = 0.1
"""Of the largest value: by so much a dimension of tiny scale must vary."""
SMALLEST = 1e-9
"""Smaller variation is arithmetic."""
TINY_REACH = 10.0
"""Dimensions of tiny scale are clipped at so many scales, where they begin to move for real."""
STILL = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
"""Scale that marks a dimension which does not vary, as near to one as can be told from it: one itself is that of a
normaliser which was never fitted, and honest scales of either size are moved by a rounding."""


def still(statistics: Mapping[str, np.ndarray], scale: np.ndarray) -> np.ndarray:
    """Return which (size,) dimensions do not vary in the data."""
    low, high = np.asarray(statistics["min"], np.float64), np.asarray(statistics["max"], np.float64)
    honest = high - low > HONEST * np.maximum(np.abs(low), np.abs(high))
    return (scale < TINY) & ~(honest & (scale > SMALLEST))


def _range(statistics: Mapping[str, np.ndarray], low: str, high: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and half the size of a range, (size,) each."""
    return (statistics[low] + statistics[high]) / 2, (statistics[high] - statistics[low]) / 2


class Normaliser(nn.Module):
    """x -> (x - offset) / scale per dimension; dimensions that do not vary keep their scale (`STILL`)."""

    offset: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.is_identity = True
        self.has_tiny = False

    @property
    def constant(self) -> Tensor:
        """(size,) bool, the dimensions that never moved in the data: where they move at run time, the policy meets what
        it has never seen. All False where nothing was fitted."""
        return self.scale == STILL

    @classmethod
    def fit(cls, statistics: Mapping[str, np.ndarray] | None, size: int, method: Method) -> Normaliser:
        """Return the normaliser that the data's statistics ask for; None leaves everything as it is.

        Args:
            statistics: arrays (size,) `mean`, `std`, `min`, `max`, `q01`, `q99` of the data.
            method: mean_std -> zero mean and unit variance; min_max -> [-1, 1]; quantile -> the 1% and 99% quantiles
                go to -1 and 1 (outliers lie beyond).
        """
        normaliser = cls(size)
        if method == "none" or statistics is None:
            return normaliser
        if method == "mean_std":
            offset, scale = statistics["mean"], np.asarray(statistics["std"])
        else:
            offset, scale = _range(statistics, "min", "max")
            if method == "quantile":  # what moves in less than one row of a hundred has no range but the whole
                middle, inner = _range(statistics, "q01", "q99")
                rare = still(statistics, inner)
                offset, scale = np.where(rare, offset, middle), np.where(rare, scale, inner)
        # A dimension that never varies in the data would be blown up by a tiny scale when it does vary on a robot.
        scale = np.asarray(scale, np.float32)
        honest = np.where((scale == 1.0) | (scale == STILL), np.nextafter(np.float32(STILL), np.float32(2.0)), scale)
        scale = np.where(still(statistics, scale), np.float32(STILL), honest)
        normaliser.offset.copy_(torch.as_tensor(np.asarray(offset, np.float32)))
        normaliser.scale.copy_(torch.as_tensor(scale.astype(np.float32)))
        normaliser.is_identity = False
        normaliser.has_tiny = bool((normaliser.scale < TINY).any())
        return normaliser

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self.is_identity = bool((self.offset == 0).all() and (self.scale == 1).all())
        self.has_tiny = bool((self.scale < TINY).any())

    def normalise(self, x: Tensor) -> Tensor:
        """Scale (..., size) by the statistics; the shape stays."""
        if self.is_identity:
            return x
        x = (x - self.offset) / self.scale
        return torch.where(self.scale < TINY, x.clamp(-TINY_REACH, TINY_REACH), x) if self.has_tiny else x

    def denormalise(self, x: Tensor) -> Tensor:
        """Undo `normalise`: (..., size) -> (..., size)."""
        return x if self.is_identity else x * self.scale + self.offset
