"""The material of gates: recorded episodes with their labels, as arrays of low-dimensional observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.errors import DatasetError, PolicyError
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode


@dataclass(frozen=True, kw_only=True)
class Record:
    """One episode."""

    obs: np.ndarray
    """(T, D) float64, the keys one after the other."""
    actions: np.ndarray
    """(T, A), executed."""
    proposals: np.ndarray
    """(T, A), what the policy proposed; NaN where it was not asked."""
    labels: np.ndarray
    """(T, A), the expert's label, or what somebody other than the policy meant to do; NaN where there is neither."""
    modes: np.ndarray
    """(T,) of ActionMode."""
    success: bool
    complete: bool
    """Whether the episode came to its end: the outcome of one that was cut off is not known."""

    @property
    def demonstration(self) -> bool:
        return bool(np.isin(self.modes, (ActionMode.DEMONSTRATION, ActionMode.DISTURBANCE)).all())

    def __len__(self) -> int:
        return len(self.actions)


def policy_keys(policy: Policy) -> tuple[str, ...]:
    """Return the low-dimensional observation keys that a policy sees. Raises PolicyError where it has only images."""
    keys = tuple(key for key, spec in policy.observation_spec.items() if not spec.is_image)
    if not keys:
        raise PolicyError(
            f"a gate that learns needs low-dimensional observations, the policy sees {list(policy.observation_spec)}; "
            "add a key such as 'state' to its obs_keys, or use the likelihood or the human gate"
        )
    return keys


def low_dim_keys(files: Sequence[Path], reading: Reading = NOTHING) -> tuple[str, ...]:
    """Return the low-dimensional observation keys of files. Raises DatasetError where there are only images."""
    with Dataset(list(files), reading=reading) as dataset:
        keys = dataset.low_dim_keys()
        if not keys:
            raise DatasetError(
                f"the human gate needs low-dimensional observations, {files[0]} has {list(dataset.observation_spec)}"
            )
        return keys


def read_records(files: Sequence[Path], keys: Sequence[str], reading: Reading = NOTHING) -> list[Record]:
    """Return all episodes of the files, in order. Raises DatasetError where a key is missing."""
    with Dataset(list(files), reading=reading) as dataset:
        dataset.observation_spec.select(keys)
        return [_read(dataset, index, keys, not cut) for index, cut in enumerate(dataset.interrupted)]


def _read(dataset: Dataset, index: int, keys: Sequence[str], complete: bool) -> Record:
    names = ("actions", "action_modes", "policy_actions", "expert_actions")
    found = dataset.arrays(index, [*(f"obs/{key}" for key in keys), *names])
    actions, modes, labels = found["actions"], found["action_modes"], found["expert_actions"]
    meant = ~np.isin(modes, (ActionMode.POLICY, ActionMode.DISTURBANCE))
    by_other = np.where(meant[:, None], actions, np.nan)
    return Record(
        obs=np.concatenate([found[f"obs/{key}"].reshape(len(actions), -1) for key in keys], axis=1, dtype=np.float64),
        actions=actions,
        proposals=found["policy_actions"],
        labels=np.where(np.isfinite(labels).all(1, keepdims=True), labels, by_other),
        modes=modes,
        success=dataset.episode_info(index).success,
        complete=complete,
    )
