"""Affine scaling by data statistics, stored as buffers so that a saved policy is self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Method = Literal["mean_std", "min_max", "quantile", "none"]


class Normaliser(nn.Module):
    """x -> (x - offset) / scale per dimension; dimensions that do not vary keep scale 1."""

    offset: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.is_identity = True

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
            offset, scale = statistics["mean"], statistics["std"]
        else:
            low, high = ("min", "max") if method == "min_max" else ("q01", "q99")
            offset = (statistics[low] + statistics[high]) / 2
            scale = (statistics[high] - statistics[low]) / 2
        # A dimension that never varies in the data would be blown up by a tiny scale when it does vary on a robot.
        scale = np.where(np.asarray(scale) < 1e-4, 1.0, scale)
        normaliser.offset.copy_(torch.as_tensor(np.asarray(offset, np.float32)))
        normaliser.scale.copy_(torch.as_tensor(scale.astype(np.float32)))
        normaliser.is_identity = False
        return normaliser

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self.is_identity = bool((self.offset == 0).all() and (self.scale == 1).all())

    def normalise(self, x: Tensor) -> Tensor:
        """Scale (..., size) by the statistics; the shape stays."""
        return x if self.is_identity else (x - self.offset) / self.scale

    def denormalise(self, x: Tensor) -> Tensor:
        """Undo `normalise`: (..., size) -> (..., size)."""
        return x if self.is_identity else x * self.scale + self.offset
