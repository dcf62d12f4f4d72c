"""Minari datasets, in and out, through the `minari` package.

Minari holds observations (T+1 rows), actions, rewards, both end flags and free per-step `infos`. Going out, our other
arrays go into `infos` and our attributes into its metadata, so that coming back nothing is missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.configuration.parts.dataset_names import MINARI
from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.format.assumptions import Assumptions
from robolearn.datasets.format.schema import Header, from_own, text, to_own
from robolearn.datasets.format.units import action_limits, to_physical, to_unit
from robolearn.datasets.tools.source import Source
from robolearn.errors import DatasetError, RobolearnError
from robolearn.picture_layout import Picture, picture_of
from robolearn.specs import (
    KEY_SEPARATOR,
    UNBOUNDED,
    ActionSpec,
    ArraySpec,
    Episode,
    EpisodeInfo,
    Event,
    ObservationSpec,
    check_keys,
    flat_keys,
)
from robolearn.storage import sync

"""Before the id of a dataset that Minari has stored."""
OURS = "robolearn"
"""Key of our own entries in Minari's metadata and infos."""
VECTOR_KEY, PICTURE_KEY = "state", "image"
"""What an observation without a name is called, as in environments: a bare Box."""
SUCCESS_NAMES = ("success", "is_success")
EXTRA = ("timestamps", "states", "action_modes", "policy_actions", "expert_actions", "gate")


def read(source: str, reading: Reading) -> Source:
    """Read a Minari dataset with Box actions and (nested dictionaries of) Box observations."""
    dataset = _open(source)
    own = dataset.storage.metadata.get(OURS)
    notes = Assumptions()
    wanted = [i for i in range(dataset.total_episodes) if f"episode_{i}" not in reading.exclude]
    if missing := [n for n in reading.exclude if n not in {f"episode_{i}" for i in range(dataset.total_episodes)}]:
        raise DatasetError(f"exclude names episodes that are not there: {', '.join(missing)}; they are episode_<i>")
    if not wanted:
        raise DatasetError(f"{source} has no episodes that are wanted; a dataset needs at least one")
    first = _flatten(next(iter(dataset.iterate_episodes(wanted[:1]))).observations)
    keys = _seen_keys(first, reading, notes)
    pictures = {} if own else _pictures(first, keys, reading, notes)
    header = from_own(json.loads(own)) if own else _header(dataset, wanted, reading, notes)
    spec = {k: header.observation_spec[s] if own else _spec(first[s], pictures.get(k)) for k, s in keys.items()}
    header = replace(header, observation_spec=ObservationSpec(spec))
    if own and reading.limits:
        raise DatasetError(f"{source} is of our own writing and says its action limits; drop --limits")
    if not own:
        notes.note("timestamps", "step / control rate; Minari records none")
        default = "true" if reading.success is not False else "false"
        notes.note("success", f"read from infos (success, is_success), else {default} (--success)")
    lost = list(notes)

    def episodes() -> Iterator[Episode]:
        for recorded in dataset.iterate_episodes(wanted):
            metadata = next(iter(dataset.storage.get_episode_metadata([recorded.id])))
            yield _episode(recorded, metadata, header, keys, pictures, reading, lost)

    models = {k: v.encode("utf-8") for k, v in json.loads(own).get("models", {}).items()} if own else {}
    position = {index: i for i, index in enumerate(wanted)}
    masks = {k: tuple(v) for k, v in json.loads(own).get("masks", {}).items()} if own else {}
    masks = {name: tuple(position[i] for i in indices if i in position) for name, indices in masks.items()}
    return Source(header, episodes(), len(wanted), models, masks, lost)


def _seen_keys(first: Mapping[str, np.ndarray], reading: Reading, notes: Assumptions) -> dict[str, str]:
    """Return the stored name of each observation that is seen."""
    unknown = [key for key in (*reading.drop, *reading.rename) if key not in first]
    if unknown:
        raise DatasetError(f"there is no observation {unknown[0]!r}; there are {', '.join(first)}")
    seen: dict[str, str] = {}
    for key, values in first.items():
        name = reading.rename.get(key, key)
        if key in reading.drop or 0 in values.shape[1:]:
            notes.note("not taken", f"observation {key} {values.shape} {values.dtype}")
            continue
        if name in seen:
            raise DatasetError(f"{seen[name]!r} and {key!r} would both be called {name!r}")
        seen[name] = key
    check_keys(tuple(seen))
    return seen


