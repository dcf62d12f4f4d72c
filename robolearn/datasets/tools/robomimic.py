"""robomimic's HDF5 layout, in and out (facts: robomimic 0.5's dataset documentation and reader)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.examine import check_limits, outside
from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.episode_file import EpisodeFile
from robolearn.datasets.format.foreign import EPISODE_FACTS, OWN_ATTR
from robolearn.datasets.format.schema import STEP_ARRAYS, Header, info_to_attrs, stored_as_frames, to_own
from robolearn.datasets.recording.durable_files import GuardedFile, publish
from robolearn.datasets.tools.leftovers import left_over, per_episode
from robolearn.datasets.tools.source import Source
from robolearn.errors import DatasetError, option
from robolearn.specs import Episode

HELD = ("actions", "rewards", "dones", "states")
EVERY_EPISODE = (
    "terminated and truncated apart (robomimic has one flag, dones)",
    "measured timestamps",
)
EPISODE_ATTRIBUTES = {
    *("num_samples", "model_file", "success", "is_success", "seed", "ep_meta"),
    *("language_instruction", "instruction", "lang", "language"),
}
DATA_ATTRIBUTES = {"total", "env_args", "env", OWN_ATTR, "problem_info"}
OWN_GROUPS = {"data", "mask"}


def read(path: Path, reading: Reading) -> Source:
    """Read a file of robomimic's layout. Actions outside [-1, 1] of files without limits are scaled by their range."""
    dataset = open_scaled(path, reading)
    file = dataset.files[0]
    try:
        names = file.demos()
        models, model_of = _models(file, names)
        position = {name: i for i, name in enumerate(names)}
        masks = {m: tuple(position[d] for d in demos if d in position) for m, demos in file.masks.items()}
        lost = [*dataset.assumptions, *_left_over(file, names)]
    except BaseException:
        dataset.close()
        raise

    def episodes() -> Iterator[Episode]:
        try:
            for name in names:
                yield _episode(file, name, model_of.get(name, ""), lost)
        finally:
            dataset.close()

    return Source(dataset.header, episodes(), len(names), models, masks, lost)


def open_scaled(path: Path, reading: Reading) -> Dataset:
    """Open a file whose actions lie in their limits: those given, else robomimic's, else the range in the data."""
    dataset = Dataset(path, reading=reading)
    try:
        if reading.limits:
            check_limits(dataset)
            return dataset
        beyond = outside(dataset)
    except BaseException:
        dataset.close()
        raise
    if beyond is None:
        return dataset
    dataset.close()
    dataset = Dataset(path, reading=replace(reading, limits=("data",)))
    note = f"{path.name} gives none and its actions exceed -1 to 1 ({beyond}); they are scaled by the range in the data"
    dataset.assumptions_of(0).note("limits", f"{note} (--limits LOW HIGH)")
    return dataset


