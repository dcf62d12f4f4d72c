"""The index that stands for a dataset while it is being recorded, and the final copy into one file."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.groups import finish_file, write_header, write_masks, write_models
from robolearn.datasets.format.schema import DEMO_PREFIX, LIBVER, RECORDING, Header, demo_number
from robolearn.datasets.recording.durable_files import (
    copy_file,
    hdf5_file,
    parts_of,
    publish,
    publish_bytes,
    storage_error,
)
from robolearn.errors import DatasetError, hint
from robolearn.storage import sync

BASE, MODELS = "base.hdf5", "models.hdf5"
OWN_GROUPS = ("data", "mask", "models")


class Index:
    """The committed episodes and where they lie; `publish` shows them under the dataset's name.

    The index is kept as an HDF5 image in memory (tens of bytes per episode), so that publishing is one small write.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.parts = parts_of(path)
        self.steps: dict[str, int] = {}
        self.shards: dict[str, Path] = {}
        self.masks: dict[str, tuple[str, ...]] = {}
        self._file = h5py.File(f"{path.name}.index", "w", driver="core", backing_store=False, libver=LIBVER)
        write_header(self._file, header)
        self._file.attrs[RECORDING] = np.bool_(True)

    @classmethod
    def begin(cls, path: Path, header: Header, models: Mapping[str, bytes], *, append: bool) -> Index:
        """Start recording into `path`, new or existing. Raises DatasetError where that would endanger anything."""
        parts = parts_of(path)
        exists = path.exists()
        if parts.exists() and (not exists or safe.is_recording(path)):
            raise DatasetError(
                f"{path} was left by an interrupted recording; run `{hint('dataset', 'repair', path)}` first "
                f"(it recovers what is in {parts.name})"
            )
        if exists and not append:
            raise DatasetError(f"{path} exists already; go on with it (--resume), or choose another name")
        if parts.exists():
            check_holds(path, parts)
        shutil.rmtree(parts, ignore_errors=True)
        index = cls(path, header)
        try:
            if exists:
                index.check_base(path)
            parts.mkdir()
            if exists:
                _link(path, parts / BASE)
                index.add_file(parts / BASE)
            if models:
                with hdf5_file(parts / f"{MODELS}.tmp") as (file, _):
                    write_models(file, models)
                publish(parts / f"{MODELS}.tmp", parts / MODELS)
                index.add_file(parts / MODELS)
            index.publish()
        except BaseException as error:
            index.close()
            if not path.exists() or not safe.is_recording(path):
                shutil.rmtree(parts, ignore_errors=True)
            if isinstance(error, OSError):
                raise storage_error(error, parts) from error
            raise
        return index

    @classmethod
    def resume(cls, path: Path, header: Header) -> Index:
        """The index of an interrupted recording, rebuilt from its folder: every renamed shard is committed."""
        index = cls(path, header)
        for shard in sorted(index.parts.glob("*.hdf5"), key=lambda p: (p.name != BASE, demo_number(p.stem) or 0)):
            index.add_file(shard)
        return index

    @property
    def next_number(self) -> int:
        return 1 + max((demo_number(name) or 0 for name in self.steps), default=-1)

    def check_base(self, path: Path) -> None:
        """Raise DatasetError where the existing file cannot be extended by our episodes."""
        with safe.open_file(path) as file:
            safe.check_schema(file)
            difference = self.header.difference(safe.read_header(file))
        if difference:
            raise DatasetError(f"cannot append to {path}: {difference}")

    def add_file(self, shard: Path) -> None:
        """Take in all episodes, models, masks and unknown objects of a finished file in the folder."""
        with safe.open_file(shard) as file:
            steps: dict[str, int] = {}
            if "data" in file:
                data = safe.group(file, "data")
                steps = {name: safe.num_samples(safe.group(data, name)) for name in safe.demo_names(data)}
            self._link_demos(steps, shard)
            if shard.name == BASE:
                self.masks |= safe.read_masks(file)
            for name in safe.names(file):
                if name == "models":
                    for model in safe.names(safe.group(file, name)):
                        self._link(f"models/{model}", shard, f"/models/{model}")
                elif name not in OWN_GROUPS:
                    self._link(name, shard, f"/{name}")

    def add(self, steps: Mapping[str, int], shard: Path) -> None:
        """Publish new episodes that lie in `shard`; takes them back where publishing fails."""
        self._link_demos(steps, shard)
        try:
            self.publish()
        except BaseException:
            for name in steps:
                del self._file[f"data/{name}"], self.steps[name], self.shards[name]
            raise

    def remove(self, name: str) -> None:
        """Take back an episode that this recording has committed to a shard of its own."""
        shard = self.shards[name]
        del self._file[f"data/{name}"], self.steps[name], self.shards[name]
        self.masks = {mask: tuple(demo for demo in demos if demo != name) for mask, demos in self.masks.items()}
        self.publish()
        if shard not in self.shards.values():
            shard.unlink(missing_ok=True)

    def set_mask(self, name: str, demos: Sequence[str]) -> None:
        self.masks[name] = tuple(demos)
        self.publish()

    def publish(self) -> None:
        """Put the index under the dataset's name."""
        write_masks(self._file, self.masks)
        self._file["data"].attrs["total"] = np.int64(sum(self.steps.values()))
        self._file.flush()
        publish_bytes(self._file.id.get_file_image(), self.parts / "index.tmp", self.path)

    def consolidate(self) -> None:
        """Make one self-contained file of everything, put it under the dataset's name and remove the folder."""
        whole, base = self.parts / "whole.tmp", self.parts / BASE
        try:
            if base.exists():
                copy_file(base, whole)
            with hdf5_file(whole, existing=base.exists()) as (file, guard):
                if not base.exists():
                    write_header(file, self.header)
                models = self.parts / MODELS
                if models.exists():
                    with safe.open_file(models) as source:
                        write_models(file, safe.read_models(source))
                for name, shard in self.shards.items():
                    if shard.name != BASE:
                        with safe.open_file(shard) as source:
                            source.copy(f"data/{name}", file["data"], name)
                        guard.check()
                write_masks(file, self.masks)
                finish_file(file)
            publish(whole, self.path)
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        shutil.rmtree(self.parts, ignore_errors=True)
        with contextlib.suppress(OSError):
            sync(self.path.parent)

    def close(self) -> None:
        self._file.close()

    def _link_demos(self, steps: Mapping[str, int], shard: Path) -> None:
        for name, count in steps.items():
            if name in self.steps:
                raise DatasetError(f"{shard} holds {name}, which {self.shards[name]} holds already")
            self._link(f"data/{name}", shard, f"/data/{name}")
            self.steps[name], self.shards[name] = count, shard

    def _link(self, name: str, shard: Path, target: str) -> None:
        if name not in self._file:
            self._file[name] = h5py.ExternalLink(f"{self.parts.name}/{shard.name}", target)