def _pictures(
    first: Mapping[str, np.ndarray], keys: Mapping[str, str], reading: Reading, notes: Assumptions
) -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    span = (reading.depth_range[0], reading.depth_range[1]) if reading.depth_range else None
    for name, key in keys.items():
        values = first[key]
        if values.ndim < 3 or values.dtype.kind not in "fu":
            continue
        bounds = (float(values.min()), float(values.max()))
        whole = bool((values == np.rint(values)).all())
        shape = values.shape[1:]
        picture = picture_of(shape, values.dtype, bounds, layout=reading.picture_layout, depth_range=span, whole=whole)
        if picture is not None:
            found[name] = picture
            if picture.note:
                notes.note("pictures", f"{name}: {picture.note}")
    return found


def _spec(values: np.ndarray, picture: Picture | None) -> ArraySpec:
    return picture.spec if picture else ArraySpec(shape=values.shape[1:] or (1,), dtype=values.dtype.name)


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
            observation_space=_space_of(_nested(header.observation_spec)),
            action_space=gym.spaces.Box(
                np.asarray(action.low, np.float64), np.asarray(action.high, np.float64), dtype=np.float64
            ),
            jpeg_encoding=False,
        )
        models = _texts(source.models, lost)
        own = to_own(header) | {
            "models": models,
            "masks": {name: list(indices) for name, indices in source.masks.items()},
        }
        name = target.removeprefix(MINARI) if target.startswith(MINARI) else folder.name
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
        observations=_nested(obs),
        actions=to_physical(episode.actions, header.action_spec),  # pyright: ignore[reportArgumentType]
        rewards=episode.rewards,  # pyright: ignore[reportArgumentType]
        terminations=episode.terminated,  # pyright: ignore[reportArgumentType]
        truncations=episode.truncated,  # pyright: ignore[reportArgumentType]
        infos={OURS: infos},
    )


def _episode(
    recorded: Any,
    metadata: dict[str, Any],
    header: Header,
    keys: Mapping[str, str],
    pictures: Mapping[str, Picture],
    reading: Reading,
    lost: list[str],
) -> Episode:
    flat = _flatten(recorded.observations)
    infos = recorded.infos or {}
    own = infos.get(OURS, {})
    seen = {OURS, *SUCCESS_NAMES}
    for name, value in flat_keys({k: v for k, v in infos.items() if k not in seen}).items():
        array = np.asarray(value)
        lost.append(f"infos/{name} {array.shape[1:]} {array.dtype} per step, not taken")
    lost += [
        f"attribute {name} of the episodes, not taken"
        for name in metadata
        if name not in {OURS, "seed", "id", "total_steps", "options"}
    ]
    terminated, truncated = (np.asarray(v, bool) for v in (recorded.terminations, recorded.truncations))
    steps = len(recorded.rewards)
    where = f"episode_{recorded.id}"
    if not steps:
        raise DatasetError(f"{where} has no steps; leave it out: --exclude {where}")
    extra: dict[str, Any] = {name: own[name] for name in EXTRA if name in own}
    extra.setdefault("timestamps", np.arange(steps) / header.control_hz)
    if OURS in metadata:
        info = json.loads(_decode(metadata[OURS]))
        extra["events"] = tuple(Event(**event) for event in info.pop("events"))
        known = EpisodeInfo(**info)
    else:
        seed = metadata.get("seed")
        success = _succeeded(infos, reading.success is not False, where)
        known = EpisodeInfo(success=success, seed=-1 if seed is None else int(seed))
    if not (terminated[-1] or truncated[-1]):
        truncated[-1] = True
        lost.append("episodes that Minari does not mark as ended are marked as truncated")
    obs = {
        key: _observation(flat, stored, header.observation_spec[key], pictures.get(key), where)
        for key, stored in keys.items()
    }
    try:
        return Episode(
            info=known,
            obs={key: value[:steps] for key, value in obs.items()},
            final_obs={key: value[steps] for key, value in obs.items()},
            actions=_actions(recorded, own, header.action_spec),
            rewards=np.asarray(recorded.rewards).reshape(steps),
            terminated=terminated,
            truncated=truncated,
            **extra,
        )
    except RobolearnError as error:
        raise DatasetError(f"{where}: {error}; leave it out: --exclude {where}") from None


def _observation(
    flat: Mapping[str, np.ndarray], key: str, spec: ArraySpec, picture: Picture | None, where: str
) -> np.ndarray:
    """Return (T+1, ...) one observation as it is seen."""
    if key not in flat:
        raise DatasetError(f"{where} has no observation {key!r}; leave it out: --exclude {where}")
    values = flat[key] if picture is None else picture.convert(flat[key])
    if values.ndim == 1:
        values = values[:, None]
    if values.shape[1:] != spec.shape:
        raise DatasetError(f"{where}: {key} is {values.shape[1:]}, others are {spec.shape}; --exclude {where}")
    return values.astype(spec.dtype, copy=False)


