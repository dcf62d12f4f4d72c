"""Reading HDF5 that may be damaged, truncated or hostile.

Every access goes through here: links are looked at before they are followed, shapes and stored sizes are compared
before anything is allocated, and whatever HDF5 throws becomes a DatasetError that names file and place. Nothing that
is missing is ever replaced by fill values.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5t  # pyright: ignore[reportAttributeAccessIssue]

from robolearn.configuration.parts.dataset_names import SUFFIXES
from robolearn.datasets.format.schema import DATA_ATTRS, RECORDING, SCHEMA, SCHEMA_VERSION, Header, demo_number
from robolearn.errors import DatasetError, count, hint
from robolearn.storage import absence

MAX_ARRAY_BYTES = 1 << 30
"""Of one small array of one episode: 1000 float64 values at 50 Hz for 45 minutes."""
MAX_FRAME_BYTES = 1 << 28
MAX_EXPANSION = 1100
"""Deflate cannot expand data by more than a factor of 1032."""
MAX_ATTR_BYTES = 1 << 24
MANY_CHUNKS = 1 << 16
"""From here on their number is compared with the file's size before they are counted."""
HDF5_ERRORS = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    struct.error,
)


class AskedInVain(DatasetError):
    """The caller asked for something that no episode of the file has: the episode is not to blame."""


@contextlib.contextmanager
def reading(place: str | Place) -> Iterator[None]:
    """Turn whatever h5py raises for damaged data into a DatasetError naming the place."""
    try:
        yield
    except PermissionError as error:
        raise DatasetError(f"{place} cannot be read: {os.strerror(error.errno or errno.EACCES)}") from error
    except HDF5_ERRORS as error:
        raise DatasetError(f"{place} is damaged or not what it should be: {_words(error)}") from error


