"""Looking at a doubtful HDF5 file in another process first: some damage crashes or hangs the HDF5 library itself.

HDF5's older formats have no checksums on their metadata, and a virtual dataset's mapping lies in an unprotected heap;
a flipped bit there can end the process that reads it. One helper process walks the files; when it dies or stands
still, the caller gets an error and goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import h5py

from robolearn.datasets.format.checked import MAX_ATTR_BYTES
from robolearn.errors import DatasetError

STILL_SECONDS = 20.0
"""Without a sign of life for so long the helper hangs."""
MAX_STRINGS = 1_000_000
READY, DONE = "ready", "done"

_lock = threading.Lock()
_helper: subprocess.Popen[bytes] | None = None
_passed: set[tuple[str, int, int, int]] = set()


SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_checksummed(path: Path) -> bool:
    """Tell whether the file's metadata has checksums throughout: HDF5's superblock version 2 or later, as ours."""
    if not path.is_file():  # opening a pipe waits for who writes into it
        return False
    try:
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE) + 1)
    except OSError:
        return False
    return start[:-1] == SIGNATURE and start[-1] >= 2


def check(path: Path) -> None:
    """Raise DatasetError where merely looking at the file's structure crashes or hangs HDF5.

    Files that have passed are not looked at again while they stay unchanged.
    """
    if not path.is_file():
        return
    status = path.stat()
    identity = (str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
    with _lock:
        if identity not in _passed:
            _ask(path.resolve())
            _passed.add(identity)


def _ask(path: Path) -> None:
    global _helper
    if _helper is None or _helper.poll() is not None:
        command = [sys.executable, "-m", "robolearn.datasets.format.probe"]
        _helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if _next_line(_helper) != READY:
            _stop()
            raise DatasetError("cannot start the process that looks at doubtful files first")
    assert _helper.stdin is not None
    _helper.stdin.write(os.fsencode(path).hex().encode() + b"\n")
    _helper.stdin.flush()
    place = "its beginning"
    while (line := _next_line(_helper)) != DONE:
        if line is None:
            how = "crashes" if _helper.poll() is not None else "hangs"
            _stop()
            raise DatasetError(f"{path} is damaged at {place}, in a way that {how} the HDF5 library; it is not opened")
        place = line


def _next_line(helper: subprocess.Popen[bytes]) -> str | None:
    """Return the helper's next line; None where it has died or stands still."""
    assert helper.stdout is not None
    if not select.select([helper.stdout], [], [], STILL_SECONDS)[0]:
        return None
    line = _read_line(helper.stdout)
    if not line:
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(5)
        return None
    return line


def _read_line(stream: IO[bytes]) -> str:
    """Read one line, unbuffered, so that `select` sees whatever has not been read."""
    data = bytearray()
    while (byte := os.read(stream.fileno(), 1)) not in (b"", b"\n"):
        data += byte
    return data.decode("utf-8", "replace")


def _stop() -> None:
    global _helper
    if _helper is not None:
        _helper.kill()
        _helper.wait()
    _helper = None


def _walk(path: str) -> None:
    """Look at every object, attribute and chunk address; whatever HDF5 raises, the caller will meet as well."""

    def look(name: str, found: object) -> None:
        if name.count("/") <= 1:
            print(name.encode("ascii", "replace").decode(), flush=True)
        with contextlib.suppress(Exception):
            assert isinstance(found, h5py.HLObject)
            for attribute in found.attrs:
                if found.attrs.get_id(attribute).get_storage_size() <= MAX_ATTR_BYTES:
                    _ = found.attrs[attribute]
        with contextlib.suppress(Exception):
            if isinstance(found, h5py.Dataset):
                _ = found.shape, found.external
                if found.dtype.hasobject and (found.size or 0) < MAX_STRINGS:
                    _ = found[()]
                if found.is_virtual:
                    found.virtual_sources()
                elif found.chunks is not None:
                    found.id.chunk_iter(lambda chunk: None)

    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)


def main() -> None:
    """Serve paths (one per line, hexadecimal) until the asking process goes away."""
    print(READY, flush=True)
    for line in sys.stdin:
        _walk(os.fsdecode(bytes.fromhex(line.strip())))
        print(DONE, flush=True)


if __name__ == "__main__":
    main()
