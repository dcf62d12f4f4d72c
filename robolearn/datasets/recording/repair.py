"""Recover what an interrupted recording left: the committed episodes, and those that were in progress."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.groups import EpisodeGroup, decompress, frame_keys, step_dtype, unpack_rows, write_header
from robolearn.datasets.format.schema import DEMO_PREFIX, JOURNAL, LIVE_PREFIX, Header, demo_name
from robolearn.datasets.recording.durable_files import WriteLock, hdf5_file, parts_of, publish, uninterrupted
from robolearn.datasets.recording.index import BASE, Index, check_holds
from robolearn.datasets.recording.journal import Frame, Kind, read_journal
from robolearn.errors import DatasetError, count
from robolearn.specs import EpisodeInfo, Event


@dataclass
class RepairReport:
    """The findings of `repair`, and its deeds."""

    path: Path
    committed: tuple[str, ...] = ()
    """Episodes that had been committed; they are as they were."""
    recovered: dict[str, int] = field(default_factory=dict)
    """Episodes made from a journal, with their steps."""
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """False where there was nothing to repair."""
        return bool(self.committed or self.recovered or self.notes)


def repair(path: str | Path, *, in_progress: Literal["recover", "drop"] = "recover") -> RepairReport:
    """Finish an interrupted recording: one self-contained file with every committed episode and what can be saved.

    Episodes in progress are kept up to their last observation, marked unsuccessful and interrupted, or dropped where
    whoever resumes repeats them from their seeds. A file that was not interrupted is left as it is.

    Raises DatasetError where the file is being written, cannot be told from its parts, or the disk is full; nothing is
    removed before everything is safe in the new file.
    """
    path = Path(path).resolve()
    if not path.exists() and not parts_of(path).exists():
        raise DatasetError(
            f"{path} does not exist, nor does a folder {parts_of(path).name} of an interrupted recording"
        )
    lock = WriteLock(path)
    try:
        with uninterrupted():
            return _repair(path, in_progress)
    finally:
        lock.release()


def _repair(path: Path, in_progress: str) -> RepairReport:
    report = RepairReport(path)
    parts = parts_of(path)
    masks: Mapping[str, tuple[str, ...]] = {}
    if path.exists():
        recording = _is_recording(path, parts)
        if recording is False:
            if parts.exists():
                check_holds(path, parts)
                shutil.rmtree(parts)
                report.notes.append(f"removed {parts.name}: its contents were already in the file")
            return report
        if recording is None:
            report.notes.append(f"{path.name} itself was not readable and is made anew from {parts.name}")
        else:
            masks = _masks(path)
    _drop_leftovers(parts)
    if not path.exists() and not _anything_recorded(parts):
        shutil.rmtree(parts)
        report.notes.append("the recording was cut off before anything was recorded; nothing is left of it")
        return report
    index = Index.resume(path, _find_header(path, parts))
    try:
        report.committed = tuple(index.steps)
        index.masks |= {name: tuple(d for d in demos if d in index.steps) for name, demos in masks.items()}
        finished = _finished_journals(parts)
        for journal in sorted(parts.glob("*.journal"), key=lambda path: int(path.stem.removeprefix(LIVE_PREFIX))):
            if journal.stem not in finished and in_progress == "recover":
                _recover(journal, index, report)
        index.consolidate()
    finally:
        index.close()
    return report


def _is_recording(path: Path, parts: Path) -> bool | None:
    """Return whether the file is an index; None where it cannot be read but its parts are there."""
    try:
        return safe.is_recording(path)
    except DatasetError:
        if not parts.exists():
            raise
        return None


def _masks(path: Path) -> dict[str, tuple[str, ...]]:
    with safe.open_file(path) as file:
        return safe.read_masks(file)


def _drop_leftovers(parts: Path) -> None:
    """Half-written files that nobody was told of; a `.partial` with a journal is the episode in progress."""
    for leftover in parts.glob("*.tmp"):
        leftover.unlink()
    for partial in parts.glob("*.partial"):
        if not partial.with_suffix(".journal").exists():
            partial.unlink()


def _anything_recorded(parts: Path) -> bool:
    """Return whether the folder holds an episode, or the beginning of one."""
    journals = parts.glob("*.journal")
    return (
        (parts / BASE).exists()
        or any(parts.glob("demo_*.hdf5"))
        or any(True for j in journals for _ in read_journal(j))
    )


def _find_header(path: Path, parts: Path) -> Header:
    """From the index, any finished part, or a journal: whichever is still there."""
    for candidate in (path, *sorted(parts.glob("*.hdf5"))):
        if candidate.exists():
            try:
                with safe.open_file(candidate) as file:
                    return safe.read_header(file)
            except DatasetError:
                continue
    for journal in sorted(parts.glob("*.journal")):
        for kind, payload in read_journal(journal):
            if kind is Kind.HEADER:
                with safe.reading(str(journal)):
                    return Header.from_attrs(json.loads(payload)["header"] | {"total": 0})
    raise DatasetError(f"neither {path} nor {parts} says what was recorded; nothing can be recovered")


def _recover(journal: Path, index: Index, report: RepairReport) -> None:
    """Turn a journal and its half-written shard into a committed shard."""
    partial, name = journal.with_suffix(".partial"), demo_name(index.next_number)
    shard = journal.with_name(f"{name}.hdf5")
    with safe.reading(str(journal)):
        recovered = _Recovered(journal, partial, index.header)
    steps = len(recovered.rows) - 1
    if steps < 1:
        report.notes.append("an episode in progress had not one complete step and is left out")
        return
    target = journal.with_suffix(".tmp")
    with hdf5_file(target) as (file, _):
        write_header(file, index.header)
        group = EpisodeGroup(file, name, index.header.observation_spec)
        recovered.write(group, steps)
    publish(target, shard)
    index.add_file(shard)
    report.recovered[name] = steps


def _finished_journals(parts: Path) -> set[str]:
    """Names of journals whose episodes were committed before they could be removed."""
    found = set()
    for shard in parts.glob(f"{DEMO_PREFIX}*.hdf5"):
        with safe.open_file(shard) as file:
            found.add(str(safe.attrs(file).get(JOURNAL, "")))
    return found


class _Recovered:
    """The longest run of complete steps in a journal."""

    def __init__(self, journal: Path, partial: Path, header: Header) -> None:
        self.header = header
        self.keys = frame_keys(header.observation_spec)
        self.info = EpisodeInfo(success=False, seed=0)
        self.events: list[Event] = []
        self._partial = partial
        layout = step_dtype(header, 0)
        rows: list[np.ndarray] = []
        pending: dict[tuple[int, int], Frame] = {}
        for kind, payload in read_journal(journal):
            if kind is Kind.HEADER:
                self.info = EpisodeInfo(**json.loads(payload)["info"])
            elif kind is Kind.LAYOUT:
                layout = step_dtype(header, json.loads(payload)["state_size"])
            elif kind is Kind.FRAME:
                frame = Frame.unpack(payload)
                pending[frame.step, frame.key] = frame
            elif kind is Kind.EVENT:
                self.events.append(Event(**json.loads(payload)))
            else:
                rows.append(np.frombuffer(payload, layout)[0])
        self.places = pending
        self.rows = np.array(rows[: self._complete(len(rows))], layout)

    def write(self, group: EpisodeGroup, steps: int) -> None:
        """Write `steps` steps; the observation of the step after them is the final one."""
        arrays = unpack_rows(self.rows[:steps])
        arrays["truncated"][-1] = not arrays["terminated"][-1]
        last = self.rows[steps]
        spec = self.header.observation_spec
        final: dict[str, Any] = {key: last[f"obs/{key}"] for key in spec if key not in self.keys}
        for index, key in enumerate(self.keys):
            for step in range(steps):
                data = self._bytes(step, index)
                assert data is not None
                group.add_frame(key, step, data)
            data = self._bytes(steps, index)
            assert data is not None
            final[key] = decompress(data, spec[key])
        events = [event for event in self.events if event.step <= steps]
        group.finish(replace(self.info, interrupted=True), arrays, final, events)

    def _complete(self, limit: int) -> int:
        """Count the steps from the first on that have all their frames."""
        for step in range(limit):
            if any(self._bytes(step, key) is None for key in range(len(self.keys))):
                return step
        return limit

    def _bytes(self, step: int, key: int) -> bytes | None:
        """The compressed bytes of a frame, or None where they never reached the disk."""
        place = self.places.get((step, key))
        if place is None or not self._partial.exists():
            return None
        with self._partial.open("rb") as file:
            data = os.pread(file.fileno(), place.size, place.offset)
        return data if len(data) == place.size and zlib.crc32(data) == place.crc else None


def describe(report: RepairReport) -> Iterable[str]:
    """The report in words, a line each."""
    if not report.changed:
        yield f"{report.path} was not interrupted; nothing to repair"
        return
    yield f"{report.path}: {len(report.committed)} committed episodes, all kept"
    for name, steps in report.recovered.items():
        yield f"{name}: {count(steps, 'step')} recovered from the journal, marked unsuccessful and interrupted"
    yield from report.notes
