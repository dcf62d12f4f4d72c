"""Loss weights of steps by who acted at them: plain, IWR and Sirius.

IWR     w = (N - n) / n at the n intervened steps of N, else 1          (Mandlekar et al. 2020)
Sirius  w = P*(c) / P(c) by class c: P*(intervention) = 1/2, P*(before one) = 0,
        demonstrations keep their share, the robot's own steps get the rest  (Liu et al. 2023, eq. 3)
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.windows import StepWeights
from robolearn.errors import DatasetError
from robolearn.specs import ActionMode

Scheme = Literal["plain", "iwr", "sirius"]
BEFORE_S = 1.0
"""Seconds before an intervention in which the robot's steps led to it."""
DEMONSTRATION, ROBOT, INTERVENTION, BEFORE = range(4)


def step_weights(scheme: Scheme, dataset: Dataset) -> StepWeights | None:
    """Return the weights of each episode's steps, None for equal ones.

    Raises DatasetError where no step of the data is an intervention, for then there is nothing to weigh.
    """
    if scheme == "plain":
        return None
    classes = [classify(modes(dataset, i), dataset.control_hz) for i in range(len(dataset))]
    counts = np.bincount(np.concatenate(classes), minlength=4)
    if not counts[INTERVENTION]:
        raise DatasetError(
            f"weights {scheme} need interventions, and no step of {', '.join(map(str, dataset.paths))} is one; "
            "use weights plain"
        )
    by_class = _iwr(counts) if scheme == "iwr" else _sirius(counts)
    return lambda _, index: by_class[classes[index]]


def classify(modes: np.ndarray, control_hz: float) -> np.ndarray:
    """(T,) int8 of ActionMode -> (T,) class of each step."""
    classes = np.full(len(modes), ROBOT)
    classes[np.isin(modes, (ActionMode.DEMONSTRATION, ActionMode.EXPERT))] = DEMONSTRATION
    intervened = modes == ActionMode.INTERVENTION
    starts = np.flatnonzero(intervened & ~np.r_[False, intervened[:-1]])
    for start in starts:
        before = slice(max(0, start - round(BEFORE_S * control_hz)), start)
        classes[before] = np.where(modes[before] == ActionMode.POLICY, BEFORE, classes[before])
    classes[intervened] = INTERVENTION
    return classes


def _iwr(counts: np.ndarray) -> np.ndarray:
    weights = np.ones(4)
    weights[INTERVENTION] = (counts.sum() - counts[INTERVENTION]) / counts[INTERVENTION]
    return weights


def _sirius(counts: np.ndarray) -> np.ndarray:
    share = counts / counts.sum()
    demonstrations = min(share[DEMONSTRATION], 0.5)
    wanted = np.zeros(4)
    wanted[DEMONSTRATION], wanted[INTERVENTION] = demonstrations, 0.5
    wanted[ROBOT] = 0.5 - demonstrations if counts[ROBOT] else 0.0
    return np.divide(wanted, share, out=np.zeros(4), where=share > 0)


def has_interventions(dataset: Dataset) -> bool:
    """Return whether somebody took over in any step."""
    return any((modes(dataset, i) == ActionMode.INTERVENTION).any() for i in range(len(dataset)))


def modes(dataset: Dataset, index: int) -> np.ndarray:
    """(T,) who acted."""
    return dataset.arrays(index, ["action_modes"])["action_modes"]