def _actions(recorded: Any, own: dict[str, Any], spec: ActionSpec) -> np.ndarray:
    """Return (T, A) in [-1, 1]: our own copy to the last bit, unless somebody has changed Minari's since."""
    actions = to_unit(np.asarray(recorded.actions).reshape(len(recorded.rewards), -1), spec)
    return own["actions"] if "actions" in own and np.allclose(own["actions"], actions, atol=1e-6) else actions


def _succeeded(infos: dict[str, Any], default: bool, where: str) -> bool:
    for name in SUCCESS_NAMES:
        if name in infos:
            values = np.asarray(infos[name])
            if values.dtype.kind not in "biuf" or not np.isfinite(values.astype(np.float64)).all():
                raise DatasetError(f"{where}: infos/{name} must hold true, false or numbers, found {values.dtype}")
            return bool((values > 0).any())
    return default


def _header(dataset: Any, wanted: list[int], reading: Reading, notes: Assumptions) -> Header:
    env = dataset.env_spec
    rate = reading.control_hz or _frame_rate(env)
    if rate is None:
        raise DatasetError(
            f"Minari dataset {dataset.id} does not say its control rate; give it as control_hz, for example "
            "--control_hz 20"
        )
    if reading.control_hz:
        notes.note("control_hz", f"{rate:g} Hz, as given; Minari does not say it (--control_hz)")
    else:
        notes.note("control_hz", f"{rate:g} Hz, the environment's render_fps; Minari does not say it (--control_hz)")
    return Header(
        task=dataset.id,
        env_args={"env_name": env.id if env else dataset.id, "type": 2, "env_kwargs": dict(env.kwargs) if env else {}},
        control_hz=rate,
        action_spec=_action_spec(dataset, wanted, reading, notes),
        observation_spec=ObservationSpec({VECTOR_KEY: ArraySpec(shape=(1,))}),
    )


def _action_spec(dataset: Any, wanted: list[int], reading: Reading, notes: Assumptions) -> ActionSpec:
    space = dataset.action_space
    low, high = (np.asarray(getattr(space, side, np.nan), np.float64).reshape(-1) for side in ("low", "high"))
    if not len(low) or np.isnan(low).any():
        raise DatasetError(
            f"Minari dataset {dataset.id}: actions must be a Box, found {space}; discrete actions are not read"
        )
    bounds = reading.bounds(len(low))
    actions = [np.asarray(e.actions, np.float64).reshape(len(e.rewards), -1) for e in dataset.iterate_episodes(wanted)]
    smallest, largest = np.min([a.min(axis=0) for a in actions], 0), np.max([a.max(axis=0) for a in actions], 0)
    if bounds is not None:
        notes.note("limits", f"as given (--limits {' '.join(reading.limits)})")
        low, high = np.asarray(bounds[0]), np.asarray(bounds[1])
    elif reading.limits or not (np.abs((low, high)) < UNBOUNDED).all():
        notes.note("limits", "the range in the data; the action space has none (--limits)")
        return action_limits(smallest, largest)
    over = np.maximum(low - smallest, largest - high)
    if (over > 1e-6 * (high - low)).any():
        i = int(over.argmax())
        raise DatasetError(
            f"Minari dataset {dataset.id}: actions lie outside of {low[i]:g} to {high[i]:g}: action_{i} goes from "
            f"{smallest[i]:g} to {largest[i]:g}; give their physical limits, --limits LOW HIGH or --limits data"
        )
    return ActionSpec(low=tuple(low.tolist()), high=tuple(high.tolist()))


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


def _flatten(observations: Any) -> dict[str, np.ndarray]:
    """Return (T+1, ...) arrays by key; nested dictionaries and tuples are joined by the one rule of `join_key`."""
    if not isinstance(observations, (dict, tuple)):
        values = np.asarray(observations)
        return {PICTURE_KEY if picture_of(values.shape[1:], values.dtype, None) else VECTOR_KEY: values}
    return {key: np.asarray(value) for key, value in flat_keys(_named(observations)).items()}


def _named(tree: Any) -> Any:
    """Return tuples as dictionaries by place."""
    if isinstance(tree, tuple):
        tree = {str(i): part for i, part in enumerate(tree)}
    return {str(name): _named(part) for name, part in tree.items()} if isinstance(tree, dict) else tree


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Undo the joining of keys: {"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *above, name = key.split(KEY_SEPARATOR)
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[name] = value
    return tree


def _space_of(tree: Mapping[str, Any]) -> Any:
    import gymnasium as gym

    return gym.spaces.Dict({k: _space_of(v) if isinstance(v, dict) else _space(v) for k, v in tree.items()})


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
    if not name.startswith(MINARI):
        return Path(name).absolute()
    _minari()
    from minari.storage.datasets_root_dir import get_dataset_path

    return Path(get_dataset_path(name.removeprefix(MINARI)))


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
