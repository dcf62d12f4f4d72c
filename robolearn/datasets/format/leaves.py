"""Arrays of an episode as other tools write them: nested groups, scalars, pictures of any layout, compressed pictures.

A leaf knows how its rows, as they lie in the file, become rows of the observation that the rest of the library sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.format import checked as safe
from robolearn.errors import DatasetError
from robolearn.picture_layout import FEW, SMALLEST, Picture, picture_of
from robolearn.specs import ArraySpec, join_key

LOOKED_AT = 64
"""Rows whose values tell whether floats are a picture."""
MAX_DEPTH = 16
"""Of groups in groups."""
ENCODED = (b"\xff\xd8\xff", b"\x89PNG")
"""First bytes of a JPEG and of a PNG."""

Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One array with a row for each step."""

    path: str
    """Below the episode's group: `obs/policy/eef_pos`."""
    spec: ArraySpec
    """Of what is seen."""
    raw: tuple[int, ...]
    """Shape of a row in the file; of an encoded picture ()."""
    kind: str
    """dtype kind in the file."""
    convert: Convert | None = None
    """(rows, *raw) -> (rows, *spec.shape); None where rows are seen as they lie there."""
    encoded: bool = False
    """Rows are compressed pictures."""
    swapped: bool = False
    """Encoded pictures were packed with red and blue in each other's place, and are unpacked so."""
    note: str = ""

    @property
    def plain(self) -> bool:
        """Return whether rows are seen as they lie in the file."""
        return self.convert is None and not self.encoded

    def load(self, group: h5py.Group, steps: int) -> np.ndarray:
        """Return (steps, *shape) all rows, checked."""
        data = descend(group, self.path)
        if self.encoded:
            rows = read_encoded(data, steps)
            frames = [decode(row, f"{safe.Place(data)} step {i}", self.swapped) for i, row in enumerate(rows)]
            return self._same_size(frames, safe.Place(data))
        safe.check(data, (steps, *self.raw), self.kind, np.iinfo(np.int64).max)
        with safe.reading(safe.Place(data)):
            return self._seen(data[()])

    def row(self, group: h5py.Group, steps: int, step: int) -> np.ndarray:
        """Return (*shape) one row, read alone."""
        data = descend(group, self.path)
        if self.encoded:
            frame = decode(read_encoded(data, steps)[step], f"{safe.Place(data)} step {step}", self.swapped)
            return self._same_size([frame], safe.Place(data))[0]
        safe.check(data, (steps, *self.raw), self.kind, np.iinfo(np.int64).max)
        with safe.reading(safe.Place(data)):
            return self._seen(np.asarray(data[step])[None])[0]

    def _seen(self, rows: np.ndarray) -> np.ndarray:
        rows = rows if self.convert is None else self.convert(rows)
        return rows.astype(self.spec.dtype, copy=False)

    def _same_size(self, frames: list[np.ndarray], where: str | safe.Place) -> np.ndarray:
        for step, frame in enumerate(frames):
            if frame.shape != self.spec.shape:
                raise DatasetError(f"{where} step {step}: the picture is {frame.shape}, others are {self.spec.shape}")
        return np.stack(frames)


def descend(group: h5py.Group, path: str) -> h5py.Dataset:
    """Return the array at a path of several parts; links are looked at at each. Raises DatasetError by name."""
    *folders, name = path.split("/")
    for folder in folders:
        group = safe.group(group, folder)
    return safe.dataset(group, name)


def walk(group: h5py.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], h5py.Dataset]]:
    """Yield the arrays below a group with their paths, by name."""
    if len(path) > MAX_DEPTH:
        raise DatasetError(f"{safe.Place(group)} lies {MAX_DEPTH} groups deep; groups may not hold themselves")
    for name in safe.names(group):
        child = safe.open_child(group, name)
        if isinstance(child, h5py.Group):
            yield from walk(child, (*path, name))
        elif isinstance(child, h5py.Dataset):
            yield (*path, name), child


def describe(data: h5py.Dataset) -> str:
    """Return shape and dtype for people."""
    text = h5py.check_string_dtype(data.dtype) is not None
    return f"{data.shape} {'text' if text else data.dtype}"