def write(source: Source, target: Path) -> list[str]:
    """Write a plain robomimic file, next_obs written out, in HDF5's oldest format; returns what it cannot hold.

    What robomimic has no place for, and does not look at, lies in attributes of our own: coming back, the control rate,
    the action limits, the task and the facts of the episodes are what they were.
    """
    temporary = target.with_name(target.name + ".tmp")
    lost: list[str] = list(EVERY_EPISODE)
    guard = GuardedFile(temporary)
    try:
        with h5py.File(guard, "w", libver=("earliest", "v108")) as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps(dict(source.header.env_args))
            data.attrs[OWN_ATTR] = json.dumps(to_own(source.header))
            total = 0
            for i, episode in enumerate(source.episodes):
                group = data.create_group(f"demo_{i}")
                _write_episode(group, episode, source.header)
                if episode.info.model:
                    group.attrs["model_file"] = source.models[episode.info.model].decode("utf-8")
                total += len(episode)
                lost += _not_held(episode)
                guard.check()
            data.attrs["total"] = total
            for name, indices in source.masks.items():
                file[f"mask/{name}"] = np.array([f"demo_{i}".encode() for i in indices], "S" if indices else "S1")
        guard.sync()
        publish(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        guard.close()
    return lost


def _write_episode(group: h5py.Group, episode: Episode, header: Header) -> None:
    facts = info_to_attrs(episode.info, len(episode))
    group.attrs["num_samples"] = len(episode)
    for name in ("success", "seed", *EPISODE_FACTS):
        group.attrs[name] = facts[name].decode() if isinstance(facts[name], bytes) else facts[name]
    group["actions"], group["rewards"] = episode.actions, episode.rewards
    group["dones"] = (episode.terminated | episode.truncated).astype(np.int64)
    if episode.states is not None:
        group["states"] = episode.states
    for key, spec in header.observation_spec.items():
        values = episode.obs[key]
        following = np.concatenate([values[1:], episode.final_obs[key][None]])
        packed = {"compression": "gzip", "compression_opts": 1, "chunks": (1, *spec.shape)}
        for name, rows in (("obs", values), ("next_obs", following)):
            group.create_dataset(f"{name}/{key}", data=rows, **(packed if stored_as_frames(spec) else {}))


def _not_held(episode: Episode) -> list[str]:
    """Name the per-step arrays with something in them that robomimic has no place for."""
    lost = []
    for name in STEP_ARRAYS:
        value = getattr(episode, name, None)
        if name in HELD or value is None or name in ("terminated", "truncated", "timestamps"):
            continue
        empty = (value == -1).all() if name == "action_modes" else np.isnan(value).all()
        if not empty:
            lost.append(name)
    return lost + (["events"] if episode.events else [])


def _left_over(file: EpisodeFile, names: list[str]) -> Iterator[str]:
    """Yield what of the file is not taken: beside the episodes, and in any of them."""
    root = file.hdf5
    for name in safe.names(root):
        if name not in OWN_GROUPS:
            child = safe.open_child(root, name)
            if isinstance(child, h5py.Group):
                yield from left_over(child, set(), (), name)
            else:
                yield f"{name} {child.shape} {child.dtype}, not taken"
    yield from (f"attribute {name} of the file, not taken" for name in sorted(root.attrs))
    data = safe.group(root, "data")
    yield from (f"attribute {name} of data, not taken" for name in sorted(set(data.attrs) - DATA_ATTRIBUTES))

    def of_episodes() -> Iterator[str]:
        known = EPISODE_ATTRIBUTES | (set(EPISODE_FACTS) if OWN_ATTR in data.attrs else set())
        for name in names:
            with file.group(name) as group:
                yield from left_over(group, file.taken, known, "data/demo_i")

    yield from per_episode(of_episodes())


def _models(file: EpisodeFile, names: list[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the distinct `model_file` attributes by their hash, and the hash of each episode's."""
    models: dict[str, bytes] = {}
    of: dict[str, str] = {}
    for name in names:
        with file.group(name) as group:
            text = safe.attrs(group).get("model_file")
        if isinstance(text, str):
            content = text.encode("utf-8")
            of[name] = hashlib.sha256(content).hexdigest()[:16]
            models[of[name]] = content
    return models, of


def _episode(file: EpisodeFile, name: str, model: str, lost: list[str]) -> Episode:
    """Read one episode; without next_obs its last step is given up, whose outcome nobody recorded."""
    with file.group(name) as group:
        has_next = "next_obs" in group
    if has_next:
        return file.read(name, tuple(file.header.observation_spec)).with_info(model=model)
    steps = file.steps(name)
    if steps < 2:
        raise DatasetError(
            f"{file.path}: {name} has one step, and no next_obs says what followed it; leave the episode out: "
            f"{option('exclude', name)}"
        )
    lost.append("the last step of each episode, not taken: the file has no next_obs")
    return file.read_without_last(name, tuple(file.header.observation_spec)).with_info(model=model)
