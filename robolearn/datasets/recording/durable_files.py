"""HDF5 files that survive a crash: a file that HDF5 writes through, errors in words, and a lock per dataset."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py

from robolearn import storage
from robolearn.datasets.format.schema import LIBVER
from robolearn.errors import DatasetError, hint

OVERLAY_BYTES = 65536
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def parts_of(path: Path) -> Path:
    """Return the folder beside `path` that holds what a recording has committed so far, and its journal."""
    return path.with_name(path.name + ".parts")


def check_no_recording(output: Path) -> None:
    """Raise DatasetError where an interrupted recording has that name."""
    if parts_of(output).exists():
        raise DatasetError(
            f"{parts_of(output)} holds an interrupted recording of that name; choose another, or run "
            f"`{hint('dataset', 'repair', output)}` first"
        )


def storage_error(error: OSError, path: Path) -> DatasetError:
    """Put a failed write into words. What was committed before is safe whatever happens here."""
    if error.errno in FULL and not (parts_of(path).exists() or path.parent.name.endswith(".parts")):
        return DatasetError(
            f"no space left while writing {path} ({error.strerror}); free some space and run the same again"
        )
    if error.errno in FULL:
        return DatasetError(
            f"no space left while writing {path} ({error.strerror}). Committed episodes are safe; free some space and "
            f"run `robolearn dataset repair` on the dataset to recover the episode in progress"
        )
    return DatasetError(f"cannot write {path}: {error.strerror or error}")


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn an OSError while `path` is written into a DatasetError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def publish(temporary: Path, final: Path) -> None:
    """Give a finished, synced file its final name, as `robolearn.storage.publish`. Raises DatasetError."""
    with in_words(final):
        storage.publish(temporary, final)


def publish_bytes(data: bytes, temporary: Path, final: Path) -> None:
    """Write, sync and publish a small file. Raises DatasetError."""
    with in_words(final):
        storage.write_bytes(final, data, temporary)


class GuardedFile:
    """A file object for h5py that never fails inside of HDF5.

    An HDF5 file whose writes fail cannot be closed cleanly. Here the first failure is remembered and the writes after
    it are pretended, so that HDF5 unwinds in order; `check` then raises, and the file is thrown away.
    """

    def __init__(self, path: Path, *, existing: bool = False) -> None:
        self.path = path
        self.error: OSError | None = None
        self._overlay: list[tuple[int, bytes]] = []
        self._position = 0
        try:
            self.fd = os.open(path, os.O_RDWR if existing else os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise storage_error(error, path) from error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self.fd).st_size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        data = os.pread(self.fd, len(buffer), self._position)
        buffer[:] = data + bytes(len(buffer) - len(data))
        for offset, written in self._overlay:
            first, last = max(offset, self._position), min(offset + len(written), self._position + len(buffer))
            if first < last:
                buffer[first - self._position : last - self._position] = written[first - offset : last - offset]
        self._position += len(buffer)
        return len(buffer)

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def write(self, data: memoryview) -> int:
        start, view = self._position, memoryview(data)
        self._position += len(view)
        try:
            while view and self.error is None:
                view = view[os.pwrite(self.fd, view, self._position - len(view)) :]
        except OSError as error:
            self.error = error
        if self.error is not None and len(data) <= OVERLAY_BYTES:
            self._overlay.append((start, bytes(data)))
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self.fd, size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Do nothing: HDF5 flushes often; durability comes from `sync` alone."""

    def check(self) -> None:
        """Raise DatasetError where a write has failed."""
        if self.error is not None:
            raise storage_error(self.error, self.path) from self.error

    def sync(self) -> None:
        """Bring everything written so far to the disk, or raise DatasetError."""
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            self.error = self.error or error
        self.check()

    def close(self) -> None:
        os.close(self.fd)


@contextlib.contextmanager
def hdf5_file(path: Path, *, existing: bool = False) -> Iterator[tuple[h5py.File, GuardedFile]]:
    """Open an HDF5 file under construction; synced and checked on leaving. It is the caller's to publish."""
    guard = GuardedFile(path, existing=existing)
    try:
        with h5py.File(guard, "r+" if existing else "w", libver=LIBVER) as file:
            yield file, guard
        guard.sync()
    finally:
        guard.close()


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a finished file (shared, where the file system can) to a temporary one."""
    with in_words(target):
        shutil.copyfile(source, target)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C until the block is done: a commit is short, and half a commit helps nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        signal.raise_signal(signal.SIGINT)


_held: set[Path] = set()
"""Files this process is writing: POSIX locks do not exclude one's own process."""


class WriteLock:
    """One writer per dataset. The kernel drops the lock with its process, so that a crash leaves none behind.

    POSIX record locks, not flock: a forked child that outlives its killed parent must not keep the lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_name(path.name + ".lock")
        if path in _held:
            raise DatasetError(f"{path} is already being written by this process; close that writer first")
        self._fd = self._acquire()
        _held.add(path)

    def _acquire(self) -> int:
        while True:
            try:
                fd = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise storage_error(error, self._lock) from error
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(fd, self._lock):
                    with contextlib.suppress(OSError):
                        os.ftruncate(fd, 0)
                        os.write(fd, str(os.getpid()).encode())
                    return fd
            except BlockingIOError:
                owner = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise DatasetError(
                    f"{self._path} is being written by another process (id {owner}); wait until it has finished, "
                    "or record into another file"
                ) from None
            except OSError as error:
                os.close(fd)
                raise storage_error(error, self._lock) from error
            os.close(fd)

    def release(self) -> None:
        """Remove the lock file while still holding the lock, so that nobody can be left holding a removed one."""
        if self._path in _held:
            _held.discard(self._path)
            with contextlib.suppress(OSError):
                os.unlink(self._lock)
            os.close(self._fd)


def _same_file(fd: int, path: Path) -> bool:
    """Tell whether `path` still names the open file, and not a newer one of another process."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