def observation_leaf(
    data: h5py.Dataset, path: str, steps: int, reading: Reading, *, swapped: bool = False
) -> Leaf | str:
    """Return how an observation is read, or why it cannot be taken."""
    shape, kind = data.shape, data.dtype.kind
    if not shape:
        return f"{describe(data)} has no row for each step"
    vector = _encoded_bytes(data)
    if vector and (frame := _first_picture(data, steps)) is not None:
        note = "compressed pictures, decoded" + (" in the order of colours they were packed in" if swapped else "")
        spec = ArraySpec(shape=frame.shape, dtype="uint8")
        return Leaf(path=path, spec=spec, raw=(), kind=kind, encoded=True, swapped=swapped, note=note)
    if kind not in "biuf" or data.dtype.hasobject:
        return f"{describe(data)} holds no numbers"
    row = shape[1:]
    if 0 in row:
        return f"{describe(data)} has no values"
    picture = _picture(data, steps, reading) if len(row) >= 2 else None
    if picture is not None:
        unchanged = picture.spec == ArraySpec(shape=row, dtype=data.dtype.name)
        convert = None if unchanged else picture.convert
        return Leaf(path=path, spec=picture.spec, raw=row, kind=kind, convert=convert, note=picture.note)
    if not row:
        spec = ArraySpec(shape=(1,), dtype=_seen_dtype(data.dtype))
        return Leaf(path=path, spec=spec, raw=row, kind=kind, convert=lambda rows: rows[:, None], note="")
    return Leaf(path=path, spec=ArraySpec(shape=row, dtype=_seen_dtype(data.dtype)), raw=row, kind=kind)


def _seen_dtype(dtype: np.dtype) -> str:
    return "float32" if dtype == np.float16 else np.dtype(dtype.newbyteorder("=")).name


def _picture(data: h5py.Dataset, steps: int, reading: Reading) -> Picture | None:
    row, dtype = data.shape[1:], data.dtype
    bounds, whole = None, True
    maybe = len(row) in (2, 3, 4) and sum(n >= SMALLEST for n in row) >= 2 and min(row) <= max(FEW, SMALLEST) * 1000
    if dtype.kind == "f" and maybe and steps and len(data) > 0:
        with safe.reading(safe.Place(data)):
            some = np.asarray(data[: min(LOOKED_AT, len(data))], np.float64)
        if np.isfinite(some).all():
            bounds, whole = (float(some.min()), float(some.max())), bool((some == np.rint(some)).all())
    span = (reading.depth_range[0], reading.depth_range[1]) if reading.depth_range else None
    return picture_of(row, dtype, bounds, layout=reading.picture_layout, depth_range=span, whole=whole)


def _encoded_bytes(data: h5py.Dataset) -> bool:
    """Return whether rows may be compressed pictures: bytes of fixed or of variable length."""
    variable = h5py.check_vlen_dtype(data.dtype)
    if variable is not None:
        return data.ndim == 1 and np.dtype(variable) == np.uint8
    return (data.ndim == 2 and data.dtype == np.uint8) or (data.ndim == 1 and data.dtype.kind in "VS")


def _first_picture(data: h5py.Dataset, steps: int) -> np.ndarray | None:
    rows = read_encoded(data, steps, first=True) if data.shape and data.shape[0] == steps and steps else []
    return decode(rows[0], safe.Place(data)) if rows and rows[0].startswith(ENCODED) else None


def read_encoded(data: h5py.Dataset, steps: int, *, first: bool = False) -> list[bytes]:
    """Return the bytes of each row (of the first one only), of fixed or variable length."""
    where = safe.Place(data)
    if data.dtype.hasobject:
        safe.check_variable(data)
        if data.shape != (steps,):
            raise DatasetError(f"{where} must have {steps} rows, found shape {data.shape}")
    else:
        safe.check(data, (steps, None)[: data.ndim], "uVS", np.iinfo(np.int64).max)
    with safe.reading(where):
        rows = data[:1] if first else data[()]
        return [row.tobytes() if isinstance(row, (np.ndarray, np.void)) else bytes(row) for row in rows]


def decode(packed: bytes, where: str | safe.Place, swapped: bool = False) -> np.ndarray:
    """Return (height, width, 3) uint8 of a JPEG or PNG, red first, or last where it was packed `swapped`.

    Raises DatasetError where it is none.
    """
    import cv2

    if not packed.startswith(ENCODED):
        raise DatasetError(f"{where}: a picture is no JPEG or PNG")
    frame = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR if swapped else cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise DatasetError(f"{where}: a compressed picture is damaged")
    return np.asarray(frame)


def look(group: h5py.Group) -> str:
    """Return what the arrays of an episode look like, but for their length. Raises DatasetError where it has none."""
    found = {name: data for path, data in walk(group) if not (name := join_key(path)).startswith("next_obs")}
    rows = next((data.shape[0] for name, data in found.items() if name.startswith("action") and data.shape), 0)
    if not rows:
        raise DatasetError("no steps")
    return repr(sorted((name, str(data.dtype), data.shape[1:] if data.shape else None) for name, data in found.items()))
