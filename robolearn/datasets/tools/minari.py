"""Minari datasets, in and out, through the `minari` package.

Minari holds observations (T+1 rows), actions, rewards, both end flags and free per-step `infos`. Going out, our other
arrays go into `infos` and our attributes into its metadata, so that coming back nothing is missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.datasets.format.schema import Header, text
from robolearn.datasets.tools.source import Source, action_limits, to_physical, to_unit
from robolearn.errors import DatasetError
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, Event, ObservationSpec
from robolearn.storage import sync

PREFIX = "minari:"
"""Before the id of a dataset that Minari has stored."""
OURS = "robolearn"
"""Key of our own entries in Minari's metadata and infos."""
SINGLE_KEY = "observation"
EXTRA = ("timestamps", "states", "action_modes", "policy_actions", "expert_actions", "gate")


def read(source: str, *, control_hz: float | None, success: bool) -> Source:
    """Read a Minari dataset with Box actions and (nested dictionaries of) Box observations."""
    dataset = _open(source)
    metadata = dataset.storage.metadata
    own = metadata.get(OURS)
    header = _own_header(json.loads(own)) if own else _header(dataset, control_hz)
    lost: list[str] = []
    if not own:
        lost += [
            "timestamps are step / control_hz: Minari records none",
            f"success is read from infos or terminations where they say so, else {success}",
        ]

    def episodes() -> Iterator[Episode]:
        for recorded in dataset.iterate_episodes():
            metadata = next(iter(dataset.storage.get_episode_metadata([recorded.id])))
            yield _episode(recorded, metadata, header, success, lost)

    models = {k: v.encode("utf-8") for k, v in json.loads(own).get("models", {}).items()} if own else {}
    masks = {k: tuple(v) for k, v in json.loads(own).get("masks", {}).items()} if own else {}
    return Source(header, episodes(), dataset.total_episodes, models, masks, lost)


