"""The expert's tube: the states that demonstrations went through, and how far a state is from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from robolearn.datasets.dataset import Dataset
from robolearn.errors import DatasetError

QUANTILE = 0.99
"""Share of the demonstrated states that lie within the tube of the other demonstrations."""
LEAST_STD = 1e-3


@dataclass(frozen=True)
class Tube:
    """Nearest demonstrated state among standardised low-dimensional observations; 1 is the tube's wall."""

    keys: tuple[str, ...]
    mean: np.ndarray
    """(D,)."""
    std: np.ndarray
    """(D,)."""
    tree: cKDTree
    width: float
    """Standardised distance that QUANTILE of the demonstrated states keep from the other demonstrations at most."""

    @classmethod
    def of(cls, dataset: Dataset) -> Tube:
        """Build the tube of all episodes of `dataset`. Raises DatasetError where no observation is low-dimensional."""
        keys = dataset.low_dim_keys()
        if not keys:
            raise DatasetError("a tube needs low-dimensional observations; the data has pictures only")
        names = [f"obs/{key}" for key in keys]
        episodes = [_flat(dataset.arrays(i, names), names) for i in range(len(dataset))]
        rows = np.concatenate(episodes)
        mean, std = rows.mean(0), rows.std(0)
        # A dimension that demonstrations never move must not make every other state infinitely far.
        std = np.maximum(std, max(LEAST_STD, 0.01 * float(np.median(std))))
        scaled = [(episode - mean) / std for episode in episodes]
        return cls(keys, mean, std, cKDTree(np.concatenate(scaled)), _width(scaled))

    def distance(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(R, ...) observations -> (R,) distance from the nearest demonstrated state, in widths of the tube."""
        rows = (_flat(obs, self.keys) - self.mean) / self.std
        return self.tree.query(rows)[0] / self.width


def _flat(obs: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """(R, ...) arrays by name -> (R, D) float64, in the order of the names."""
    return np.concatenate([np.asarray(obs[n], np.float64).reshape(len(obs[n]), -1) for n in names], axis=1)


def _width(episodes: Sequence[np.ndarray]) -> float:
    """The quantile of distances to the nearest state of another episode; with one episode, of its steps' lengths."""
    if len(episodes) < 2:
        steps = np.linalg.norm(np.diff(episodes[0], axis=0), axis=1)
        return max(float(np.quantile(steps, QUANTILE)), 1e-9)
    distances = []
    for i, episode in enumerate(episodes):
        others = cKDTree(np.concatenate([other for j, other in enumerate(episodes) if j != i]))
        distances.append(others.query(episode)[0])
    return max(float(np.quantile(np.concatenate(distances), QUANTILE)), 1e-9)
