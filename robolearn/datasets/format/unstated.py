"""Facts that a file of robomimic's layout leaves unsaid, derived only where it truly follows from what is there.

| missing | derived from |
|---|---|
| terminated, truncated | the last of `dones`: set, it terminated; else it was truncated (earlier ones ended nothing) |
| control_hz | env_kwargs.control_freq, or the caller's word |
| timestamps | step / control_hz: such files come from simulators, whose clock is exact |
| final observation | the last row of `next_obs` |
| observation and action specs | the arrays of the first episode; actions are in [-1, 1] by robomimic's convention |
| success | sparse 0/1 rewards: any step with reward 1; otherwise not known, read as False |
| seed | not known, read as -1 |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.schema import Header
from robolearn.errors import DatasetError
from robolearn.specs import ActionSpec, ArraySpec, EpisodeInfo, ObservationSpec

UNKNOWN_SEED = -1


def derive_header(data: h5py.Group, first: h5py.Group, path: Path, control_hz: float | None) -> Header:
    """Return the header of a robomimic file from `data`'s attributes and its first episode."""
    found = safe.attrs(data)
    if "env_args" not in found:
        raise DatasetError(f"{path}: data has neither our schema nor robomimic's attribute env_args")
    try:
        env_args = json.loads(found["env_args"])
        env_args = {"type": env_args.get("type", env_args.get("env_type", 2)), "env_kwargs": {}} | env_args
        rate = control_hz or env_args["env_kwargs"].get("control_freq")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path}: the attribute env_args is no JSON object: {error}") from None
    if not isinstance(rate, (int, float)):
        raise DatasetError(f"{path} does not say its control rate (env_kwargs.control_freq); give it as control_hz")
    size = safe.dataset(first, "actions").shape
    if size is None or len(size) != 2 or not 0 < size[1] < 10_000:
        raise DatasetError(f"{safe.place(first)}/actions must have shape (T, A), found {size}")
    return Header(
        task=str(env_args.get("env_name", "")),
        env_args=env_args,
        control_hz=float(rate),
        action_spec=ActionSpec(low=(-1.0,) * size[1], high=(1.0,) * size[1]),
        observation_spec=_observation_spec(safe.group(first, "obs")),
    )


def _observation_spec(obs: h5py.Group) -> ObservationSpec:
    specs: dict[str, ArraySpec] = {}
    for key in safe.names(obs):
        data = safe.dataset(obs, key)
        if data.dtype.kind not in "biuf" or data.ndim < 1:
            raise DatasetError(f"{safe.place(data)} must hold numbers with a row per step, found {data.dtype}")
        specs[key] = ArraySpec(shape=data.shape[1:], dtype=data.dtype.name)
    if not specs:
        raise DatasetError(f"{safe.place(obs)} is empty; robomimic's dataset_states_to_obs.py extracts observations")
    return ObservationSpec(specs)


def derive_info(group: h5py.Group, found: Mapping[str, Any]) -> EpisodeInfo:
    steps = safe.num_samples(group)
    success = found.get("success")
    if success is None:
        rewards = safe.load(safe.dataset(group, "rewards"), (steps,), "float32") if "rewards" in group else np.zeros(0)
        success = bool(np.isin(rewards, (0.0, 1.0)).all() and (rewards == 1.0).any())
    seed = found.get("seed", UNKNOWN_SEED)
    return EpisodeInfo(success=bool(success), seed=int(seed) if isinstance(seed, (int, float)) else UNKNOWN_SEED)


def missing_arrays(
    group: h5py.Group, have: Mapping[str, np.ndarray], steps: int, control_hz: float
) -> dict[str, np.ndarray]:
    """Return the arrays that follow from those that are there. Raises DatasetError naming one that is missing."""
    for name in ("actions", "rewards"):
        if name not in have:
            raise DatasetError(f"{safe.place(group)}/{name} is missing")
    derived: dict[str, np.ndarray] = {}
    if "terminated" not in have:
        dones = safe.load(safe.dataset(group, "dones"), (steps,)) != 0
        derived["terminated"] = dones & (np.arange(steps) == steps - 1)
    if "truncated" not in have:
        terminated = have.get("terminated", derived.get("terminated"))
        assert terminated is not None
        derived["truncated"] = (np.arange(steps) == steps - 1) & ~terminated
    if "timestamps" not in have:
        derived["timestamps"] = np.arange(steps) / control_hz
    return derived


def final_observation(group: h5py.Group, key: str, spec: ArraySpec, steps: int) -> np.ndarray:
    """Return (...) the last row of next_obs; holes cannot be told from zeros, so views are refused like elsewhere."""
    if "next_obs" not in group:
        raise DatasetError(
            f"{safe.place(group)}/next_obs is missing, and with it the observation after the last action; "
            "`robolearn dataset convert` can drop the last step instead"
        )
    data = safe.dataset(safe.group(group, "next_obs"), key)
    safe.check(data, (steps, *spec.shape), np.dtype(spec.dtype).kind, np.iinfo(np.int64).max)
    with safe.reading(safe.place(data)):
        return np.asarray(data[steps - 1]).astype(spec.dtype, copy=False)
