"""ALOHA/ACT episode folders, read only: `episode_<i>.hdf5` with observations/qpos, qvel, images/<camera> and action.

Source of the layout: the ACT project's record_sim_episodes.py and utils.py (tonyzhaozh/act), and its ALOHA successors,
which may hold each image as a JPEG, padded or of variable length (attribute `compress`), a mobile base's `base_action`
and an instruction (`language_raw`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import GYM_TYPE
from robolearn.datasets.format import checked as safe, probe
from robolearn.datasets.format.assumptions import Assumptions
from robolearn.datasets.format.leaves import Leaf, descend, look, observation_leaf, walk
from robolearn.datasets.format.schema import Header
from robolearn.datasets.format.units import action_limits, to_unit
from robolearn.datasets.tools.leftovers import left_over, per_episode
from robolearn.datasets.tools.source import Source
from robolearn.errors import DatasetError, RobolearnError
from robolearn.specs import ActionSpec, Episode, EpisodeInfo, ObservationSpec, check_keys, join_key

CONTROL_HZ = 50.0
"""ACT's constants.py: DT = 0.02."""
ACTION, BASE_ACTION = "action", "base_action"
INSTRUCTIONS = ("language_raw", "language_instruction", "instruction")
KNOWN = {"compress_len", *INSTRUCTIONS}
ATTRIBUTES = ("sim", "compress", *INSTRUCTIONS)
LOOKED_AT = 9


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What holds for every episode of a folder."""

    header: Header
    leaves: dict[str, Leaf]
    actions: tuple[str, ...]
    success: bool


def read(folder: Path, reading: Reading) -> Source:
    """Read a folder's episodes, by number, or one episode's file.

    Raises DatasetError where an episode lacks an array or differs from the others.
    """
    everything = sorted(folder.glob("episode_*.hdf5"), key=_number) if folder.is_dir() else [folder]
    excluded = {name.removesuffix(".hdf5") for name in reading.exclude}
    if missing := sorted(excluded - {path.stem for path in everything}):
        raise DatasetError(f"exclude names episodes that are not there: {', '.join(missing)}, in {folder}")
    paths = [path for path in everything if path.stem not in excluded]
    if not paths:
        raise DatasetError(f"every episode of {folder} is left out; a dataset needs at least one")
    for path in paths:
        probe.check(path)
    notes = Assumptions()
    layout = _layout(folder, paths, reading, notes)
    lost = [*notes, *per_episode(line for path in paths for line in _left_over(path, layout))]
    return Source(layout.header, (_episode(path, layout) for path in paths), len(paths), lost=lost)


def _layout(folder: Path, paths: list[Path], reading: Reading, notes: Assumptions) -> _Layout:
    with safe.open_file(_typical(paths)) as file:
        actions = _action_names(file, reading, notes)
        leaves = _observations(file, reading, notes, len(descend(file, actions[0])))
        names = [f"{name}_{i}" for name in actions for i in range(_width(descend(file, name)))]
    low, high = np.inf, -np.inf
    for path in paths:
        with safe.open_file(path) as file:
            values = _actions(file, actions, path)
        if values.shape[1] != len(names):
            raise DatasetError(
                f"{path}: {len(names)} actions are expected, found {values.shape[1]}; {_leave_out(path)}"
            )
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    spec = _limits(np.asarray(low), np.asarray(high), tuple(names), reading, notes)
    header = Header(
        task=folder.stem,
        env_args={"env_name": folder.stem, "type": GYM_TYPE, "env_kwargs": {}},
        control_hz=reading.control_hz or CONTROL_HZ,
        action_spec=spec,
        observation_spec=ObservationSpec({key: leaf.spec for key, leaf in leaves.items()}),
    )
    success = reading.success is not False
    notes.note("control_hz", f"{header.control_hz:g} Hz; ALOHA's files do not say it (--control_hz)")
    notes.note("next_obs", "the last step of each episode is left out: ALOHA does not record what followed it")
    notes.note("timestamps", "step / control_hz; ALOHA records none")
    notes.note("success", f"{success} for all, and the reward 1 at the last step of a success; ALOHA records neither")
    notes.note("seed", "-1; ALOHA records none")
    return _Layout(header=header, leaves=leaves, actions=actions, success=success)


def _typical(paths: list[Path]) -> Path:
    """Return an episode that looks like most: a single bad one must not decide what the others should be."""
    looks: dict[Path, str] = {}
    for path in paths[:: max(1, len(paths) // LOOKED_AT)][:LOOKED_AT]:
        try:
            with safe.open_file(path) as file:
                looks[path] = look(file)
        except DatasetError:
            continue
    if not looks:
        return paths[0]
    common = Counter(looks.values()).most_common(1)[0][0]
    return next(path for path, found in looks.items() if found == common)


def _action_names(file: h5py.File, reading: Reading, notes: Assumptions) -> tuple[str, ...]:
    if reading.actions:
        notes.note("actions", f"{' and '.join(reading.actions)}, joined in this order (--actions)")
        return reading.actions
    if BASE_ACTION in file:
        notes.note(
            "actions", f"{ACTION} and {BASE_ACTION}, joined in this order (--actions {ACTION} for the arms alone)"
        )
        return ACTION, BASE_ACTION
    return (ACTION,)


def _width(data: h5py.Dataset) -> int:
    return int(data.shape[1]) if data.shape and len(data.shape) == 2 else 1


def _actions(file: h5py.File, names: tuple[str, ...], path: Path) -> np.ndarray:
    """Return (rows, A) float64 actions as recorded."""
    parts = []
    for name in names:
        data = descend(file, name)
        values = safe.load(data, (None, None)[: data.ndim], "float64")
        parts.append(values.reshape(len(values), -1))
    rows = {len(part) for part in parts}
    if len(rows) > 1 or min(rows) < 2 or not all(np.isfinite(part).all() for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts)
        raise DatasetError(
            f"{path}: {' and '.join(names)} must have two or more finite rows, found {shapes}; {_leave_out(path)}"
        )
    return np.concatenate(parts, axis=1)


def _limits(
    low: np.ndarray, high: np.ndarray, names: tuple[str, ...], reading: Reading, notes: Assumptions
) -> ActionSpec:
    bounds = reading.bounds(len(names))
    if bounds is None:
        note = "actions are scaled to [-1, 1] by the range in the data; ALOHA does not give their limits (--limits)"
        notes.note("limits", note)
        return action_limits(low, high, names)
    spec = ActionSpec(low=bounds[0], high=bounds[1], names=names)
    over = np.maximum(np.asarray(spec.low) - low, high - np.asarray(spec.high))
    if over.max() > 1e-6 * (np.asarray(spec.high) - np.asarray(spec.low)).max():
        worst = int(over.argmax())
        raise DatasetError(
            f"actions lie outside of --limits {' '.join(reading.limits)}: {names[worst]} goes from {low[worst]:g} to "
            f"{high[worst]:g}; give wider limits, or --limits data"
        )
    notes.note("limits", f"as given (--limits {' '.join(reading.limits)})")
    return spec


def _observations(file: h5py.File, reading: Reading, notes: Assumptions, steps: int) -> dict[str, Leaf]:
    """Return how each observation is read, by its name; cameras go by their own names."""
    leaves: dict[str, Leaf] = {}
    met: set[str] = set()
    for path, data in walk(safe.group(file, "observations")):
        stored = join_key(path)
        key = join_key(path[1:]) if path[0] == "images" and len(path) > 1 else stored
        met |= {stored, key}
        if key in reading.drop or stored in reading.drop:
            notes.note("observations", f"dropped: {key}")
            continue
        found = observation_leaf(data, f"observations/{stored}", steps, reading, swapped=True)
        if isinstance(found, str):
            notes.note("not taken", f"observations/{stored} {found}")
            continue
        key = reading.rename.get(key, key)
        if key in leaves:
            raise DatasetError(
                f"{file.filename}: two observations would be called {key!r} ({stored} and another); rename one"
            )
        leaves[key] = found
        if found.note:
            notes.note("pictures", f"{key}: {found.note}")
    if missing := [name for name in (*reading.drop, *reading.rename) if name not in met]:
        raise DatasetError(f"{file.filename} has no observation {missing[0]!r}; it has {', '.join(sorted(met))}")
    check_keys(tuple(leaves))
    return leaves


def _episode(path: Path, layout: _Layout) -> Episode:
    header = layout.header
    with safe.open_file(path) as file:
        try:
            actions = _actions(file, layout.actions, path)
            obs = {key: leaf.load(file, len(actions)) for key, leaf in layout.leaves.items()}
            instruction = _instruction(file)
        except DatasetError as error:
            raise DatasetError(f"{error}; {_leave_out(path)}") from None
    steps = len(actions) - 1
    last = np.arange(steps) == steps - 1
    try:
        return Episode(
            info=EpisodeInfo(success=layout.success, seed=-1, notes=instruction),
            obs={key: value[:steps] for key, value in obs.items()},
            final_obs={key: value[steps] for key, value in obs.items()},
            actions=to_unit(actions[:steps], header.action_spec),
            rewards=(last & layout.success).astype(np.float32),
            terminated=last & layout.success,
            truncated=last & (not layout.success),
            timestamps=np.arange(steps) / header.control_hz,
        )
    except RobolearnError as error:
        raise DatasetError(f"{path}: {error}; {_leave_out(path)}") from None


def _instruction(file: h5py.File) -> str:
    for name in INSTRUCTIONS:
        if name in file and isinstance(file.get(name), h5py.Dataset):
            return " ".join(safe.texts(safe.dataset(file, name)))
        if name in file.attrs:
            return str(safe.decoded(file.attrs[name]))
    return ""


def _left_over(path: Path, layout: _Layout) -> Iterator[str]:
    with safe.open_file(path) as file:
        taken = {leaf.path for leaf in layout.leaves.values()} | {*layout.actions, *KNOWN}
        yield from left_over(file, taken, ATTRIBUTES, "episode_i")


def _leave_out(path: Path) -> str:
    return f"leave the episode out: --exclude {path.stem}"


def _number(path: Path) -> int:
    found = re.fullmatch(r"episode_(\d{1,9})", path.stem)
    if found is None:
        raise DatasetError(f"{path} is not named episode_<number>.hdf5")
    return int(found.group(1))
