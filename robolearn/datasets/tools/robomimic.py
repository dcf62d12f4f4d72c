"""robomimic's HDF5 layout, in and out (facts: robomimic 0.5's dataset documentation and reader)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe, unstated as foreign
from robolearn.datasets.format.episode_file import EpisodeFile
from robolearn.datasets.format.schema import STEP_ARRAYS, Header, stored_as_frames
from robolearn.datasets.recording.durable_files import GuardedFile, publish
from robolearn.datasets.tools.source import Source, action_limits, to_unit
from robolearn.errors import DatasetError
from robolearn.specs import Episode, EpisodeInfo

KNOWN = {"actions", "rewards", "dones", "states", "obs", "next_obs"}
HELD = ("actions", "rewards", "dones", "states")
EVERY_EPISODE = (
    "terminated and truncated apart (robomimic has one flag, dones)",
    "measured timestamps",
    "seed, source, round, operator, device, start time and success of each episode",
    "names and physical limits of the actions; the control rate",
)


def read(path: Path, *, control_hz: float | None) -> Source:
    """Read a robomimic file. Actions outside [-1, 1] are scaled by the range that the file spans."""
    file = EpisodeFile(path, control_hz)
    try:
        header, lost = _with_limits(file)
        names = file.demos()
        models, model_of = _models(file, names)
        position = {name: i for i, name in enumerate(names)}
        masks = {m: tuple(position[d] for d in demos if d in position) for m, demos in file.masks.items()}
    except BaseException:
        file.close()
        raise
    lost += ["timestamps are step / control_hz: the file has none", "seeds are -1: the file has none"]

    def episodes() -> Iterator[Episode]:
        try:
            for name in names:
                yield _episode(file, name, header, model_of.get(name, ""), lost)
        finally:
            file.close()

    return Source(header, episodes(), len(names), models, masks, lost)


def write(source: Source, target: Path) -> list[str]:
    """Write a plain robomimic file, next_obs written out, in HDF5's oldest format; returns what it cannot hold."""
    temporary = target.with_name(target.name + ".tmp")
    lost: list[str] = list(EVERY_EPISODE)
    guard = GuardedFile(temporary)
    try:
        with h5py.File(guard, "w", libver=("earliest", "v108")) as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps(dict(source.header.env_args))
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
    group.attrs["num_samples"] = len(episode)
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


def _with_limits(file: EpisodeFile) -> tuple[Header, list[str]]:
    """Return the header, its action limits taken from the data where they are not [-1, 1], and what that assumes."""
    size = file.header.action_spec.size
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    for name in file.demos():
        actions = file.arrays(name, ["actions"])["actions"]
        low, high = np.minimum(low, actions.min(axis=0)), np.maximum(high, actions.max(axis=0))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DatasetError(f"{file.path}: actions are not finite")
    if low.min() >= -1 - 1e-6 and high.max() <= 1 + 1e-6:
        return file.header, []
    note = "actions are scaled to [-1, 1] by the range in the data: the file does not give their limits"
    return replace(file.header, action_spec=action_limits(low, high)), [note]


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


def _episode(file: EpisodeFile, name: str, header: Header, model: str, lost: list[str]) -> Episode:
    """Read one episode; without next_obs its last step is given up, whose outcome nobody recorded."""
    with file.group(name) as group:
        steps = safe.num_samples(group)
        lost += [f"{extra} (unknown to us)" for extra in safe.names(group) if extra not in KNOWN]
        arrays: dict[str, Any] = file.arrays(name, [n for n in HELD if n in group and n != "dones"])
        arrays |= foreign.missing_arrays(group, arrays, steps, header.control_hz)
        obs = {key: file.arrays(name, [f"obs/{key}"])[f"obs/{key}"] for key in header.observation_spec}
        if "next_obs" in group:
            final = {k: foreign.final_observation(group, k, s, steps) for k, s in header.observation_spec.items()}
        else:
            final = {key: value[-1] for key, value in obs.items()}
            obs = {key: value[:-1] for key, value in obs.items()}
            arrays = {key: value[:-1] for key, value in arrays.items()}
            arrays["truncated"][-1:] = ~arrays["terminated"][-1:]
            lost.append("the last step of each episode: the file has no next_obs")
        info: EpisodeInfo = file.info(name)
    if header.action_spec != file.header.action_spec:
        arrays["actions"] = to_unit(arrays["actions"], header.action_spec)
    return Episode(info=replace(info, model=model), obs=obs, final_obs=final, **arrays)
