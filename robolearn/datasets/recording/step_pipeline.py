"""From the control loop to the disk without making it wait.

    put (control loop)     compressor threads      disk thread, every 20 ms
    queue  --------------> frame -> zlib stream -> chunk into the shard, records into the journal
                                                   fdatasync every 0.25 s

One disk thread serves all episodes of a writer, and is not woken for each step: a step costs the control loop an entry
in a queue. The queues are bounded in bytes. When they are half full, frames are stored uncompressed, which is as fast
as memory; when they are full, `put` waits and the wait is counted. Nothing is dropped.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from robolearn.datasets.format.groups import EpisodeGroup, compress, frame_keys, write_header
from robolearn.datasets.format.schema import JOURNAL, LIBVER, Header
from robolearn.datasets.recording.durable_files import GuardedFile, storage_error
from robolearn.datasets.recording.journal import Frame, Journal, Kind
from robolearn.errors import DatasetError
from robolearn.specs import EpisodeInfo, Event

WRITE_SECONDS, SYNC_SECONDS = 0.02, 0.25


@dataclass
class RecordingStats:
    """The cost of recording so far."""

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


class DiskThread:
    """Writes what the episodes of one writer have queued, and brings it to the disk."""

    def __init__(self, max_pending_bytes: int) -> None:
        """
        Args:
            max_pending_bytes: what the queues may hold together before `put` waits.
        """
        self.limit, self.pending = max_pending_bytes, 0
        self.room = threading.Condition()
        self._pipelines: list[StepPipeline] = []
        self._hurry = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def serve(self, pipeline: StepPipeline) -> None:
        """Take care of an episode from now on."""
        self._pipelines = [*self._pipelines, pipeline]

    def leave(self, pipeline: StepPipeline) -> None:
        """Leave an episode to its caller."""
        self._pipelines = [p for p in self._pipelines if p is not pipeline]

    def await_room(self, nbytes: int, stats: RecordingStats, failed: Callable[[], bool]) -> None:
        """Take room for `nbytes`; waits for it, and counts the wait, where the queues are full."""
        with self.room:
            if self.pending and self.pending + nbytes > self.limit:
                began = time.perf_counter()
                stats.blocked_steps += 1
                self._hurry.set()
                self.room.wait_for(lambda: failed() or not self.pending or self.pending + nbytes <= self.limit)
                stats.blocked_s += time.perf_counter() - began
            self.pending += nbytes
            stats.max_pending_bytes = max(stats.max_pending_bytes, self.pending)

    def release(self, nbytes: int) -> None:
        """Give room back."""
        with self.room:
            self.pending -= nbytes
            self.room.notify_all()

    def close(self) -> None:
        """End the thread; episodes that it still served are left as they are."""
        self._closing = True
        self._hurry.set()
        self._thread.join()

    def _run(self) -> None:
        synced = time.monotonic()
        while not self._closing:
            self._hurry.wait(WRITE_SECONDS)
            self._hurry.clear()
            for pipeline in self._pipelines:
                pipeline.write()
            if time.monotonic() - synced >= SYNC_SECONDS:
                for pipeline in self._pipelines:
                    pipeline.sync()
                synced = time.monotonic()


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
        disk: DiskThread,
    ) -> None:
        self.failure: DatasetError | None = None
        self.last_frames: dict[str, bytes] = {}
        """The compressed frames of the last step written."""
        self._partial = partial
        self._keys = frame_keys(header.observation_spec)
        self._pool, self._stats, self._disk = pool, stats, disk
        self._queue: deque[_Step | Event] = deque()
        self._written, self._unsynced = 0, False
        self._closed = False
        self._writing = threading.Lock()  # the disk thread writes, or whoever commits
        self._journal = Journal(journal)
        self._journal.append((Kind.HEADER, journal_header(name, header, info)))
        self._guard = GuardedFile(partial)
        self._file = h5py.File(self._guard, "w", libver=LIBVER)
        write_header(self._file, header)
        self.group = EpisodeGroup(self._file, name, header.observation_spec)
        disk.serve(self)

    def put(self, row: np.ndarray, frames: Sequence[np.ndarray]) -> None:
        """Queue a step; takes over the arrays. Raises what has gone wrong in the background."""
        nbytes = row.nbytes + sum(frame.nbytes for frame in frames)
        self._disk.await_room(nbytes, self._stats, lambda: self.failure is not None)
        futures = tuple(self._pool.submit(self._compress, frame) for frame in frames)
        self._queue.append(_Step(row, futures, nbytes))
        if self.failure is not None:
            raise self.failure
        self._stats.steps += 1
        self._stats.frames += len(frames)
        self._stats.raw_bytes += nbytes

    def put_event(self, event: Event) -> None:
        self._queue.append(event)

    def write(self) -> None:
        """Write what is queued; what goes wrong is raised by the next call of the control loop."""
        with self._writing, self._failing():
            while self._queue and self.failure is None and not self._closed:
                item = self._queue[0]
                if isinstance(item, _Step):
                    self._write_step(item)
                    self._disk.release(item.nbytes)
                else:
                    self._journal.append((Kind.EVENT, json.dumps(asdict(item)).encode()))
                self._queue.popleft()
                self._unsynced = True

    def sync(self) -> None:
        """Bring what is written to the disk."""
        with self._writing, self._failing():
            if self._unsynced and self.failure is None and not self._closed:
                self._unsynced = False
                if self._keys:
                    self._guard.sync()
                self._journal.sync()

    def drain(self) -> None:
        """Write everything queued and leave the disk thread; raises what has gone wrong."""
        self._disk.leave(self)
        self.write()
        if self.failure is not None:
            raise self.failure

    def name_group(self, name: str) -> None:
        """Give the episode's group its name in the dataset, and note which journal it was recorded with."""
        self._file.attrs[JOURNAL] = np.bytes_(self.group.name)
        self.group.rename(name)

    def close(self) -> None:
        """Close the shard and the journal, after `drain`; raises DatasetError where a write has failed."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            for item in self._queue:
                if isinstance(item, _Step):
                    self._disk.release(item.nbytes)
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

    def _compress(self, frame: np.ndarray) -> bytes:
        hurry = self._disk.pending > self._disk.limit // 2
        if hurry:
            self._stats.uncompressed_frames += 1
        return compress(frame, stored=hurry)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Remember what goes wrong inside as the failure of this recording."""
        failure = None
        try:
            yield
        except DatasetError as error:
            failure = error
        except OSError as error:
            failure = storage_error(error, self._partial)
        except Exception as error:
            failure = DatasetError(f"recording into {self._partial} failed: {error!r}")
        if failure is not None:
            self.failure = self.failure or failure
            with self._disk.room:
                self._disk.room.notify_all()

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


def journal_header(name: str, header: Header, info: EpisodeInfo) -> bytes:
    attrs = {
        key: value.decode() if isinstance(value, bytes) else float(value) for key, value in header.to_attrs().items()
    }
    return json.dumps({"name": name, "header": attrs, "info": asdict(info)}).encode()


def state_size(layout: np.dtype) -> int:
    """S of a step layout."""
    return layout["states"].shape[0] if "states" in (layout.names or ()) else 0
