"""Converting datasets: robomimic's layout, ALOHA/ACT folders and Minari in; robomimic and Minari out.

What the target cannot hold, what the source does not say, and what of it is not taken is listed in the result, and
nothing is made up in silence.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py

from robolearn.configuration.parts.dataset_names import MINARI
from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.examine import check_limits
from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.episode_file import EpisodeFile
from robolearn.datasets.format.schema import EPISODE_ATTRS
from robolearn.datasets.recording.durable_files import check_no_recording, parts_of, publish
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.datasets.tools import aloha, minari, robomimic
from robolearn.datasets.tools.leftovers import left_over, per_episode
from robolearn.datasets.tools.source import Source
from robolearn.errors import DatasetError
from robolearn.specs import Episode

Format = Literal["robolearn", "robomimic", "aloha", "minari"]
WRITE_BYTES = 64 << 20
"""Whole episodes are committed together up to about this size."""


@dataclass(frozen=True)
class Conversion:
    """Outcome of a conversion."""

    episodes: int
    lost: tuple[str, ...]
    """Facts that the new dataset does not hold, or holds by assumption, one line each."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Literal["robolearn", "robomimic", "minari"] = "robolearn",
    reading: Reading = NOTHING,
) -> Conversion:
    """Write `source` anew as `target`, which must not exist.

    Args:
        source: a dataset file of ours or of robomimic's layout, a folder of ALOHA's `episode_<i>.hdf5`, a folder of a
            Minari dataset, or `minari:ID` for one that Minari has stored.
        target: a file; for Minari a folder, or `minari:ID`.
        reading: what the source does not say, and what of it is wanted.
    """
    if not str(target).startswith(MINARI) and Path(target).exists():
        raise DatasetError(f"{target} exists already; converting always writes anew: choose another name")
    if to != "minari":
        check_no_recording(Path(target))
    opened = open_source(source, reading)
    if to == "minari":
        opened.lost.extend(minari.write(opened, str(target)))
    elif to == "robomimic":
        opened.lost.extend(robomimic.write(opened, Path(target)))
    else:
        write(opened, Path(target))
    return Conversion(opened.count, tuple(dict.fromkeys(opened.lost)))


def open_source(source: str | Path, reading: Reading = NOTHING) -> Source:
    """Open the dataset at `source`, told by what it is."""
    kind = detect(source)
    if kind == "minari":
        return minari.read(str(source), reading)
    if kind == "aloha":
        return aloha.read(Path(source), reading)
    if kind == "robomimic":
        return robomimic.read(Path(source), reading)
    return _read_own(Path(source), reading)


def detect(source: str | Path) -> Format:
    """Tell the layout of `source`. Raises DatasetError where it is none that we know."""
    path = Path(source)
    if str(source).startswith(MINARI):
        return "minari"
    if path.is_dir():
        if any((folder / "main_data.hdf5").exists() for folder in (path, path / "data")):
            return "minari"
        if any(path.glob("episode_*.hdf5")):
            return "aloha"
        raise DatasetError(f"{path} holds neither ALOHA's episode_<i>.hdf5 nor Minari's main_data.hdf5")
    with safe.open_file(path) as file:
        if "schema" in file.attrs:
            return "robolearn"
        return "aloha" if "data" not in file and "action" in file and "observations" in file else "robomimic"


def write(source: Source, target: Path) -> None:
    """Write one of our files; on failure nothing is left behind."""
    header = source.header
    temporary = target.with_name(target.name + ".tmp")
    try:
        with DatasetWriter(
            temporary,
            task=header.task,
            env_args=header.env_args,
            control_hz=header.control_hz,
            action_spec=header.action_spec,
            observation_spec=header.observation_spec,
            models=source.models,
        ) as writer:
            names: list[str] = []
            for batch in _batches(source.episodes):
                names += writer.write_episodes(batch)
            for name, indices in source.masks.items():
                writer.add_mask(name, [names[i] for i in indices])
        publish(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        shutil.rmtree(parts_of(temporary.resolve()), ignore_errors=True)
        raise


def _batches(episodes: Iterator[Episode]) -> Iterator[list[Episode]]:
    """Yield episodes in groups of about WRITE_BYTES."""
    group: list[Episode] = []
    size = 0
    for episode in episodes:
        group.append(episode)
        size += sum(value.nbytes for value in episode.obs.values())
        if size >= WRITE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _read_own(path: Path, reading: Reading) -> Source:
    dataset = Dataset(path, reading=reading)
    try:
        check_limits(dataset)
        infos = dataset.info
        models = {name: dataset.model(name) for name in sorted({info.model for info in infos} - {""})}
        lost = [*dataset.assumptions, *_left_over(dataset)]
    except BaseException:
        dataset.close()
        raise

    def episodes() -> Iterator[Episode]:
        with dataset:
            yield from dataset

    return Source(dataset.header, episodes(), len(dataset), models, dataset.masks, lost)


def _left_over(dataset: Dataset) -> Iterator[str]:
    """Yield what others have put into a file of ours, which whole episodes do not hold."""
    file = dataset.files[0]
    for name in safe.names(file.hdf5):
        if name in ("data", "mask", "models"):
            continue
        with file.follow(file.hdf5, name) as child:
            if isinstance(child, h5py.Group):
                yield from left_over(child, set(), (), name)
            else:
                yield f"{name} {child.shape} {child.dtype}, not taken"

    yield from left_over_of(file, file.demos())


def left_over_of(file: EpisodeFile, demos: Sequence[str]) -> Iterator[str]:
    """Yield what others have put into these episodes of a file of ours, which are not kept as they lie in it."""

    def lines() -> Iterator[str]:
        for name in demos:
            with file.group(name) as group:
                yield from left_over(group, file.taken, EPISODE_ATTRS, "data/demo_i")

    yield from per_episode(lines())
