"""The journal of the episode in progress: append-only records, each with its length and CRC.

    magic | length crc kind payload | length crc kind payload | ...        (little endian: u32, u32, u8)

A step is one record with all of its small values; a large array (an image) is a record that says where its compressed
bytes lie in the half-written shard beside the journal, and their CRC. Whatever the instant of a crash, the records
before the first broken one are good, and a frame counts only where its bytes are.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from robolearn.datasets.recording.durable_files import storage_error
from robolearn.errors import DatasetError
from robolearn.storage import write_all

MAGIC = b"RLJRNL1\n"
_RECORD = struct.Struct("<IIB")
_FRAME = struct.Struct("<IHQII")


class Kind(IntEnum):
    """Kinds of records."""

    HEADER = 1
    """JSON: everything known when the episode began."""
    STEP = 2
    """One row of the step layout; the n-th such record is step n."""
    FRAME = 3
    EVENT = 4
    """JSON: step, time_s, kind, reason."""
    LAYOUT = 5
    """JSON: state_size, before the first step."""


@dataclass(frozen=True)
class Frame:
    """The place of the compressed bytes of one array of one step."""

    step: int
    key: int
    """Index among the keys that are stored as frames."""
    offset: int
    size: int
    crc: int

    def pack(self) -> bytes:
        return _FRAME.pack(self.step, self.key, self.offset, self.size, self.crc)

    @classmethod
    def unpack(cls, payload: bytes) -> Frame:
        step, key, offset, size, crc = _FRAME.unpack(payload)
        return cls(step, key, offset, size, crc)


class Journal:
    """Appends records. One thread appends; `sync` may be called by another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            write_all(self._fd, MAGIC)
        except OSError as error:
            raise storage_error(error, path) from error

    def append(self, *records: tuple[Kind, bytes]) -> None:
        data = b"".join(_RECORD.pack(len(p), zlib.crc32(p, int(k)), int(k)) + p for k, p in records)
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        os.close(self._fd)


def read_journal(path: Path) -> Iterator[tuple[Kind, bytes]]:
    """Return the good records of a journal, in order, up to the first broken one."""
    try:
        with path.open("rb") as file:
            remaining = os.fstat(file.fileno()).st_size - len(MAGIC)
            if file.read(len(MAGIC)) != MAGIC:
                return
            while remaining >= _RECORD.size:
                length, crc, kind = _RECORD.unpack(file.read(_RECORD.size))
                remaining -= _RECORD.size + length
                if remaining < 0:
                    return
                payload = file.read(length)
                if zlib.crc32(payload, kind) != crc or kind not in iter(Kind):
                    return
                yield Kind(kind), payload
    except OSError as error:
        raise DatasetError(f"cannot read the journal {path}: {error.strerror}") from None