def write(source: Source, target: str) -> list[str]:
    """Write a Minari dataset into a folder, or under an id among Minari's own; returns what it cannot hold."""
    import gymnasium as gym

    minari = _minari()
    from minari.dataset.minari_storage import MinariStorage

    folder = _folder(target)
    if folder.exists():
        raise DatasetError(f"{folder} exists already; choose another name")
    temporary = folder.with_name(folder.name + ".tmp")
    header = source.header
    lost: list[str] = []
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "data").mkdir(parents=True)
        action = header.action_spec
        storage = MinariStorage.new(
            temporary / "data",
            observation_space=gym.spaces.Dict({k: _space(s) for k, s in header.observation_spec.items()}),
            action_space=gym.spaces.Box(
                np.asarray(action.low, np.float64), np.asarray(action.high, np.float64), dtype=np.float64
            ),
            jpeg_encoding=False,
        )
        models = _texts(source.models, lost)
        own = {
            name: value.decode() if isinstance(value, bytes) else float(value)
            for name, value in header.to_attrs().items()
        }
        own |= {"models": models, "masks": {name: list(indices) for name, indices in source.masks.items()}}
        name = target.removeprefix(PREFIX) if target.startswith(PREFIX) else folder.name
        storage.update_metadata({"dataset_id": name, "minari_version": minari.__version__, OURS: json.dumps(own)})
        for index, episode in enumerate(source.episodes):
            storage.update_episodes([_buffer(index, episode, header)])
            info = asdict(episode.info) | {"events": [asdict(event) for event in episode.events]}
            storage.update_episode_metadata([{OURS: text(json.dumps(info))}], [index])
        temporary.rename(folder)
        sync(folder.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DatasetError(f"cannot write {folder}: {error}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return lost


def _buffer(index: int, episode: Episode, header: Header) -> Any:
    from minari.data_collector import EpisodeBuffer

    obs = {key: np.concatenate([episode.obs[key], episode.final_obs[key][None]]) for key in header.observation_spec}
    infos = {name: getattr(episode, name) for name in EXTRA if getattr(episode, name) is not None}
    infos["actions"] = episode.actions
    return EpisodeBuffer(
        id=index,
        seed=episode.info.seed,
        observations=obs,
        actions=to_physical(episode.actions, header.action_spec),  # pyright: ignore[reportArgumentType]
        rewards=episode.rewards,  # pyright: ignore[reportArgumentType]
        terminations=episode.terminated,  # pyright: ignore[reportArgumentType]
        truncations=episode.truncated,  # pyright: ignore[reportArgumentType]
        infos={OURS: infos},
    )


def _episode(recorded: Any, metadata: dict[str, Any], header: Header, success: bool, lost: list[str]) -> Episode:
    flat = _flatten(recorded.observations)
    infos = recorded.infos or {}
    own = infos.get(OURS, {})
    lost += [f"infos/{name} (unknown to us)" for name in infos if name != OURS]
    terminated, truncated = (np.asarray(v, bool) for v in (recorded.terminations, recorded.truncations))
    steps = len(recorded.rewards)
    extra: dict[str, Any] = {name: own[name] for name in EXTRA if name in own}
    extra.setdefault("timestamps", np.arange(steps) / header.control_hz)
    if OURS in metadata:
        info = json.loads(_decode(metadata[OURS]))
        extra["events"] = tuple(Event(**event) for event in info.pop("events"))
        known = EpisodeInfo(**info)
    else:
        seed = metadata.get("seed")
        known = EpisodeInfo(success=_succeeded(infos, terminated, success), seed=-1 if seed is None else int(seed))
    if not (terminated[-1] or truncated[-1]):
        truncated[-1] = True
        lost.append("episodes that Minari does not mark as ended are marked as truncated")
    return Episode(
        info=known,
        obs={key: flat[key][:steps].astype(spec.dtype, copy=False) for key, spec in header.observation_spec.items()},
        final_obs={
            key: flat[key][steps].astype(spec.dtype, copy=False) for key, spec in header.observation_spec.items()
        },
        actions=_actions(recorded, own, header.action_spec),
        rewards=recorded.rewards,
        terminated=terminated,
        truncated=truncated,
        **extra,
    )


def _actions(recorded: Any, own: dict[str, Any], spec: ActionSpec) -> np.ndarray:
    """Return (T, A) in [-1, 1]: our own copy to the last bit, unless somebody has changed Minari's since."""
    actions = to_unit(np.asarray(recorded.actions).reshape(len(recorded.rewards), -1), spec)
    return own["actions"] if "actions" in own and np.allclose(own["actions"], actions, atol=1e-6) else actions


def _succeeded(infos: dict[str, Any], terminated: np.ndarray, default: bool) -> bool:
    for name in ("success", "is_success"):
        if name in infos:
            return bool(np.asarray(infos[name], np.float64).max() > 0)
    return default


def _header(dataset: Any, control_hz: float | None) -> Header:
    space = dataset.action_space
    low, high = (np.asarray(getattr(space, side, np.nan), np.float64).reshape(-1) for side in ("low", "high"))
    if not len(low) or np.isnan(low).any():
        raise DatasetError(f"Minari dataset {dataset.id}: actions must be a Box, found {space}")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        actions = [np.asarray(e.actions).reshape(len(e.rewards), -1) for e in dataset.iterate_episodes()]
        spec = action_limits(np.min([a.min(axis=0) for a in actions], 0), np.max([a.max(axis=0) for a in actions], 0))
    else:
        spec = ActionSpec(low=tuple(low.tolist()), high=tuple(high.tolist()))
    env = dataset.env_spec
    rate = control_hz or _frame_rate(env)
    if rate is None:
        raise DatasetError(f"Minari dataset {dataset.id} does not say its control rate; give it as control_hz")
    first = _flatten(next(iter(dataset.iterate_episodes([0]))).observations)
    return Header(
        task=dataset.id,
        env_args={"env_name": env.id if env else dataset.id, "type": 2, "env_kwargs": dict(env.kwargs) if env else {}},
        control_hz=rate,
        action_spec=spec,
        observation_spec=ObservationSpec(
            {k: ArraySpec(shape=v.shape[1:], dtype=v.dtype.name) for k, v in first.items()}
        ),
    )


def _frame_rate(env: Any) -> float | None:
    """Return the rendering rate of a Gymnasium environment (metadata render_fps), which is its control rate."""
    import gymnasium as gym

    if env is None:
        return None
    try:
        made = gym.make(env)
    except (gym.error.Error, ImportError, TypeError, ValueError, AttributeError):
        return None
    rate = made.metadata.get("render_fps")
    made.close()
    return float(rate) if rate else None


def _own_header(own: dict[str, Any]) -> Header:
    return Header.from_attrs(own | {"total": 0})


def _flatten(observations: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Return (T+1, ...) arrays by key; nested dictionaries are joined by dots."""
    if isinstance(observations, dict):
        flat: dict[str, np.ndarray] = {}
        for key, value in observations.items():
            flat |= _flatten(value, f"{prefix}{key}.")
        return flat
    if isinstance(observations, tuple):
        raise DatasetError("Minari observations in tuples have no names; only arrays and dictionaries are read")
    return {prefix[:-1] or SINGLE_KEY: np.asarray(observations)}


def _space(spec: ArraySpec) -> Any:
    import gymnasium as gym

    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        return gym.spaces.MultiBinary(spec.shape)
    if dtype.kind == "f":
        return gym.spaces.Box(-np.inf, np.inf, spec.shape, dtype.type)
    limits = np.iinfo(dtype)
    return gym.spaces.Box(limits.min, limits.max, spec.shape, dtype.type)


def _texts(models: Any, lost: list[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, content in models.items():
        try:
            texts[name] = content.decode("utf-8")
        except UnicodeDecodeError:
            lost.append(f"models/{name}, which is not text")
    return texts


def _decode(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _folder(name: str) -> Path:
    if not name.startswith(PREFIX):
        return Path(name).absolute()
    _minari()
    from minari.storage.datasets_root_dir import get_dataset_path

    return Path(get_dataset_path(name.removeprefix(PREFIX)))


def _minari() -> Any:
    try:
        import minari
    except ImportError:
        raise DatasetError("Minari datasets need the minari package: pip install 'robolearn[minari]'") from None
    return minari


def _open(source: str) -> Any:
    minari = _minari()
    folder = _folder(source)
    data = folder if (folder / "main_data.hdf5").exists() else folder / "data"
    if not data.exists():
        raise DatasetError(f"{source}: no Minari dataset at {folder}")
    try:
        return minari.MinariDataset(data)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise DatasetError(f"{source} is no readable Minari dataset: {error}") from error
