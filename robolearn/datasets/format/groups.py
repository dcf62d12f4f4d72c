"""One episode's HDF5 group, as written by live recording, whole episodes, repair and conversion alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError

from robolearn.datasets.format.schema import (
    RECORDING,
    SCHEMA,
    SCHEMA_VERSION,
    STEP_ARRAYS,
    Header,
    events_to_array,
    info_to_attrs,
    stored_as_frames,
    text,
)
from robolearn.errors import DatasetError
from robolearn.specs import ArraySpec, EpisodeInfo, Event, ObservationSpec

CHUNK_BYTES = 1 << 20
PACKED = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
"""Small arrays: the checksum makes a flipped bit an error instead of a wrong number."""


def compress(frame: np.ndarray, *, stored: bool = False) -> bytes:
    """Return a zlib stream of one frame, as HDF5's deflate filter reads it; its Adler-32 guards the pixels.

    ISA-L compresses camera frames some 5-9 times as fast as zlib's level 1 and releases the GIL. `stored` only wraps
    the bytes, at the speed of memory, for moments when compressing cannot keep up.
    """
    data = np.ascontiguousarray(frame).reshape(-1).view(np.uint8).data
    return zlib.compress(data, 0) if stored else isal_zlib.compress(data, 1)


def decompress(data: bytes, spec: ArraySpec) -> np.ndarray:
    """Undo `compress`. Raises DatasetError where the bytes are damaged."""
    dtype = np.dtype(spec.dtype)
    size = spec.size * dtype.itemsize
    try:
        inflater = isal_zlib.decompressobj()
        raw = inflater.decompress(data, size + 1)
    except (IsalError, ValueError, OverflowError) as error:  # pyright: ignore[reportGeneralTypeIssues]
        raise DatasetError(f"damaged frame: {error}") from None
    if len(raw) != size or not inflater.eof:
        raise DatasetError(f"damaged frame: expected {size} bytes, found {len(raw)}")
    return np.frombuffer(raw, dtype).reshape(spec.shape)


def coerce(value: Any, spec: ArraySpec, what: str, lead: tuple[int, ...] = ()) -> np.ndarray:
    """Return `value` as a checked array of shape `lead + spec.shape` in the spec's dtype; no lossy change of kind."""
    array, dtype = np.asarray(value), np.dtype(spec.dtype)
    if array.shape != lead + spec.shape:
        raise DatasetError(f"{what} must have shape {lead + spec.shape}, received {array.shape}")
    if array.dtype != dtype and not (array.dtype.kind == dtype.kind and np.can_cast(array.dtype, dtype, "same_kind")):
        raise DatasetError(f"{what} must be {dtype}, received {array.dtype}")
    if dtype.kind in "iu" and array.dtype != dtype and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise DatasetError(f"{what} must fit {dtype}, received {array.min()} to {array.max()}")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{what} is not finite")
    return array.astype(dtype, copy=False)


def write_header(file: h5py.File, header: Header) -> None:
    """Return the root's and `data`'s attributes; `total` is updated as episodes come."""
    file.attrs["schema"] = text(SCHEMA)
    file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
    data = file.require_group("data")
    for name, value in header.to_attrs().items():
        data.attrs[name] = value
    data.attrs["total"] = np.int64(0)


def write_masks(file: h5py.File, masks: Mapping[str, Sequence[str]]) -> None:
    """Replace the filter keys of a file."""
    if "mask" in file:
        del file["mask"]
    if masks:
        group = file.create_group("mask")
        for name, demos in masks.items():
            names = np.array([bytes(text(demo)) for demo in demos], "S" if demos else "S1")
            group.create_dataset(name, data=names, **(PACKED if demos else {}), chunks=bool(demos) or None)


def write_models(file: h5py.File, models: Mapping[str, bytes]) -> None:
    """Add models; one that is already there is left alone."""
    group = file.require_group("models") if models else None
    for name, content in models.items():
        if not name or "/" in name or name in (".", ".."):
            raise DatasetError(f"a model's name must be a plain name (its hash), received {name!r}")
        if group is not None and name not in group:
            pack(group, name, np.frombuffer(content, np.uint8))


