"""One dataset file, finished or still being recorded, ours or of robomimic's layout, as a store of episodes."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.format import checked as safe, probe
from robolearn.datasets.format.assumptions import Assumptions
from robolearn.datasets.format.foreign import ForeignLayout, final_row
from robolearn.datasets.format.frame_table import FrameTable
from robolearn.datasets.format.leaves import Leaf, descend, look
from robolearn.datasets.format.schema import (
    EPISODE_ATTRS,
    RECORDING,
    STEP_ARRAYS,
    Header,
    event_dtype,
    events_from_array,
    stored_as_frames,
    wrong_value,
)
from robolearn.datasets.format.units import ROUNDING, Rescaling, action_limits, to_physical
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.errors import DatasetError, RobolearnError, option
from robolearn.picture_layout import Picture, picture_of
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, Event, ObservationSpec

OPEN_SHARDS = 32
LOOKED_AT = 9
"""Episodes that are asked what those of a foreign file look like."""
FOREIGN_ARRAYS = ("actions", "rewards", "dones", "states")


class EpisodeFile:
    """Reads episodes by name. Thread-safe; never follows a link out of the file and its own `.parts` folder.

    Args:
        reading: what the file does not say, and what of it is wanted; names and shapes seen from here on are those
            after renaming, dropping and scaling.

    Raises DatasetError where the file is missing, damaged, or lacks what every dataset needs.
    """

    def __init__(self, path: Path, reading: Reading = NOTHING) -> None:
        self.path, self.reading = path, reading
        self.assumptions = Assumptions()
        self._lock = threading.RLock()
        self._tables: dict[tuple[str, str], FrameTable] = {}
        self._shards: OrderedDict[str, h5py.File] = OrderedDict()
        if not probe.is_checksummed(path):
            probe.check(path)
        self._file = safe.open_hdf5(path)
        try:
            with safe.reading(str(path)):
                self.ours = "schema" in self._file.attrs
                if not self.ours or safe.has_variable_masks(self._file):
                    probe.check(path)  # texts of variable length have no checksums
                if self.ours:
                    safe.check_schema(self._file)
                self._data = safe.group(self._file, "data")
                self._all = safe.demo_names(self._data)
                excluded = self.excluded
                self._names = [name for name in self._all if name not in excluded]
                self.masks = safe.read_masks(self._file)
                self._foreign = None if self.ours else self._foreign_layout()
                self.header = self._seen_header()
        except BaseException:
            self.close()
            raise

    @property
    def excluded(self) -> set[str]:
        """The names of this file that `reading.exclude` leaves out."""
        own = {name.rpartition(":")[2] for name in self.reading.exclude if self._means(name.rpartition(":")[0])}
        return own & set(self._all)

    @property
    def all_demos(self) -> tuple[str, ...]:
        """The names of all episodes, also of those that are left out."""
        return tuple(self._all)

    def own_reading(self, reading: Reading) -> Reading:
        """Return the part of a reading of several files that this one can follow."""
        keys = self.all_keys
        return replace(
            reading,
            exclude=tuple(sorted(self.excluded)),
            drop=tuple(key for key in reading.drop if key in keys),
            rename={old: new for old, new in reading.rename.items() if old in keys},
        )

    def _means(self, file: str) -> bool:
        return file in ("", str(self.path), self.path.name)

    def demos(self, filter_key: str | None = None) -> list[str]:
        """Return the names of the episodes, by number; only those of a mask where `filter_key` is given."""
        if filter_key is None:
            return list(self._names)
        if filter_key not in self.masks:
            raise DatasetError(f"{self.path} has no mask {filter_key!r}; it has {sorted(self.masks)}")
        unknown = set(self.masks[filter_key]) - set(self._all)
        if unknown:
            raise DatasetError(
                f"{self.path}: mask/{filter_key} names episodes that are not there: {sorted(unknown)[:3]}"
            )
        wanted = set(self.masks[filter_key])
        return [name for name in self._names if name in wanted]

    def steps(self, demo: str) -> int:
        """Return T of an episode."""
        with self.group(demo) as group:
            return self._steps(group)

    @property
    def hdf5(self) -> h5py.File:
        """The open file itself, for copying what is not ours."""
        return self._file

    @property
    def recording(self) -> bool:
        """True for the index of a recording that goes on or was cut off."""
        return self.ours and RECORDING in self._file.attrs

    @property
    def total(self) -> int | None:
        """The steps that the file claims to have in all."""
        total = safe.attrs(self._data).get("total")
        return total if isinstance(total, int) else None

    def array_names(self, demo: str) -> list[str]:
        """Return the arrays that an episode must and may have, as `check_array` takes them."""
        keys = list(self.header.observation_spec)
        if self._foreign is not None:
            names = ["actions", *(n for n in STEP_ARRAYS if n != "actions" and self._foreign.has(n))]
            names = [n for n in names if n in FOREIGN_ARRAYS]
            folders = ("obs", "next_obs") if self._foreign.has("next_obs") else ("obs",)
        else:
            with self.group(demo) as group:
                names = [n for n, array in STEP_ARRAYS.items() if n in group or not array.optional]
            folders = ("obs", "final_obs")
        return names + [f"{folder}/{key}" for folder in folders for key in keys]

    def check_array(self, demo: str, name: str) -> None:
        """Read a whole array, against its checksums and the schema, a frame at a time. Raises DatasetError."""
        with self.group(demo) as group:
            steps = self._steps(group)
            folder, _, key = name.partition("/")
            if self._foreign is not None or not key or not stored_as_frames(self._lies[key]):
                if key and folder != "obs":
                    self._final(group, key, steps)
                else:
                    self._array(group, name, steps)
                return
            leaf, data = self._lies[key], descend(group, f"{folder}/{self._stored[key]}")
            rows = 1 if folder == "final_obs" else steps
            safe.check(data, (rows, *leaf.shape), np.dtype(leaf.dtype).kind, np.iinfo(np.int64).max)
            table = FrameTable.of(data, leaf)
            for row in range(rows):
                with safe.reading(f"{safe.Place(data)} step {row}"):
                    _ = data[row] if table is None else table.read(row)

    def info(self, demo: str) -> EpisodeInfo:
        with self.group(demo) as group:
            return self._info(group)

    def summary(self, demo: str) -> tuple[EpisodeInfo, int]:
        """Return what is known about an episode and its T, at the price of one look."""
        with self.group(demo) as group:
            return self._info(group), self._steps(group)

    def events(self, demo: str) -> tuple[Event, ...]:
        with self.group(demo) as group:
            return self._events(group)

    def models(self) -> dict[str, bytes]:
        """Return the MJCF files by name."""
        with self._lock, safe.reading(str(self.path)):
            if "models" not in self._file:
                return {}
            models = safe.group(self._file, "models")
            found: dict[str, bytes] = {}
            for name in safe.names(models):
                with self.follow(models, name) as data:
                    if not isinstance(data, h5py.Dataset):
                        raise DatasetError(f"{self.path}: models/{name} must be a dataset")
                    found[name] = safe.load(data, (None,), "uint8", "u").tobytes()
            return found

    def arrays(self, demo: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return (T, ...) arrays by their names in our schema; each must be there, or follow from an assumption."""
        with self.group(demo) as group:
            steps = self._steps(group)
            return {name: self._array(group, name, steps) for name in names}

    def frame(self, demo: str, key: str, step: int) -> np.ndarray:
        """Return (...) one observation of one step; without the lock, once the addresses of the frames are known."""
        table = self._tables.get((demo, key))
        if table is not None and 0 <= step < len(table.offsets):
            return table.read(step)
        with self.group(demo) as group:
            steps, spec = self._steps(group), self._spec(key)
            if not 0 <= step < steps:
                raise DatasetError(f"{safe.Place(group)}/obs/{key} has steps 0 to {steps - 1}, asked for {step}")
            if self._foreign is not None and not self._leaf(key).plain:
                return self._leaf(key).row(group, steps, step)
            if self._stored[key] in self._depth:
                return self._array(group, f"obs/{key}", steps)[step]
            data = descend(group, f"obs/{self._stored[key]}" if self._foreign is None else self._leaf(key).path)
            safe.check(data, (steps, *spec.shape), np.dtype(spec.dtype).kind, np.iinfo(np.int64).max)
            # A shard may be closed to make room for another one; only the file itself stays open with its table.
            fd = self._file.id.get_vfd_handle() if data.file == self._file else None
            table = FrameTable.of(data, spec, fd)
            if table is None:
                return np.asarray(data[step]).astype(spec.dtype, copy=False)
        self._tables[demo, key] = table
        return table.read(step)

    def read(self, demo: str, keys: Sequence[str]) -> Episode:
        """Read a whole, checked episode."""
        with self.group(demo) as group:
            steps = self._steps(group)
            info = self._info(group)
            arrays: dict[str, Any] = {"events": self._events(group)}
            if self._foreign is not None:
                final = {key: self._final(group, key, steps) for key in keys}
                arrays |= self._foreign.flags(group, steps, info.success, self.header.control_hz)
                names = ["actions", "states"] if self._foreign.has("states") else ["actions"]
            else:
                names = [n for n, a in STEP_ARRAYS.items() if n != "dones" and (n in group or not a.optional)]
            arrays |= {name: self._array(group, name, steps) for name in names}
            obs = {key: self._array(group, f"obs/{key}", steps) for key in keys}
            if self._foreign is None:
                final = {key: self._final(group, key, steps) for key in keys}
            try:
                return Episode(info=info, obs=obs, final_obs=final, **arrays)
            except RobolearnError as error:
                raise DatasetError(f"{safe.Place(group)}: {error}") from None

    @property
    def has_next_obs(self) -> bool:
        """Return whether the observation after the last action is in the file."""
        return self._foreign is None or self._foreign.has("next_obs")

    def scales_badly(self, demo: str) -> bool:
        """Return whether actions of an episode lie outside of their limits, which is a fault of the whole file."""
        actions = self.arrays(demo, ["actions"])["actions"]
        return bool(np.isfinite(actions).all() and (np.abs(actions) > 1.0 + ROUNDING).any())

    def read_without_last(self, demo: str, keys: Sequence[str]) -> Episode:
        """Read a whole episode of a file without next_obs, its last observation in the place of the final one."""
        assert self._foreign is not None
        names = ["actions", "rewards", "terminated", "truncated", "timestamps"]
        names += ["states"] if self._foreign.has("states") else []
        with self.group(demo) as group:
            info, steps = self._info(group), self._steps(group)
            arrays: dict[str, Any] = {name: self._array(group, name, steps) for name in names}
            obs = {key: self._array(group, f"obs/{key}", steps) for key in keys}
            if not self._foreign.has("rewards"):
                arrays["rewards"][-2] = arrays["rewards"][-1]  # assumed ones belong to the last step that is kept
            terminated = arrays["terminated"].copy()
            stated = self._foreign.has("dones") or self._foreign.has("terminated")
            terminated[-2] |= terminated[-1] and not stated
            arrays |= {"terminated": terminated, "truncated": arrays["truncated"].copy()}
            arrays = {name: value[:-1] for name, value in arrays.items()}
            arrays["truncated"][-1] = not arrays["terminated"][-1]
            try:
                return Episode(
                    info=info,
                    obs={key: value[:-1] for key, value in obs.items()},
                    final_obs={key: value[-1] for key, value in obs.items()},
                    **arrays,
                )
            except RobolearnError as error:
                raise DatasetError(f"{safe.Place(group)}: {error}") from None

    @contextlib.contextmanager
    def group(self, demo: str) -> Iterator[h5py.Group]:
        """Return the episode's group, wherever it lies, valid inside the block."""
        with self._lock, self.follow(self._data, demo) as found:
            if not isinstance(found, h5py.Group):
                raise DatasetError(f"{self.path}: data/{demo} must be a group")
            try:
                with safe.reading(safe.Place(found)):
                    yield found
            except safe.AskedInVain:
                raise
            except DatasetError as error:
                if "--exclude" in str(error):
                    raise
                raise DatasetError(f"{error}; leave the episode out: {option('exclude', demo)}") from None

    def close(self) -> None:
        with self._lock:
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()
            self._tables.clear()
            self._file.close()

    @contextlib.contextmanager
    def follow(self, parent: h5py.Group, name: str) -> Iterator[h5py.Group | h5py.Dataset]:
        """Open a child, also through the one kind of external link that is followed: a recording's own shard."""
        link = safe.external_link(parent, name)
        if link is None:
            yield safe.open_child(parent, name)
            return
        parts = parts_of(self.path.resolve())
        folder, _, shard = link.filename.rpartition("/")
        if folder != parts.name or shard in ("", ".", "..") or (parts / shard).is_symlink():
            raise DatasetError(f"{self.path}: {name} is a link to {link.filename}, which is outside of {parts.name}")
        if link.path != f"{parent.name}/{name}":
            raise DatasetError(f"{self.path}: {name} is a link to another object ({link.path}), which is not followed")
        target = self._shard(parts / shard)
        yield safe.open_child(safe.group(target, str(parent.name).strip("/")), name)

    def _shard(self, path: Path) -> h5py.File:
        shard = self._shards.pop(path.name, None)
        if shard is None:
            if not path.exists():
                raise DatasetError(
                    f"{self.path} is a recording in progress and its part {path} is missing; keep the folder "
                    f"{path.parent.name} beside it, and finish it with `robolearn dataset repair`"
                )
            shard = safe.open_hdf5(path)
        self._shards[path.name] = shard
        while len(self._shards) > OPEN_SHARDS:
            self._shards.popitem(last=False)[1].close()
        return shard

    def _foreign_layout(self) -> ForeignLayout:
        if not self._names:
            raise DatasetError(f"{self.path} has no episodes, so that its specs cannot be told")
        with self.group(self._typical()) as first:
            layout = ForeignLayout(self._data, first, self.path, self.reading)
        self.assumptions = layout.assumptions
        return layout

    def _typical(self) -> str:
        """Return an episode that looks like most: a single bad one must not decide what the others should be."""
        some = self._names[:: max(1, len(self._names) // LOOKED_AT)][:LOOKED_AT]
        looks: dict[str, str] = {}
        for name in some:
            with contextlib.suppress(DatasetError), self.group(name) as group:
                looks[name] = look(group)
        if not looks:
            return self._names[0]
        common = Counter(looks.values()).most_common(1)[0][0]
        return next(name for name, look in looks.items() if look == common)

    def _seen_header(self) -> Header:
        """Return the header after dropping and renaming observations and scaling actions."""
        header = safe.read_header(self._file) if self._foreign is None else self._foreign.header
        self.header = header
        keys = self._named_keys(tuple(header.observation_spec))
        self._depth = self._scaled_depth(header.observation_spec) if self.ours else {}
        self._stored, self._all_keys = keys, set(header.observation_spec)
        seen = dict(header.observation_spec) | {key: picture.spec for key, picture in self._depth.items()}
        spec = ObservationSpec({key: seen[stored] for key, stored in keys.items()})
        self._lies = {key: header.observation_spec[stored] for key, stored in keys.items()}
        limits = self._limits(header)
        self._rescaling = Rescaling(header.action_spec, limits)
        if self.reading.control_hz is not None and not np.isclose(header.control_hz, self.reading.control_hz):
            raise DatasetError(
                f"{self.path} says that its control rate is {header.control_hz:g} Hz; drop --control_hz "
                f"{self.reading.control_hz:g}"
            )
        return replace(header, observation_spec=spec, action_spec=limits)

    def _scaled_depth(self, spec: ObservationSpec) -> dict[str, Picture]:
        """Return how depth pictures in a file of ours become pictures of 8 bits, by their names in the file."""
        if not self.reading.depth_range:
            return {}
        low, high = self.reading.depth_range
        found: dict[str, Picture] = {}
        for key, array in spec.items():
            picture = picture_of(array.shape, np.dtype(array.dtype), None, layout="hwc", depth_range=(low, high))
            if picture is not None and array.dtype != "uint8":
                found[key] = picture
                self.assumptions.note("pictures", f"obs/{key}: {picture.note}")
        return found

    def _named_keys(self, keys: tuple[str, ...]) -> dict[str, str]:
        """Return the stored name of each key that is seen. Raises DatasetError where names fall together."""
        rename = {old: new for old, new in self.reading.rename.items() if old in keys}
        drop = set(self.reading.drop) & set(keys)
        seen: dict[str, str] = {}
        for key in keys:
            name = rename.get(key, key)
            if key in drop:
                continue
            if name in seen:
                raise DatasetError(f"{self.path}: {seen[name]!r} and {key!r} would both be called {name!r}")
            seen[name] = key
        if not seen:
            raise DatasetError(f"{self.path}: every observation is dropped; a dataset needs at least one")
        for topic, what in (("renamed", rename), ("dropped", drop)):
            if what:
                words = [f"{k} to {v}" for k, v in rename.items()] if what is rename else sorted(drop)
                self.assumptions.note("observations", f"{topic}: {', '.join(words)}")
        return seen

    def _limits(self, header: Header) -> ActionSpec:
        """Return the action limits that are asked for, else the file's own."""
        own, bounds = header.action_spec, self.reading.bounds(header.action_spec.size)
        if bounds is not None:
            self.assumptions.note("limits", f"as given (--limits {' '.join(self.reading.limits)})")
            return ActionSpec(low=bounds[0], high=bounds[1], names=own.names)
        if self.reading.limits:
            self.assumptions.note("limits", "the range in the data (--limits data)")
            return self._range_of_data(own)
        return own

    def _range_of_data(self, own: ActionSpec) -> ActionSpec:
        low, high = np.full(own.size, np.inf), np.full(own.size, -np.inf)
        for demo in self._names:
            with self.group(demo) as group:
                actions = to_physical(self._stored_actions(group, "actions", self._steps(group)), own)
            if not np.isfinite(actions).all():
                raise DatasetError(
                    f"{self.path}: actions of {demo} are not finite; leave it out: {option('exclude', demo)}"
                )
            low, high = np.minimum(low, actions.min(axis=0)), np.maximum(high, actions.max(axis=0))
        return action_limits(low, high, own.names)

    def _steps(self, group: h5py.Group) -> int:
        return safe.num_samples(group) if self._foreign is None else self._foreign.steps(group)

    def _info(self, group: h5py.Group) -> EpisodeInfo:
        if self._foreign is not None:
            return self._foreign.info(group)
        found = safe.attrs(group)
        safe.check_attrs(found, EPISODE_ATTRS, safe.Place(group))
        for name in EPISODE_ATTRS:
            if wrong := wrong_value(name, found[name]):
                raise DatasetError(f"{safe.Place(group)}: {name} {wrong}, found {found[name]!r}")
        return EpisodeInfo(**{n: found[n] for n in EPISODE_ATTRS if n != "num_samples"})

    def _events(self, group: h5py.Group) -> tuple[Event, ...]:
        if not self.ours or "events" not in group:
            return ()
        data = safe.dataset(group, "events")
        wanted = event_dtype()
        with safe.reading(safe.Place(data)):
            have = data.dtype.names
            if have != wanted.names or any(data.dtype[n].kind != wanted[n].kind for n in have or ()):
                raise DatasetError(f"{safe.Place(data)} must hold records of {wanted.names}, found {data.dtype}")
            return events_from_array(safe.load(data, (None,), kinds="V"))

    def _array(self, group: h5py.Group, name: str, steps: int) -> np.ndarray:
        """Return (steps, ...) one per-step array, cast to the schema's dtype."""
        folder, _, key = name.partition("/")
        if key:
            if folder != "obs":
                raise safe.AskedInVain(f"unknown array {name!r}; expected obs/<key> or one of {', '.join(STEP_ARRAYS)}")
            self._spec(key)
            if self._foreign is not None and not self._leaf(key).plain:
                return self._leaf(key).load(group, steps)
            path = f"obs/{self._stored[key]}" if self._foreign is None else self._leaf(key).path
            return self._of_ours(key, descend(group, path), steps)
        layout = STEP_ARRAYS.get(name)
        if layout is None:
            raise safe.AskedInVain(f"unknown array {name!r}; expected obs/<key> or one of {', '.join(STEP_ARRAYS)}")
        if name in ("actions", "policy_actions", "expert_actions"):
            return self._rescaling(self._stored_actions(group, name, steps))
        return self._plain_array(group, name, steps)

    def _stored_actions(self, group: h5py.Group, name: str, steps: int) -> np.ndarray:
        """Return (steps, A) actions in the limits of the file."""
        if self._foreign is None or name != "actions":
            return self._plain_array(group, name, steps)
        return self._foreign.raw_actions(group, steps)

    def _plain_array(self, group: h5py.Group, name: str, steps: int) -> np.ndarray:
        layout = STEP_ARRAYS[name]
        if self._foreign is not None:
            return self._foreign.array(group, name, steps).astype(layout.dtype, copy=False)
        if layout.optional and name not in group:
            raise safe.AskedInVain(f"{safe.Place(group)}/{name} is missing")
        size = {"T": (), "T,A": (self.header.action_spec.size,), "T,S": (None,)}[layout.dims]
        kinds = np.dtype(layout.dtype).kind
        return safe.load(safe.dataset(group, name), (steps, *size), kinds=kinds).astype(layout.dtype, copy=False)

    def _of_ours(self, key: str, data: h5py.Dataset, rows: int) -> np.ndarray:
        """Return (rows, ...) an observation that lies in the file as it is seen, but for the scale of depth."""
        values = self._observation(data, self._lies[key], rows)
        depth = self._depth.get(self._stored[key])
        return values if depth is None else depth.convert(values)

    def _observation(self, data: h5py.Dataset, spec: ArraySpec, steps: int) -> np.ndarray:
        kind = np.dtype(spec.dtype).kind
        if not stored_as_frames(spec):
            return safe.load(data, (steps, *spec.shape), kinds=kind).astype(spec.dtype, copy=False)
        safe.check(data, (steps, *spec.shape), kind, np.iinfo(np.int64).max)
        with safe.reading(safe.Place(data)):
            table = FrameTable.of(data, spec)
            if table is None:
                return data[()].astype(spec.dtype, copy=False)
            frames = np.empty((steps, *spec.shape), spec.dtype)
            for step in range(steps):
                frames[step] = table.read(step)
            return frames

    def _final(self, group: h5py.Group, key: str, steps: int) -> np.ndarray:
        """Return (...) the observation after the last action."""
        if self._foreign is not None:
            return final_row(group, self._leaf(key), steps)
        return self._of_ours(key, descend(group, f"final_obs/{self._stored[key]}"), 1)[0]

    def _leaf(self, key: str) -> Leaf:
        assert self._foreign is not None
        return self._foreign.leaves[self._stored[key]]

    @property
    def stored_keys(self) -> dict[str, str]:
        """The name in the file of each observation that is seen."""
        return dict(self._stored)

    @property
    def all_keys(self) -> set[str]:
        """The names in the file of all observations."""
        return self._all_keys

    @property
    def taken(self) -> set[str]:
        """Paths below an episode's group of all that is read."""
        if self._foreign is None:
            keys = {f"{f}/{k}" for f in ("obs", "final_obs", "next_obs") for k in self._stored.values()}
            return {*STEP_ARRAYS, "events", *keys}
        return self._foreign.taken(self._stored.values())

    def _spec(self, key: str) -> ArraySpec:
        if key not in self.header.observation_spec:
            raise safe.AskedInVain(
                f"{self.path} has no observation {key!r}; it has {list(self.header.observation_spec)}"
            )
        return self.header.observation_spec[key]


def check_choice(files: Sequence[EpisodeFile], reading: Reading) -> None:
    """Raise DatasetError where an episode or an observation that is to be left out or renamed is in no file."""
    paths = ", ".join(str(file.path) for file in files)
    if reading.actions and (own := next((file.path for file in files if file.ours), None)):
        raise DatasetError(
            f"{own} is of our own format, whose actions are those executed: leave --actions out (to learn from labels, "
            "train --target labels)"
        )
    excluded = set().union(*(file.excluded for file in files))
    if missing := [name for name in reading.exclude if name.rpartition(":")[2] not in excluded]:
        raise DatasetError(f"exclude names episodes that are not there: {', '.join(missing)}, in {paths}")
    keys = set().union(*(file.all_keys for file in files))
    asked = [*reading.drop, *(old for old, new in reading.rename.items() if new not in keys)]
    if missing := [name for name in asked if name not in keys]:
        raise DatasetError(f"{paths} has no observation {missing[0]!r}; it has {', '.join(sorted(keys))}")
