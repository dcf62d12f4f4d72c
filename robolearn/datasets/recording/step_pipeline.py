"""From the control loop to the disk without making it wait.

    put (control loop)     compressor threads      writer thread               sync thread
    queue  --------------> frame -> zlib stream -> chunk into the shard  ----> fdatasync every 0.25 s
                                                   records into the journal

The queue is bounded in bytes. When it is half full, frames are stored uncompressed, which is as fast as memory; when
it is full, `put` waits and the wait is counted. Nothing is dropped.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from robolearn.datasets.format.groups import EpisodeGroup, compress, frame_keys, write_header
from robolearn.datasets.format.schema import LIBVER, Header
from robolearn.datasets.recording.durable_files import GuardedFile, storage_error
from robolearn.datasets.recording.journal import Frame, Journal, Kind
from robolearn.errors import DatasetError
from robolearn.specs import EpisodeInfo, Event

SYNC_SECONDS = 0.25


@dataclass
class RecordingStats:
    """What recording has cost so far."""

    steps: int = 0
    frames: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    blocked_steps: int = 0
    """Steps that had to wait because the queue was full."""
    blocked_s: float = 0.0
    uncompressed_frames: int = 0
    """Frames stored as they are because compression could not keep up."""
    max_pending_bytes: int = 0


@dataclass(frozen=True)
class _Step:
    row: np.ndarray
    frames: tuple[Future[bytes], ...]
    nbytes: int


class StepPipeline:
    """Carries the steps of one episode into its shard and its journal."""

    def __init__(
        self,
        *,
        partial: Path,
        journal: Path,
        name: str,
        header: Header,
        info: EpisodeInfo,
        pool: Executor,
        stats: RecordingStats,
        max_pending_bytes: int,
    ) -> None:
        self.failure: DatasetError | None = None
        self.last_frames: dict[str, bytes] = {}
        """The compressed frames of the last step written."""
        self._partial = partial
        self._keys = frame_keys(header.observation_spec)
        self._pool, self._stats, self._limit = pool, stats, max_pending_bytes
        self._queue: deque[_Step | Event] = deque()
        self._pending = 0
        self._written = 0
        self._closed = False
        self._closing = threading.Event()
        self._wake = threading.Condition()
        self._journal = Journal(journal)
        self._journal.append((Kind.HEADER, journal_header(name, header, info)))
        self._guard = GuardedFile(partial)
        self._file = h5py.File(self._guard, "w", libver=LIBVER)
        write_header(self._file, header)
        self.group = EpisodeGroup(self._file, name, header.observation_spec)
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"record {name}", daemon=True)
            for work in (self._write_queue, self._sync_files)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, row: np.ndarray, frames: Sequence[np.ndarray]) -> None:
        """Queue a step; takes over the arrays. Raises what has gone wrong in the background."""
        nbytes = row.nbytes + sum(frame.nbytes for frame in frames)
        stats = self._stats
        with self._wake:
            self._await_room(nbytes)
            futures = tuple(self._pool.submit(self._compress, frame) for frame in frames)
            self._queue.append(_Step(row, futures, nbytes))
            self._pending += nbytes
            stats.max_pending_bytes = max(stats.max_pending_bytes, self._pending)
            self._wake.notify_all()
        stats.steps += 1
        stats.frames += len(frames)
        stats.raw_bytes += nbytes

    def put_event(self, event: Event) -> None:
        with self._wake:
            self._queue.append(event)
            self._wake.notify_all()

    def drain(self) -> None:
        """Wait until everything queued is written and stop the threads; raises what has gone wrong."""
        with self._wake:
            self._closing.set()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Close the shard and the journal, after `drain`; raises DatasetError where a write has failed."""
        if self._closed:
            return
        self._closed = True
        try:
            self._file.close()
            self._guard.sync()
        finally:
            self._guard.close()
            self._journal.close()

    def abandon(self) -> None:
        """Stop and close whatever the state; the files stay, for `repair`."""
        for finish in (self.drain, self.close):
            try:
                finish()
            except DatasetError as error:
                self.failure = self.failure or error

    def _await_room(self, nbytes: int) -> None:
        """Wait, holding the condition, until the queue can take `nbytes` more; count the wait."""
        if self._pending and self._pending + nbytes > self._limit:
            began = time.perf_counter()
            self._stats.blocked_steps += 1
            self._wake.wait_for(lambda: self.failure or not self._pending or self._pending + nbytes <= self._limit)
            self._stats.blocked_s += time.perf_counter() - began
        if self.failure is not None:
            raise self.failure

    def _compress(self, frame: np.ndarray) -> bytes:
        hurry = self._pending > self._limit // 2
        if hurry:
            self._stats.uncompressed_frames += 1
        return compress(frame, stored=hurry)

    def _run(self, work: Callable[[], None]) -> None:
        """A thread's life: what goes wrong in it is raised by the next call of the control loop."""
        failure = None
        try:
            work()
        except DatasetError as error:
            failure = error
        except OSError as error:
            failure = storage_error(error, self._partial)
        except Exception as error:
            failure = DatasetError(f"recording into {self._partial} failed: {error!r}")
        if failure is not None:
            with self._wake:
                self.failure = self.failure or failure
                self._closing.set()
                self._wake.notify_all()

    def _write_queue(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing.is_set())
                if not self._queue or self.failure:
                    return
                item = self._queue[0]
            if isinstance(item, _Step):
                self._write_step(item)
            else:
                self._journal.append((Kind.EVENT, json.dumps(asdict(item)).encode()))
            with self._wake:
                self._queue.popleft()
                self._pending -= item.nbytes if isinstance(item, _Step) else 0
                self._wake.notify_all()

    def _write_step(self, item: _Step) -> None:
        step = self._written
        records: list[tuple[Kind, bytes]] = []
        if step == 0:
            records.append((Kind.LAYOUT, json.dumps({"state_size": state_size(item.row.dtype)}).encode()))
        for index, (key, future) in enumerate(zip(self._keys, item.frames)):
            data = future.result()
            offset = self.group.add_frame(key, step, data)
            records.append((Kind.FRAME, Frame(step, index, offset, len(data), zlib.crc32(data)).pack()))
            self.last_frames[key] = data
            self._stats.stored_bytes += len(data)
        self._guard.check()
        self._journal.append(*records, (Kind.STEP, item.row.tobytes()))
        self._written += 1
        self._stats.stored_bytes += item.row.nbytes

    def _sync_files(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            self._guard.sync()
            self._journal.sync()


def journal_header(name: str, header: Header, info: EpisodeInfo) -> bytes:
    attrs = {
        key: value.decode() if isinstance(value, bytes) else float(value) for key, value in header.to_attrs().items()
    }
    return json.dumps({"name": name, "header": attrs, "info": asdict(info)}).encode()


def state_size(layout: np.dtype) -> int:
    """S of a step layout."""
    return layout["states"].shape[0] if "states" in (layout.names or ()) else 0
