"""Converting datasets: robomimic, ALOHA/ACT folders and Minari in; robomimic and Minari out.

What the target cannot hold, or the source does not say, is listed in the result and never made up in silence.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.format.schema import Header
from robolearn.datasets.recording.durable_files import parts_of, publish
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.errors import DatasetError
from robolearn.specs import ActionSpec, Episode

Format = Literal["robolearn", "robomimic", "aloha", "minari"]
MINARI_PREFIX = "minari:"
WRITE_BYTES = 64 << 20
"""Whole episodes are committed together up to about this size."""


@dataclass
class Source:
    """A dataset to convert, whatever it is stored in."""

    header: Header
    episodes: Iterator[Episode]
    """In order; consumed once."""
    count: int
    models: Mapping[str, bytes] = field(default_factory=dict)
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Indices of episodes by mask name."""
    lost: list[str] = field(default_factory=list)
    """What the source does not say, or what we cannot hold; complete once the episodes are consumed."""


@dataclass(frozen=True)
class Conversion:
    """What a conversion did."""

    episodes: int
    lost: tuple[str, ...]
    """What the new dataset does not hold, or holds by assumption, one line each."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Literal["robolearn", "robomimic", "minari"] = "robolearn",
    control_hz: float | None = None,
    success: bool = True,
) -> Conversion:
    """Write `source` anew as `target`, which must not exist.

    Args:
        source: a dataset file of ours or of robomimic's layout, a folder of ALOHA's `episode_<i>.hdf5`, a folder of a
            Minari dataset, or `minari:ID` for one that Minari has stored.
        target: a file; for Minari a folder, or `minari:ID`.
        control_hz: for sources that do not say their control rate.
        success: ALOHA's and Minari's episodes carry no success; whether to take them as successful.
    """
    from robolearn.datasets.tools import minari as convert_minari, robomimic as convert_robomimic

    if not str(target).startswith(MINARI_PREFIX) and Path(target).exists():
        raise DatasetError(f"{target} exists already; converting always writes anew: choose another name")
    opened = open_source(source, control_hz=control_hz, success=success)
    if to == "minari":
        opened.lost.extend(convert_minari.write(opened, str(target)))
    elif to == "robomimic":
        opened.lost.extend(convert_robomimic.write(opened, Path(target)))
    else:
        write(opened, Path(target))
    return Conversion(opened.count, tuple(dict.fromkeys(opened.lost)))


def open_source(source: str | Path, *, control_hz: float | None, success: bool) -> Source:
    """The dataset at `source`, told by what it is."""
    from robolearn.datasets.tools import (
        aloha as convert_aloha,
        minari as convert_minari,
        robomimic as convert_robomimic,
    )

    kind = detect(source)
    if kind == "minari":
        return convert_minari.read(str(source), control_hz=control_hz, success=success)
    if kind == "aloha":
        return convert_aloha.read(Path(source), control_hz=control_hz, success=success)
    if kind == "robomimic":
        return convert_robomimic.read(Path(source), control_hz=control_hz)
    return _read_own(Path(source))


def detect(source: str | Path) -> Format:
    """Which layout `source` has. Raises DatasetError where it is none that we know."""
    path = Path(source)
    if str(source).startswith(MINARI_PREFIX):
        return "minari"
    if path.is_dir():
        if any((folder / "main_data.hdf5").exists() for folder in (path, path / "data")):
            return "minari"
        if any(path.glob("episode_*.hdf5")):
            return "aloha"
        raise DatasetError(f"{path} holds neither ALOHA's episode_<i>.hdf5 nor Minari's main_data.hdf5")
    from robolearn.datasets.format import checked as safe

    with safe.open_file(path) as file:
        return "robolearn" if "schema" in file.attrs else "robomimic"


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


def action_limits(low: np.ndarray, high: np.ndarray) -> ActionSpec:
    """Physical limits that take in all recorded actions; a dimension that never moves gets room around it."""
    still = high - low < 1e-6
    return ActionSpec(
        low=tuple(np.where(still, low - 0.5, low).astype(float).tolist()),
        high=tuple(np.where(still, high + 0.5, high).astype(float).tolist()),
    )


def to_unit(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """(T, A) physical -> float32 in [-1, 1]; in float64, so that the way back gives the same numbers."""
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    return np.clip((2.0 * actions.astype(np.float64) - (low + high)) / (high - low), -1.0, 1.0).astype(np.float32)


def to_physical(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """(T, A) in [-1, 1] -> float64 physical."""
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    return 0.5 * (low + high) + actions.astype(np.float64) * (0.5 * (high - low))


def _batches(episodes: Iterator[Episode]) -> Iterator[list[Episode]]:
    """Episodes in groups of about WRITE_BYTES."""
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


def _read_own(path: Path) -> Source:
    dataset = Dataset(path)
    infos = dataset.info
    models = {name: dataset.model(name) for name in sorted({info.model for info in infos} - {""})}

    def episodes() -> Iterator[Episode]:
        with dataset:
            yield from dataset

    return Source(dataset.header, episodes(), len(dataset), models, dataset.masks)
