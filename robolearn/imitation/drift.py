"""Compounding error made visible: how far from the expert's states a policy gets, and how fast.

Cloning's cost grows as the square of the horizon at worst, where one error leads to states without data; DAgger's grows
linearly (Ross and Bagnell 2010; Ross et al. 2011). The exponent fitted here is that of the summed distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.gates.human import Tube
from robolearn.imitation.gates.records import read_records
from robolearn.storage import write_json

DRIFT = "drift.json"
LEAST_EPISODES = 5
"""Episodes that must still run for a step to count."""


def write_drift(folder: Path, result: EvaluationResult, files: Sequence[str], reading: Reading = NOTHING) -> None:
    """Write how far the evaluated episodes strayed from the demonstrations in `files`, step by step.

    Nothing is written where that has no measure: states that are pictures only, or fewer than two demonstrations.
    """
    paths = [Path(file) for file in files]
    with Dataset(paths, reading=reading) as dataset:
        keys = dataset.low_dim_keys()
    shown = [record.obs for record in read_records(paths, keys, reading) if record.demonstration] if keys else []
    if len(shown) < 2:
        return
    tube = Tube(shown)
    write_json(folder / DRIFT, drift(result, tube, keys), indent=None)


def drift(result: EvaluationResult, tube: Tube, keys: Sequence[str]) -> dict[str, Any]:
    """Return, by control step: mean distance from the demonstrated states in units of the tube's width, the share of
    episodes still within it all along, and the growth exponent of the summed distance."""
    paths = [e.trajectory.obs for e in result.episodes if e.trajectory is not None]
    distances = [tube.distance(tube.standardised(_rows(obs, keys)))[:-1] for obs in paths]
    horizon = max(map(len, distances), default=0)
    table = np.full((len(distances), horizon), np.nan)
    for row, distance in zip(table, distances):
        row[: len(distance)] = distance
    running = np.isfinite(table).sum(0)
    steps = np.flatnonzero(running >= min(LEAST_EPISODES, len(distances)))
    mean = [float(np.nanmean(table[:, t])) for t in steps]
    within = [float(np.mean([(d[: t + 1] <= 1.0).all() for d in distances])) for t in steps]
    return {
        "control_hz": result.control_hz,
        "steps": steps.tolist(),
        "mean_distance": mean,
        "within": within,
        "exponent": growth_exponent(np.asarray(mean)),
    }


def _rows(obs: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray:
    """(T, ...) arrays by key -> (T, D) float64, in the order of the keys."""
    return np.concatenate([np.asarray(obs[key], np.float64).reshape(len(obs[key]), -1) for key in keys], axis=1)


def growth_exponent(distance: np.ndarray) -> float | None:
    """(T,) distances -> the exponent p of t^p that the summed distance follows best; None where there is too little.

    Least squares on logarithms over the second half of the logarithmic time axis, where the beginning has no say.
    """
    total = np.cumsum(distance)
    times = np.arange(1, len(total) + 1)
    late = (times >= np.sqrt(len(total))) & (total > 0)
    if late.sum() < 3:
        return None
    return float(np.polyfit(np.log(times[late]), np.log(total[late]), 1)[0])
