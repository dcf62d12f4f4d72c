"""Files and folders that appear whole or not at all, whatever happens while they are written.

After a crash at any instant, or a loss of power, a name shows the old content or the new one, complete and on the disk.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte of `data` at the file's end or raise OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def publish(temporary: Path, final: Path) -> None:
    """Give a finished, synced file its final name. Raises OSError."""
    os.replace(temporary, final)
    sync(final.parent)


@contextmanager
def atomic_file(target: str | Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield the path of a file to write, in the folder of `target` unless given; on success it becomes `target`."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary or target.with_name(f".{target.name}.tmp")
    try:
        yield fresh
        sync(fresh)
        publish(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def write_bytes(target: str | Path, content: bytes, temporary: Path | None = None) -> None:
    """Write (or replace) a file."""
    with atomic_file(target, temporary) as fresh:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(descriptor, content)
        finally:
            os.close(descriptor)


def write_text(target: str | Path, text: str) -> None:
    """Write (or replace) a UTF-8 text file."""
    write_bytes(target, text.encode("utf-8"))


def write_json(target: str | Path, value: Any, **options: Any) -> None:
    """Write (or replace) a JSON file; `options` are those of `json.dumps`."""
    write_text(target, json.dumps(value, **options) + "\n")


def absence(path: str | Path) -> str:
    """Return how a path fails to be there: "does not exist", "is a link to X, which is not there", or a device."""
    target = Path(path)
    if os.path.exists(target):
        return "is neither a file nor a folder"
    return f"is a link to {target.readlink()}, which is not there" if target.is_symlink() else "does not exist"


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` to write into; on success it takes the place of `target` in one step."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.parent / f".{target.name}.{uuid4().hex[:8]}.new"
    fresh.mkdir()
    try:
        yield fresh
        for path in sorted(fresh.rglob("*")):
            sync(path)
        sync(fresh)
        _take_place(fresh, target)
        sync(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _take_place(fresh: Path, target: Path) -> None:
    """Put `fresh` at `target`, and leave what was there at `fresh`."""
    if not target.exists():
        fresh.rename(target)
    elif not _exchange(fresh, target):
        # Without renameat2 (not Linux, or a network file system) there is an instant with no folder in place.
        aside = fresh.with_suffix(".old")
        target.rename(aside)
        fresh.rename(target)
        aside.rename(fresh)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one system call; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