@contextlib.contextmanager
def open_file(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading. Raises DatasetError where it is missing, truncated or no HDF5 file."""
    file = open_hdf5(path)
    try:
        with reading(str(path)):
            yield file
    finally:
        file.close()


def open_hdf5(path: str | Path) -> h5py.File:
    """Open a file as `open_file`; the caller closes."""
    if not os.path.isfile(path):
        folder = os.path.isdir(path)
        remedy = f"; of a folder of ALOHA or Minari make one: {hint('dataset', 'convert', path, 'NEW.hdf5')}"
        raise DatasetError(
            f"{path} {'is a folder' if folder else absence(path)}; expected a dataset file ({', '.join(SUFFIXES)})"
            f"{remedy if folder else ''}"
        )
    with reading(str(path)):
        return h5py.File(path, "r")


def _words(error: BaseException) -> str:
    return str(error.args[0]) if error.args else type(error).__name__


class Place:
    """Where an object lies, in words; they are made when somebody reads them, for that costs as much as the object."""

    def __init__(self, obj: h5py.HLObject, child: str = "") -> None:
        self._obj, self._child = obj, child

    def __str__(self) -> str:
        where = f"{Path(self._obj.file.filename).name}:{self._obj.name}"
        return f"{where.rstrip('/')}/{self._child}" if self._child else where


def attrs(obj: h5py.HLObject) -> dict[str, Any]:
    """Return the attributes, strings decoded; sizes are checked before anything is read."""
    values: dict[str, Any] = {}
    with reading(Place(obj)):
        held = obj.attrs  # asked of the file anew each time otherwise
        for name in held:
            found = h5a.open(obj.id, _bytes(name))
            if found.get_storage_size() > MAX_ATTR_BYTES:
                raise DatasetError(f"{Place(obj)}: the attribute {name} has an absurd size")
            value = _plain_value(found)
            if value is None:
                value = held[name]
            if isinstance(value, bytes):
                value = value.decode("utf-8")
            values[name] = value.item() if isinstance(value, np.generic) else value
    return values


def _plain_value(attribute: h5a.AttrID) -> Any:
    """Return one number, truth value or text of fixed length, in a third of the time that h5py takes; else None."""
    stored = attribute.get_type()
    dtype = stored.dtype
    plain = dtype.kind in "biuf" or (dtype.kind == "S" and stored.get_strpad() == h5t.STR_NULLPAD)
    if not plain or attribute.shape != () or attribute.get_storage_size() != dtype.itemsize:
        return None
    value = np.empty((), dtype)
    attribute.read(value, mtype=stored)  # nothing to convert
    return value[()]


def external_link(parent: h5py.Group, name: str) -> h5py.ExternalLink | None:
    """Return the link `parent[name]` where it names another file; else None. Raises DatasetError if missing."""
    where = Place(parent, name)
    with reading(where):
        links, path = parent.id.links, _bytes(name)
        if not links.exists(path):
            raise DatasetError(f"{where} is missing")
        if links.get_info(path).type != h5l.TYPE_EXTERNAL:
            return None
        file, target = links.get_val(path)
        return h5py.ExternalLink(file.decode("utf-8"), target.decode("utf-8"))


def open_child(parent: h5py.Group, name: str) -> Any:
    """Return the object `parent[name]`, only where it lies in the same file. Raises DatasetError by name."""
    where = Place(parent, name)
    link = external_link(parent, name)
    if link is not None:
        raise DatasetError(f"{where} is a link to another file ({link.filename}), which is not followed")
    with reading(where):
        child = h5o.open(parent.id, _bytes(name))
        if h5o.get_info(child).fileno != h5o.get_info(parent.id).fileno:
            raise DatasetError(f"{where} leads into another file, which is not followed")
        if isinstance(child, h5g.GroupID):
            return h5py.Group(child)
        return h5py.Dataset(child) if isinstance(child, h5d.DatasetID) else parent[name]


def _bytes(name: str) -> bytes:
    """Return a name as HDF5 has it, which may be no text."""
    return name.encode("utf-8", "surrogateescape")


def names(parent: h5py.Group) -> list[str]:
    """Return the names of the children, in order."""
    with reading(Place(parent)):
        return [str(name) for name in parent]


def group(parent: h5py.Group, name: str) -> h5py.Group:
    child = open_child(parent, name)
    if not isinstance(child, h5py.Group):
        raise DatasetError(f"{Place(child)} must be a group, found a {type(child).__name__.lower()}")
    return child


def dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    child = open_child(parent, name)
    if not isinstance(child, h5py.Dataset):
        raise DatasetError(f"{Place(child)} must be a dataset, found a {type(child).__name__.lower()}")
    return child


def check(data: h5py.Dataset, shape: Sequence[int | None], kinds: str, limit: int = MAX_ARRAY_BYTES) -> None:
    """Raise DatasetError unless `data` has this shape (None: any) and dtype kind, and all of its bytes are there."""
    where = Place(data)
    with reading(where):
        found, dtype = data.shape, data.dtype
        if found is None or len(found) != len(shape):
            raise DatasetError(f"{where} must have {count(len(shape), 'dimension')}, found shape {found}")
        if any(want is not None and want != have for want, have in zip(shape, found)):
            raise DatasetError(f"{where} must have shape {_shape(shape)}, found {found}")
        if dtype.kind not in kinds or dtype.hasobject:
            raise DatasetError(f"{where} must hold {_kinds(kinds)}, found {dtype}")
        if math.prod(found) * dtype.itemsize > limit:
            raise DatasetError(f"{where} claims an absurd size: shape {found} of {dtype}")
        _check_stored(data, where)


def _check_stored(data: h5py.Dataset, where: Place) -> None:
    """Raise DatasetError unless all bytes lie in this very file; a hole would read as zeros."""
    how = data.id.get_create_plist()  # once: h5py's own properties ask for it anew each time
    layout = how.get_layout()
    if layout == h5d.VIRTUAL or how.get_external_count():
        raise DatasetError(f"{where} takes its values from elsewhere, which is not followed")
    shape, dtype = data.shape, data.dtype
    if 0 in shape:
        return
    # For each value of variable length the file holds its length, the address of a heap and an index: 4 + address + 4.
    item = 8 + data.file.id.get_create_plist().get_sizes()[0] if dtype.hasobject else dtype.itemsize
    nbytes, stored = math.prod(shape) * item, data.id.get_storage_size()
    if layout != h5d.CHUNKED:
        if stored != nbytes:
            raise DatasetError(f"{where} has {nbytes} bytes, of which {stored} were ever written")
        return
    chunks = how.get_chunk()
    chunk_bytes, expected = math.prod(chunks) * item, math.prod(-(-n // c) for n, c in zip(shape, chunks))
    many = expected > MANY_CHUNKS and expected > os.path.getsize(data.file.filename)
    if chunk_bytes > 4 * MAX_FRAME_BYTES or many:
        raise DatasetError(f"{where} claims chunks of an absurd size or number: {chunks} of {shape}")
    there = data.id.get_num_chunks()
    if there != expected:
        raise DatasetError(f"{where} has {there} of {expected} chunks; the others were never written")
    if expected * chunk_bytes > MAX_EXPANSION * stored + 65536:
        raise DatasetError(f"{where} claims {expected * chunk_bytes} bytes, of which only {stored} are there")


def load(
    data: h5py.Dataset, shape: Sequence[int | None], dtype: str | np.dtype | None = None, kinds: str = "biuf"
) -> np.ndarray:
    """Return the checked values of a small array, cast to `dtype`."""
    check(data, shape, kinds)
    with reading(Place(data)):
        return np.asarray(data[()] if dtype is None else data.astype(dtype)[()])


def check_schema(file: h5py.File) -> None:
    """Raise DatasetError unless the file is ours and of a version we know."""
    found = attrs(file)
    if found.get("schema") != SCHEMA:
        raise DatasetError(
            f"{file.filename} has no schema of ours; convert it: "
            f"{hint('dataset', 'convert', file.filename, 'NEW.hdf5')}"
        )
    if found.get("schema_version") != SCHEMA_VERSION:
        raise DatasetError(
            f"{file.filename} has schema version {found.get('schema_version')}, this program reads {SCHEMA_VERSION}"
        )


def read_header(file: h5py.File) -> Header:
    data = group(file, "data")
    found = attrs(data)
    check_attrs(found, DATA_ATTRS, Place(data))
    return Header.from_attrs(found)


def check_attrs(found: Mapping[str, Any], wanted: Mapping[str, tuple[str, str]], where: str | Place) -> None:
    """Raise DatasetError unless every attribute of a schema's table is there, with its type."""
    for name, (kind, _) in wanted.items():
        if name not in found:
            raise DatasetError(f"{where}: the attribute {name} is missing")
        if type(found[name]) is not {"int64": int, "float64": float, "bool": bool, "str": str}[kind]:
            raise DatasetError(f"{where}: the attribute {name} must be {kind}, found {str(found[name])[:100]!r}")


def demo_names(data: h5py.Group) -> list[str]:
    """Return the names of the episodes, by number."""
    numbers = {name: demo_number(name) for name in names(data)}
    strange = sorted(name for name, number in numbers.items() if number is None)
    if strange:
        raise DatasetError(f"{Place(data)} may hold nothing but demo_<i>, found {strange[:3]}")
    return sorted(numbers, key=lambda name: numbers[name] or 0)


def num_samples(demo: h5py.Group) -> int:
    """Return T of an episode. Raises DatasetError unless it is a positive number."""
    where = Place(demo)
    with reading(where):
        steps = demo.attrs.get("num_samples")
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise DatasetError(f"{where}: the attribute num_samples must be a positive integer, found {steps!r}")
    return int(steps)


def read_masks(file: h5py.File) -> dict[str, tuple[str, ...]]:
    """Read the filter keys and the episodes they name."""
    masks: dict[str, tuple[str, ...]] = {}
    if "mask" in file:
        found = group(file, "mask")
        for name in names(found):
            data = dataset(found, name)
            masks[name] = texts(data) if data.shape != (0,) else ()
    return masks


def has_variable_masks(file: h5py.File) -> bool:
    """Tell whether filter keys are texts of variable length, as h5py writes lists of names."""
    with reading(str(file.filename)):
        found = file.get("mask")
        return isinstance(found, h5py.Group) and any(
            isinstance(data, h5py.Dataset) and data.dtype.hasobject for data in found.values()
        )


def read_models(file: h5py.File) -> dict[str, bytes]:
    if "models" not in file:
        return {}
    found = group(file, "models")
    return {name: load(dataset(found, name), (None,), "uint8", "u").tobytes() for name in names(found)}


def is_recording(path: Path) -> bool:
    """Tell whether `path` is the index of a recording that goes on or was cut off."""
    with open_file(path) as file:
        return RECORDING in file.attrs


def check_variable(data: h5py.Dataset) -> None:
    """Raise DatasetError unless `data` is a list of values of variable length (texts, packed pictures), all there.

    The values themselves lie in a heap without checksums: only of files that `probe.check` has looked at.
    """
    size = data.shape[0] if data.shape and len(data.shape) == 1 else None
    if not data.dtype.hasobject or size is None or size > os.path.getsize(data.file.filename):
        raise DatasetError(f"{Place(data)} must be a list, found {data.dtype} of shape {data.shape}")
    _check_stored(data, Place(data))


def decoded(value: Any) -> Any:
    """Return an attribute or a text as plain Python: bytes decoded, one value out of an array of one, NumPy's scalars
    as Python's. Raises UnicodeDecodeError where bytes are no text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value


def texts(data: h5py.Dataset) -> tuple[str, ...]:
    """Return a list of texts, of fixed or variable length, in one column where there are several dimensions."""
    if data.dtype.hasobject:
        if h5py.check_string_dtype(data.dtype) is None:
            raise DatasetError(f"{Place(data)} must hold texts, found {data.dtype}")
        if data.shape != ():
            check_variable(data)
    else:
        check(data, (None,) * len(data.shape), "S")
    with reading(Place(data)):
        return tuple(str(decoded(value)) for value in np.atleast_1d(np.asarray(data[()], object)).reshape(-1))


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"


def _kinds(kinds: str) -> str:
    words = {
        "b": "booleans",
        "i": "integers",
        "u": "unsigned integers",
        "f": "floats",
        "S": "byte strings",
        "V": "records",
    }
    return " or ".join(words[k] for k in kinds if k in words)
