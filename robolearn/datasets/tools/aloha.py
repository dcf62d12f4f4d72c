"""ALOHA/ACT episode folders, read only: `episode_<i>.hdf5` with observations/qpos, qvel, images/<camera> and action.

Source of the layout: the ACT project's record_sim_episodes.py and utils.py (tonyzhaozh/act), and its ALOHA successors,
which may hold each image as a padded JPEG (attribute `compress`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.schema import Header
from robolearn.datasets.tools.source import Source, action_limits, to_unit
from robolearn.errors import DatasetError
from robolearn.specs import ArraySpec, Episode, EpisodeInfo, ObservationSpec

CONTROL_HZ = 50.0
"""ACT's constants.py: DT = 0.02."""


def read(folder: Path, *, control_hz: float | None, success: bool) -> Source:
    """Read a folder's episodes, by number. Raises DatasetError where one lacks an array or differs from another."""
    paths = sorted(folder.glob("episode_*.hdf5"), key=_number)
    spec = _observation_spec(paths[0])
    low, high = np.inf, -np.inf
    for path in paths:
        with safe.open_file(path) as file:
            actions = safe.load(safe.dataset(file, "action"), (None, None), "float64", "f")
            if len(actions) < 2 or not np.isfinite(actions).all():
                raise DatasetError(f"{path}: action must have two or more finite rows, found shape {actions.shape}")
            low, high = np.minimum(low, actions.min(axis=0)), np.maximum(high, actions.max(axis=0))
    header = Header(
        task=folder.name,
        env_args={"env_name": folder.name, "type": 3, "env_kwargs": {}},
        control_hz=control_hz or CONTROL_HZ,
        action_spec=action_limits(np.asarray(low), np.asarray(high)),
        observation_spec=spec,
    )
    lost = [
        "the last step of each episode: ALOHA does not record what followed it",
        "actions are scaled to [-1, 1] by the range in the data: ALOHA does not give their limits",
        "timestamps are step / control_hz: ALOHA records none",
        f"success is {success} and the reward 1 at the last step of a success: ALOHA records neither",
        "seeds are -1: ALOHA records none",
    ]
    return Source(header, (_episode(path, header, success) for path in paths), len(paths), lost=lost)


def _episode(path: Path, header: Header, success: bool) -> Episode:
    with safe.open_file(path) as file:
        actions = safe.load(safe.dataset(file, "action"), (None, header.action_spec.size), "float64", "f")
        obs = {key: _load(file, key, spec, len(actions)) for key, spec in header.observation_spec.items()}
    steps = len(actions) - 1
    last = np.arange(steps) == steps - 1
    return Episode(
        info=EpisodeInfo(success=success, seed=-1),
        obs={key: value[:steps] for key, value in obs.items()},
        final_obs={key: value[steps] for key, value in obs.items()},
        actions=to_unit(actions[:steps], header.action_spec),
        rewards=(last & success).astype(np.float32),
        terminated=last & success,
        truncated=last & (not success),
        timestamps=np.arange(steps) / header.control_hz,
    )


def _number(path: Path) -> int:
    found = re.fullmatch(r"episode_(\d{1,9})", path.stem)
    if found is None:
        raise DatasetError(f"{path} is not named episode_<number>.hdf5")
    return int(found.group(1))


def _observation_spec(path: Path) -> ObservationSpec:
    with safe.open_file(path) as file:
        obs = safe.group(file, "observations")
        specs: dict[str, ArraySpec] = {}
        for name in safe.names(obs):
            if name != "images":
                specs[name] = _row_spec(safe.dataset(obs, name))
        images = safe.group(obs, "images") if "images" in obs else {}
        for camera in safe.names(images) if isinstance(images, h5py.Group) else ():
            data = safe.dataset(safe.group(obs, "images"), camera)
            if camera in specs:
                raise DatasetError(f"{path}: the camera {camera} has the name of another observation")
            jpeg = data.ndim == 2
            specs[camera] = ArraySpec(shape=_decode(data[0], path).shape, dtype="uint8") if jpeg else _row_spec(data)
        return ObservationSpec(specs)


def _row_spec(data: h5py.Dataset) -> ArraySpec:
    if not data.shape or data.dtype.kind not in "biuf":
        raise DatasetError(f"{safe.place(data)} must hold numbers with a row per step, found {data.dtype} {data.shape}")
    return ArraySpec(shape=data.shape[1:], dtype=data.dtype.name)


def _load(file: h5py.File, key: str, spec: ArraySpec, rows: int) -> np.ndarray:
    """Read one observation key, (rows, ...), JPEGs decoded."""
    obs = safe.group(file, "observations")
    if not ("images" in obs and key in safe.group(obs, "images")):
        return safe.load(safe.dataset(obs, key), (rows, *spec.shape), spec.dtype)
    data = safe.dataset(safe.group(obs, "images"), key)
    if data.ndim == 2 and len(spec.shape) == 3:
        packed: Any = safe.load(data, (rows, None), "uint8", "u")
        frames = [_decode(row, safe.place(data)) for row in packed]
        if any(frame.shape != spec.shape for frame in frames):
            raise DatasetError(f"{safe.place(data)}: pictures differ in size from the first episode's {spec.shape}")
        return np.stack(frames)
    safe.check(data, (rows, *spec.shape), np.dtype(spec.dtype).kind, np.iinfo(np.int64).max)
    return data[()]


def _decode(row: np.ndarray, place: object) -> np.ndarray:
    """Decode a padded JPEG into (height, width, 3) uint8; the channels keep the order in which ALOHA encoded them."""
    import cv2

    frame = cv2.imdecode(np.ascontiguousarray(row), cv2.IMREAD_COLOR)
    if frame is None:
        raise DatasetError(f"{place}: a picture is no JPEG")
    return frame
