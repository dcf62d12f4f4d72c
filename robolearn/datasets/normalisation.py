"""Statistics for normalising observations and actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.format.schema import stored_as_frames
from robolearn.errors import DatasetError

QUANTILES = {"q01": 0.01, "q99": 0.99}


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
    episodes = [dataset.arrays(i, tuple(paths.values())) for i in range(len(dataset))]
    return {key: describe(np.concatenate([arrays[path] for arrays in episodes])) for key, path in paths.items()}


def describe(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics of (rows, ...) values over the rows, in float64 and returned as float32."""
    values = values.astype(np.float64)
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
    }
    found |= {name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()}
    return {name: np.asarray(value, np.float32) for name, value in found.items()}