def check_holds(path: Path, parts: Path) -> None:
    """Raise DatasetError unless a finished file holds every episode in the folder of parts beside it.

    It does where a recording ended between its last two steps, and does not where another file took its name.
    """
    with safe.open_file(path) as whole:
        data = safe.group(whole, "data")
        have = {name: _told(safe.group(data, name)) for name in safe.demo_names(data)}
    lacking: list[str] = []
    for shard in sorted(parts.glob(f"{DEMO_PREFIX}*.hdf5")):
        with safe.open_file(shard) as file:
            data = safe.group(file, "data")
            lacking += [name for name in safe.demo_names(data) if have.get(name) != _told(safe.group(data, name))]
    if lacking:
        raise DatasetError(
            f"{parts} holds an interrupted recording of which {path.name} is not the file, for it lacks "
            f"{', '.join(lacking[:3])}{' and others' if len(lacking) > 3 else ''}. Give {path.name} another name, then "
            f"`{hint('dataset', 'repair', path)}` makes the recording's own file"
        )


def _told(demo: h5py.Group) -> tuple[str, ...]:
    return tuple(str(demo.attrs.get(name)) for name in ("num_samples", "seed", "started_at"))


def _link(existing: Path, new: Path) -> None:
    try:
        os.link(existing, new)
    except OSError:
        # File systems without hard links; this is the one place where appending copies.
        copy_file(existing, new)
