"""Reading datasets: one file or several as one, ours or of robomimic's layout; images stay on disk until asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.contract import Interface, reconcile_actions
from robolearn.datasets.format.assumptions import Assumptions
from robolearn.datasets.format.episode_file import EpisodeFile, check_choice
from robolearn.datasets.format.schema import Header, stored_as_frames
from robolearn.errors import DatasetError, PolicyError
from robolearn.specs import ActionSpec, Episode, EpisodeInfo, Event, ObservationSpec


@dataclass(frozen=True)
class _Place:
    """The place of an episode: its file and its name in it."""

    file: EpisodeFile
    demo: str


class Dataset:
    """Recorded episodes, in order of file and number.

    Opening reads the specs and the names; small arrays and images are read when asked for. Use as a context manager,
    or call `close`.

    Args:
        paths: one file, or several (demonstrations and DAgger rounds, say) that read as one; their specs must agree.
        filter_key: read only the episodes that the file's mask of this name lists.
        reading: what files do not say (control rate, action limits, success), and what of them is wanted.

    Raises DatasetError where a file is missing, damaged, or does not fit the first one.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        filter_key: str | None = None,
        reading: Reading = NOTHING,
    ) -> None:
        listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
        if not listed:
            raise DatasetError("expected at least one dataset file, received none")
        self._files: list[EpisodeFile] = []
        try:
            for path in listed:
                self._files.append(EpisodeFile(Path(path), reading))
            self.header: Header = self._files[0].header
            self.reading = reading
            check_choice(self._files, reading)
            self._check_agreement()
            self._places = [_Place(file, demo) for file in self._files for demo in file.demos(filter_key)]
        except BaseException:
            self.close()
            raise
        self._infos: dict[int, EpisodeInfo] = {}
        self._columns: dict[str, np.ndarray] = {}

    @property
    def ours(self) -> bool:
        """Return whether all files are of our own schema, and not only of robomimic's layout."""
        return all(file.ours for file in self._files)

    @property
    def assumptions(self) -> Assumptions:
        """What the files do not say and was assumed of them; of files of ours, what was asked to be read otherwise."""
        return Assumptions.joined(file.assumptions for file in self._files)

    def assumptions_of(self, file: int) -> Assumptions:
        """Return the assumptions of one file, to which a reader may add its own."""
        return self._files[file].assumptions

    @property
    def files(self) -> tuple[EpisodeFile, ...]:
        return tuple(self._files)

    @property
    def recording(self) -> bool:
        """Return whether a file is the index of a recording that goes on or was cut off."""
        return any(file.recording for file in self._files)

    @property
    def episodes(self) -> tuple[str, ...]:
        """Names: `demo_3`, or `path:demo_3` where the dataset has several files."""
        several = len(self._files) > 1
        return tuple(f"{p.file.path}:{p.demo}" if several else p.demo for p in self._places)

    @property
    def info(self) -> tuple[EpisodeInfo, ...]:
        """Facts about each episode, in order."""
        return tuple(self.episode_info(i) for i in range(len(self)))

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """T of each episode."""
        return tuple(place.file.steps(place.demo) for place in self._places)

    @property
    def observation_spec(self) -> ObservationSpec:
        return self.header.observation_spec

    @property
    def action_spec(self) -> ActionSpec:
        return self.header.action_spec

    def interface(self) -> Interface:
        """Return what there is to learn from, to be reconciled with a policy or an environment."""
        name = f"the data in {', '.join(path.name for path in self.paths)}"
        return Interface(name=name, observation_spec=self.observation_spec, action_spec=self.action_spec)

    @property
    def task(self) -> str:
        return self.header.task

    @property
    def env_args(self) -> Mapping[str, Any]:
        return self.header.env_args

    @property
    def control_hz(self) -> float:
        return self.header.control_hz

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self._files)

    @property
    def masks(self) -> dict[str, tuple[int, ...]]:
        """Indices of the episodes that each mask lists, over all files."""
        masks: dict[str, list[int]] = {}
        listed = {id(file): {n: set(demos) for n, demos in file.masks.items()} for file in self._files}
        for i, place in enumerate(self._places):
            for name, demos in listed[id(place.file)].items():
                if place.demo in demos:
                    masks.setdefault(name, []).append(i)
        return {name: tuple(indices) for name, indices in masks.items()}

    def model(self, name: str) -> bytes:
        """Return the MJCF that episodes name in `EpisodeInfo.model`. Raises DatasetError where no file holds it."""
        for file in self._files:
            models = file.models()
            if name in models:
                return models[name]
        raise DatasetError(f"no model {name!r} in {', '.join(str(file.path) for file in self._files)}")

    @property
    def interrupted(self) -> tuple[bool, ...]:
        """Return whether each episode was cut off and recovered."""
        return tuple(self.episode_info(index).interrupted for index in range(len(self)))

    def episode_info(self, index: int) -> EpisodeInfo:
        if index not in self._infos:
            place = self._place(index)
            self._infos[index] = place.file.info(place.demo)
        return self._infos[index]

    def summary(self, index: int) -> tuple[EpisodeInfo, int]:
        """Return what is known about an episode and its T; cheaper than asking for both."""
        place = self._place(index)
        return place.file.summary(place.demo)

    def read(self, index: int, keys: Sequence[str] | None = None) -> Episode:
        """Read one whole episode, checked; `keys` limits the observation keys (all where None)."""
        place = self._place(index)
        return place.file.read(place.demo, self._keys(keys))

    def arrays(self, index: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return (T, ...) arrays of one episode by their names in the file: `actions`, `obs/state`, `gate`, ...

        For training: reads nothing else and asks for nothing else to be there. What `columns` has kept is
        read-only.
        """
        place, kept = self._place(index), [name for name in names if name in self._columns]
        if not kept:
            return place.file.arrays(place.demo, names)
        found = place.file.arrays(place.demo, others) if (others := [n for n in names if n not in kept]) else {}
        rows = slice(self._ends[index] - self.lengths[index], self._ends[index])
        return {name: self._columns[name][rows] if name in kept else found[name] for name in names}

    def columns(self, names: Sequence[str], *, keep: bool = True) -> dict[str, np.ndarray]:
        """Return (rows, ...) arrays of all episodes, one after the other; an episode has as many rows as steps.

        Args:
            names: as `arrays` takes them.
            keep: read them once and keep them, read-only, for whoever asks next; for small arrays.

        Raises DatasetError without episodes.
        """
        if not len(self):
            raise DatasetError(f"{self.paths[0]} has no episodes to read")
        new = [name for name in names if name not in self._columns]
        parts = [self.arrays(index, new) for index in range(len(self))] if new else []
        read = {name: np.concatenate([part[name] for part in parts]) for name in new}
        if keep:
            for column in read.values():
                column.flags.writeable = False
            self._columns |= read
        return {name: read[name] if name in read else self._columns[name] for name in names}

    def array_names(self, index: int) -> tuple[str, ...]:
        """Return which per-step arrays an episode has, as `arrays` takes them; `events` and final_obs aside."""
        place = self._place(index)
        return tuple(n for n in place.file.array_names(place.demo) if not n.startswith(("final_obs/", "next_obs/")))

    def events(self, index: int) -> tuple[Event, ...]:
        """Return what happened during an episode, in order."""
        place = self._place(index)
        return place.file.events(place.demo)

    def frame(self, index: int, key: str, step: int) -> np.ndarray:
        """Return (...) one observation of one step, read alone; safe to call from several threads."""
        place = self._place(index)
        return place.file.frame(place.demo, key, step)

    def select(self, indices: Sequence[int]) -> Dataset:
        """Return these episodes as a dataset of their own, on the same open files."""
        subset = object.__new__(Dataset)
        subset._files, subset.header, subset.reading = self._files, self.header, self.reading
        subset._places = [self._place(i) for i in indices]
        subset._infos, subset._columns = {}, {}
        return subset

    @cached_property
    def _ends(self) -> list[int]:
        """The row behind each episode's last one, in columns."""
        return list(accumulate(self.lengths))

    def low_dim_keys(self) -> tuple[str, ...]:
        """Return the observation keys that are kept in memory for training."""
        return tuple(key for key, spec in self.observation_spec.items() if not stored_as_frames(spec))

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Episode]:
        return (self.read(i) for i in range(len(self)))

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _place(self, index: int) -> _Place:
        if not 0 <= index < len(self._places):
            raise DatasetError(f"episode index must lie in [0, {len(self._places)}), received {index}")
        return self._places[index]

    def _keys(self, keys: Sequence[str] | None) -> tuple[str, ...]:
        unknown = [key for key in keys or () if key not in self.observation_spec]
        if unknown:
            raise DatasetError(
                f"no observation keys {unknown} in {self.paths[0]}; it has {list(self.observation_spec)}"
            )
        return tuple(self.observation_spec) if keys is None else tuple(keys)

    def _check_agreement(self) -> None:
        first = self._files[0]
        for file in self._files[1:]:
            same_actions = replace(file.header, action_spec=first.header.action_spec)
            difference = first.header.difference(same_actions) or _other_actions(file, first)
            if difference:
                raise DatasetError(f"{file.path} does not fit {first.path}: {difference}{remedy(difference)}")


def _other_actions(file: EpisodeFile, first: EpisodeFile) -> str | None:
    """Return why the same numbers are not the same actions in two files; None where they are."""
    sides = [
        Interface(name=str(f.path), observation_spec=f.header.observation_spec, action_spec=f.header.action_spec)
        for f in (file, first)
    ]
    try:
        same = reconcile_actions(*sides).is_identity
    except PolicyError as error:
        return f"action_spec differs: {error}"
    return None if same else f"action_spec differs: {_limits(file)}, {_limits(first)}"


def _limits(file: EpisodeFile) -> str:
    spec = file.header.action_spec
    return f"{file.path.name} has limits {list(spec.low)} to {list(spec.high)}"


def remedy(difference: str) -> str:
    """Return what to do about files that differ so; the reading's options bring them together."""
    for name, words in REMEDIES.items():
        if difference.startswith(name):
            return f"; {words}"
    return ""


REMEDIES = {
    "action_spec": "give the limits that both are to have, --limits LOW HIGH, where their actions have the same units",
    "observation_spec": "rename or leave out what differs: --rename '{old: new}', --drop KEY",
    "control_hz": "files of different control rates cannot lie in one data set",
}
