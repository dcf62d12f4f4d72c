"""Decisions of a person about episodes while looking at them, until it is saved."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from robolearn.configuration.parts.dataset_names import SUFFIXES, is_dataset_name
from robolearn.datasets.tools.revise import Revision, revise, set_masks
from robolearn.errors import DatasetError
from robolearn.teleop.view.library import Library

SPLITS = ("train", "valid")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The fate of one episode; as recorded where nothing is set."""

    success: bool | None = None
    deleted: bool = False
    first: int | None = None
    last: int | None = None
    split: Literal["train", "valid", ""] | None = None
    """None leaves the file's own masks; empty takes the episode out of both."""


class Marks:
    """The marks of all episodes by name; safe to use from several threads, pages and tabs."""

    def __init__(self, library: Library) -> None:
        self._library, self._lock = library, threading.Lock()
        self._marks: dict[str, Mark] = {}
        self.unsaved = False

    def all(self) -> dict[str, dict[str, Any]]:
        """Return every mark that says something."""
        with self._lock:
            return {name: asdict(mark) for name, mark in self._marks.items()}

    def change(self, changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Set fields of marks: {episode: {field: value}}; None as an episode's value takes its mark away.

        Returns all marks. Raises DatasetError, changing nothing, where an episode, a field or a value is wrong.
        """
        with self._lock:
            new = {name: self._changed(name, fields) for name, fields in changes.items()}
            self._marks |= new
            self._marks = {name: mark for name, mark in self._marks.items() if mark != Mark()}
            self.unsaved = bool(self._marks)
        return self.all()

    def save(self, name: str) -> tuple[Path, list[str]]:
        """Write a new file beside the dataset with the marks applied; returns it and what it does not hold any more."""
        output = self._library.home / _plain_name(name)
        marks = self._copy()
        notes = revise(
            self._library.path,
            output,
            revisions={
                demo: Revision(success=mark.success, first=mark.first or 0, last=mark.last)
                for demo, mark in marks.items()
                if not mark.deleted
            },
            deleted=[demo for demo, mark in marks.items() if mark.deleted],
            masks=self._masks(marks),
            reading=self._library.seen,
        )
        self.unsaved = False
        return output, notes

    def save_masks(self) -> dict[str, int]:
        """Set the masks train and valid of the dataset itself; returns how many episodes each lists."""
        if not self._library.describe()["in_place"]:
            raise DatasetError(f"masks of {self._library.source} cannot be set in place; save a new file instead")
        masks = self._masks(self._copy())
        if not masks:
            raise DatasetError("no episode is assigned to train or valid; assign some first")
        set_masks(self._library.path, masks)
        self._library.reopen()
        self.change({demo: {"split": None} for demo in self._copy()})
        return {name: len(demos) for name, demos in masks.items()}

    def _copy(self) -> dict[str, Mark]:
        with self._lock:
            return dict(self._marks)

    def _masks(self, marks: Mapping[str, Mark]) -> dict[str, list[str]]:
        """The episodes of train and valid, the file's own where nothing was decided; none where nothing was at all."""
        if all(mark.split is None for mark in marks.values()):
            return {}
        names = self._library.names
        listed = {name: {names[i] for i in self._library.dataset.masks.get(name, ())} for name in SPLITS}
        chosen = {demo: mark.split for demo, mark in marks.items() if mark.split is not None}
        return {
            split: [n for n in names if (chosen[n] == split if n in chosen else n in listed[split])] for split in SPLITS
        }

    def _changed(self, name: str, fields: Any) -> Mark:
        if name not in self._library.number:
            raise DatasetError(f"{self._library.source} has no episode {name!r}")
        if fields is None:
            return Mark()
        if not isinstance(fields, dict) or not set(fields) <= set(Mark.__dataclass_fields__):
            raise DatasetError(f"a mark has the fields {list(Mark.__dataclass_fields__)}, received {fields!r}")
        mark = replace(self._marks.get(name, Mark()), **fields)
        _check(mark, self._library.dataset.summary(self._library.number[name])[1] if _trims(mark) else None)
        return mark


def _trims(mark: Mark) -> bool:
    return mark.first is not None or mark.last is not None


def _check(mark: Mark, steps: int | None) -> None:
    """Raise DatasetError on a value of the wrong kind, or a trim outside of the episode's steps."""
    if mark.success not in (None, True, False) or mark.deleted not in (True, False):
        raise DatasetError(f"success and deleted must be true or false, received {mark.success}, {mark.deleted}")
    if mark.split not in (None, "", *SPLITS):
        raise DatasetError(f"split must be one of {SPLITS} or empty, received {mark.split!r}")
    if steps is None:
        return
    first, last = mark.first or 0, steps - 1 if mark.last is None else mark.last
    whole = all(value is None or type(value) is int for value in (mark.first, mark.last))
    if not whole or not 0 <= first <= last < steps:
        raise DatasetError(f"a trim must keep steps within 0 to {steps - 1}, received {mark.first} to {mark.last}")


def _plain_name(name: str) -> str:
    """A file's name in the dataset's own folder, and nothing else."""
    path = Path(name)
    if path.name != name or name.startswith(".") or not is_dataset_name(name) or "\0" in name or "\\" in name:
        raise DatasetError(f"the new file's name must be plain and end in {' or '.join(SUFFIXES)}, received {name!r}")
    return name