def pack(group: h5py.Group, name: str, array: np.ndarray) -> None:
    """Write a small array, in checksummed chunks of about a megabyte."""
    if array.size == 0:
        group.create_dataset(name, data=array)
        return
    rows = max(1, min(len(array), CHUNK_BYTES // max(1, array.nbytes // len(array))))
    group.create_dataset(name, data=array, chunks=(rows, *array.shape[1:]), **PACKED)


def finish_file(file: h5py.File) -> None:
    """Set `total` from the episodes and drop the mark of a recording in progress."""
    data = file["data"]
    assert isinstance(data, h5py.Group)
    data.attrs["total"] = np.int64(sum(int(np.asarray(data[name].attrs["num_samples"])) for name in data))
    file.attrs.pop(RECORDING, None)


class EpisodeGroup:
    """Builds `data/<name>` of an open file: frames as they come, everything else at the end."""

    def __init__(self, file: h5py.File, name: str, spec: ObservationSpec) -> None:
        self.name, self.spec = name, spec
        self._group = file.require_group("data").create_group(name)
        self._obs = self._group.create_group("obs")
        self._final = self._group.create_group("final_obs")
        self._frames = {key: self._create_frames(self._obs, key, 0) for key in frame_keys(spec)}

    def _create_frames(self, group: h5py.Group, key: str, steps: int) -> h5py.Dataset:
        spec = self.spec[key]
        return group.create_dataset(
            key,
            shape=(steps, *spec.shape),
            maxshape=(None, *spec.shape),
            chunks=(1, *spec.shape),
            dtype=spec.dtype,
            compression="gzip",
            compression_opts=1,
        )

    def rename(self, name: str) -> None:
        """Give the group another name; only before `finish`, which links to it by name."""
        self._group.file.move(f"data/{self.name}", f"data/{name}")
        self.name = name

    def add_frame(self, key: str, step: int, data: bytes) -> int:
        """Append compressed bytes as they are; returns where in the file they begin."""
        frames = self._frames[key]
        frames.resize(step + 1, axis=0)
        chunk = (step, *([0] * len(self.spec[key].shape)))
        frames.id.write_direct_chunk(chunk, data)
        return frames.id.get_chunk_info_by_coord(chunk).byte_offset

    def finish(
        self,
        info: EpisodeInfo,
        arrays: Mapping[str, np.ndarray],
        final_obs: Mapping[str, np.ndarray],
        events: Iterable[Event] = (),
    ) -> int:
        """Write everything but the frames; returns the number of steps.

        Args:
            arrays: per-step arrays by their names in the schema (without `dones`), and `obs/<key>` for the keys that
                are not frames; all have T rows. Frames beyond row T are dropped.
            final_obs: (...) per key, checked against the spec already.
        """
        steps = len(arrays["actions"])
        for key, spec in self.spec.items():
            if key in self._frames:
                self._frames[key].resize(steps, axis=0)
                final = self._create_frames(self._final, key, 1)
                final.id.write_direct_chunk((0,) * (1 + len(spec.shape)), compress(final_obs[key]))
            else:
                pack(self._obs, key, arrays[f"obs/{key}"])
                pack(self._final, key, final_obs[key][None])
        dones = (arrays["terminated"] | arrays["truncated"]).astype(np.uint8)
        for name, layout in STEP_ARRAYS.items():
            if name == "dones" or name in arrays:
                pack(self._group, name, dones if name == "dones" else arrays[name].astype(layout.dtype, copy=False))
        records = events_to_array(sorted(events, key=lambda event: event.step))
        if len(records):
            pack(self._group, "events", records)
        link_next_obs(self._group, steps, self.spec)
        for name, value in info_to_attrs(info, steps).items():
            self._group.attrs[name] = value
        return steps


def frame_keys(spec: ObservationSpec) -> tuple[str, ...]:
    """Return the keys stored as frames, in the spec's order."""
    return tuple(key for key, array in spec.items() if stored_as_frames(array))


def link_next_obs(group: h5py.Group, steps: int, spec: ObservationSpec) -> None:
    """Write `next_obs` as a view: rows 1..T-1 of obs, then final_obs. The group must already have its final name."""
    if "next_obs" in group:
        del group["next_obs"]
    views = group.create_group("next_obs")
    for key, array in spec.items():
        layout = h5py.VirtualLayout(shape=(steps, *array.shape), dtype=array.dtype)
        if steps > 1:
            source = h5py.VirtualSource(".", f"{group.name}/obs/{key}", (steps, *array.shape), array.dtype)
            layout[: steps - 1] = source[1:]
        final = h5py.VirtualSource(".", f"{group.name}/final_obs/{key}", (1, *array.shape), array.dtype)
        layout[steps - 1 :] = final[:]
        *above, name = key.split("/")
        place = views.require_group("/".join(above)) if above else views
        place.create_virtual_dataset(name, layout)


def step_dtype(header: Header, state_size: int) -> np.dtype:
    """Return the dtype of the journal's record of a step, frames left out; `states` only where there are any."""
    size = header.action_spec.size
    fields: list[Any] = [
        ("actions", "<f4", (size,)),
        ("rewards", "<f4"),
        ("terminated", "?"),
        ("truncated", "?"),
        ("timestamps", "<f8"),
        ("action_modes", "i1"),
        ("policy_actions", "<f4", (size,)),
        ("expert_actions", "<f4", (size,)),
        ("gate", "<f4"),
    ]
    if state_size:
        fields.append(("states", "<f8", (state_size,)))
    fields += [
        (f"obs/{k}", np.dtype(s.dtype), s.shape) for k, s in header.observation_spec.items() if not stored_as_frames(s)
    ]
    return np.dtype(fields)


def unpack_rows(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Map (T,) step records -> contiguous (T, ...) arrays by name; `gate` only where a gate ran."""
    names = rows.dtype.names or ()
    arrays = {name: np.ascontiguousarray(rows[name]) for name in names}
    if np.isnan(arrays["gate"]).all():
        del arrays["gate"]
    return arrays
