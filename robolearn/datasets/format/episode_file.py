"""One dataset file, finished or still being recorded, ours or of robomimic's layout, as a store of episodes."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe, probe, unstated as foreign
from robolearn.datasets.format.frame_table import FrameTable
from robolearn.datasets.format.schema import (
    EPISODE_ATTRS,
    RECORDING,
    STEP_ARRAYS,
    event_dtype,
    events_from_array,
    stored_as_frames,
)
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.errors import DatasetError, RobolearnError
from robolearn.specs import ArraySpec, Episode, EpisodeInfo, Event

OPEN_SHARDS = 32


class EpisodeFile:
    """Reads episodes by name. Thread-safe; never follows a link out of the file and its own `.parts` folder.

    Raises DatasetError where the file is missing, damaged, or lacks what every dataset needs.
    """

    def __init__(self, path: Path, control_hz: float | None = None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._tables: dict[tuple[str, str], FrameTable] = {}
        self._shards: OrderedDict[str, h5py.File] = OrderedDict()
        if not probe.is_checksummed(path):
            probe.check(path)
        self._file = safe.open_hdf5(path)
        try:
            with safe.reading(str(path)):
                self.ours = "schema" in self._file.attrs
                if self.ours:
                    safe.check_schema(self._file)
                self._data = safe.group(self._file, "data")
                self._names = safe.demo_names(self._data)
                self.masks = safe.read_masks(self._file)
                self.header = safe.read_header(self._file) if self.ours else self._foreign_header(control_hz)
        except BaseException:
            self.close()
            raise

    def demos(self, filter_key: str | None = None) -> list[str]:
        """Return the names of the episodes, by number; only those of a mask where `filter_key` is given."""
        if filter_key is None:
            return list(self._names)
        if filter_key not in self.masks:
            raise DatasetError(f"{self.path} has no mask {filter_key!r}; it has {sorted(self.masks)}")
        unknown = set(self.masks[filter_key]) - set(self._names)
        if unknown:
            raise DatasetError(
                f"{self.path}: mask/{filter_key} names episodes that are not there: {sorted(unknown)[:3]}"
            )
        wanted = set(self.masks[filter_key])
        return [name for name in self._names if name in wanted]

    def steps(self, demo: str) -> int:
        """Return T of an episode."""
        with self.group(demo) as group:
            return safe.num_samples(group)

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
        with self.group(demo) as group:
            names = [n for n, array in STEP_ARRAYS.items() if n in group or (self.ours and not array.optional)]
            folders = ("obs", "final_obs") if self.ours else ("obs", "next_obs") if "next_obs" in group else ("obs",)
            return names + [f"{folder}/{key}" for folder in folders for key in self.header.observation_spec]

    def check_array(self, demo: str, name: str) -> None:
        """Read a whole array, against its checksums and the schema, a frame at a time. Raises DatasetError."""
        with self.group(demo) as group:
            steps = safe.num_samples(group)
            folder, _, key = name.rpartition("/")
            if not folder or not stored_as_frames(self._spec(key)):
                self._array(group, name, 1 if folder == "final_obs" else steps)
                return
            spec, data = self._spec(key), safe.dataset(safe.group(group, folder), key)
            rows = 1 if folder == "final_obs" else steps
            safe.check(data, (rows, *spec.shape), np.dtype(spec.dtype).kind, np.iinfo(np.int64).max)
            table = FrameTable.of(data, spec)
            for row in range(rows):
                with safe.reading(f"{safe.place(data)} step {row}"):
                    _ = data[row] if table is None else table.read(row)

    def info(self, demo: str) -> EpisodeInfo:
        with self.group(demo) as group:
            return self._info(group)

    def summary(self, demo: str) -> tuple[EpisodeInfo, int]:
        """Return what is known about an episode and its T, at the price of one look."""
        with self.group(demo) as group:
            return self._info(group), safe.num_samples(group)

    def events(self, demo: str) -> tuple[Event, ...]:
        with self.group(demo) as group:
            return self._events(group)

    def interrupted(self, demo: str) -> bool:
        """Tell whether the episode was recovered from a recording that was cut off."""
        with self.group(demo) as group:
            return bool(safe.attrs(group).get("interrupted", False))

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
        """Return (T, ...) arrays by their names in the file; each must be there."""
        with self.group(demo) as group:
            steps = safe.num_samples(group)
            return {name: self._array(group, name, steps) for name in names}

    def frame(self, demo: str, key: str, step: int) -> np.ndarray:
        """Return (...) one observation of one step; without the lock, once the addresses of the frames are known."""
        table = self._tables.get((demo, key))
        if table is not None and 0 <= step < len(table.offsets):
            return table.read(step)
        with self.group(demo) as group:
            steps, spec = safe.num_samples(group), self._spec(key)
            data = safe.dataset(safe.group(group, "obs"), key)
            safe.check(data, (steps, *spec.shape), np.dtype(spec.dtype).kind, np.iinfo(np.int64).max)
            if not 0 <= step < steps:
                raise DatasetError(f"{safe.place(data)} has steps 0 to {steps - 1}, asked for {step}")
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
            steps = safe.num_samples(group)
            names = [n for n, a in STEP_ARRAYS.items() if n != "dones" and (n in group or not a.optional)]
            if not self.ours:
                names = [name for name in names if name in group]
            arrays = {name: self._array(group, name, steps) for name in names}
            obs = {key: self._array(group, f"obs/{key}", steps) for key in keys}
            final = {key: self._final(group, key, steps) for key in keys}
            if not self.ours:
                arrays |= foreign.missing_arrays(group, arrays, steps, self.header.control_hz)
            info, events = self._info(group), self._events(group)
            where = safe.place(group)
        try:
            return Episode(info=info, obs=obs, final_obs=final, events=events, **arrays)
        except RobolearnError as error:
            raise DatasetError(f"{where}: {error}") from None

    @contextlib.contextmanager
    def group(self, demo: str) -> Iterator[h5py.Group]:
        """Return the episode's group, wherever it lies, valid inside the block."""
        with self._lock, self.follow(self._data, demo) as found:
            if not isinstance(found, h5py.Group):
                raise DatasetError(f"{self.path}: data/{demo} must be a group")
            with safe.reading(safe.place(found)):
                yield found

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
        with safe.reading(f"{self.path}:{name}"):
            link = parent.get(name, getlink=True)
        if not isinstance(link, h5py.ExternalLink):
            yield safe.open_child(parent, name)
            return
        parts = parts_of(self.path.resolve())
        folder, _, shard = str(link.filename).rpartition("/")
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

    def _foreign_header(self, control_hz: float | None) -> foreign.Header:
        if not self._names:
            raise DatasetError(f"{self.path} has no episodes, so that its specs cannot be told")
        with self.group(self._names[0]) as first:
            return foreign.derive_header(self._data, first, self.path, control_hz)

    def _info(self, group: h5py.Group) -> EpisodeInfo:
        found = safe.attrs(group)
        if not self.ours:
            return foreign.derive_info(group, found)
        safe.check_attrs(found, EPISODE_ATTRS, safe.place(group))
        if found["source"] not in ("demo", "dagger", "rl"):
            raise DatasetError(f"{safe.place(group)}: source must be demo, dagger or rl, found {found['source']!r}")
        return EpisodeInfo(**{n: found[n] for n in EPISODE_ATTRS if n not in ("num_samples", "interrupted")})

    def _events(self, group: h5py.Group) -> tuple[Event, ...]:
        if not self.ours or "events" not in group:
            return ()
        data = safe.dataset(group, "events")
        wanted = event_dtype()
        with safe.reading(safe.place(data)):
            have = data.dtype.names
            if have != wanted.names or any(data.dtype[n].kind != wanted[n].kind for n in have or ()):
                raise DatasetError(f"{safe.place(data)} must hold records of {wanted.names}, found {data.dtype}")
            return events_from_array(safe.load(data, (None,), kinds="V"))

    def _array(self, group: h5py.Group, name: str, steps: int) -> np.ndarray:
        """Return (steps, ...) one per-step array, cast to the schema's dtype."""
        folder, _, key = name.rpartition("/")
        if folder:
            spec = self._spec(key)
            parent = safe.group(group, folder)
            return self._observation(safe.dataset(parent, key), spec, steps)
        layout = STEP_ARRAYS.get(name)
        if layout is None:
            raise DatasetError(f"unknown array {name!r}; expected obs/<key> or one of {', '.join(STEP_ARRAYS)}")
        if layout.optional and name not in group:
            raise DatasetError(f"{safe.place(group)}/{name} is missing")
        size = {"T": (), "T,A": (self.header.action_spec.size,), "T,S": (None,)}[layout.dims]
        kinds = {"f": "fiu", "i": "iu", "u": "biuf", "b": "biu"}[np.dtype(layout.dtype).kind]
        if self.ours:
            kinds = np.dtype(layout.dtype).kind
        return safe.load(safe.dataset(group, name), (steps, *size), kinds=kinds).astype(layout.dtype, copy=False)

    def _observation(self, data: h5py.Dataset, spec: ArraySpec, steps: int) -> np.ndarray:
        kind = np.dtype(spec.dtype).kind
        if not stored_as_frames(spec):
            return safe.load(data, (steps, *spec.shape), kinds=kind).astype(spec.dtype, copy=False)
        safe.check(data, (steps, *spec.shape), kind, np.iinfo(np.int64).max)
        with safe.reading(safe.place(data)):
            table = FrameTable.of(data, spec)
            if table is None:
                return data[()].astype(spec.dtype, copy=False)
            frames = np.empty((steps, *spec.shape), spec.dtype)
            for step in range(steps):
                frames[step] = table.read(step)
            return frames

    def _final(self, group: h5py.Group, key: str, steps: int) -> np.ndarray:
        """Return (...) the observation after the last action."""
        if not self.ours:
            return foreign.final_observation(group, key, self._spec(key), steps)
        return self._observation(safe.dataset(safe.group(group, "final_obs"), key), self._spec(key), 1)[0]

    def _spec(self, key: str) -> ArraySpec:
        if key not in self.header.observation_spec:
            raise DatasetError(f"{self.path} has no observation {key!r}; it has {list(self.header.observation_spec)}")
        return self.header.observation_spec[key]
