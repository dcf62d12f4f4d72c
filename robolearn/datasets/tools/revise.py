"""A new file from an old one with its episodes marked anew, trimmed or left out, and with masks of one's own.

What a person decides in the viewer goes through here. The input is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.format.episode_file import EpisodeFile
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.datasets.tools import convert, edit
from robolearn.datasets.tools.source import Source
from robolearn.errors import DatasetError
from robolearn.specs import Episode, Event


@dataclass(frozen=True, kw_only=True)
class Revision:
    """The fate of one episode."""

    success: bool | None = None
    """None leaves it as recorded."""
    first: int = 0
    """First step that is kept."""
    last: int | None = None
    """Last step that is kept; None keeps all to the end."""

    @property
    def trims(self) -> bool:
        return self.first > 0 or self.last is not None


def revise(
    path: str | Path,
    output: str | Path,
    *,
    revisions: Mapping[str, Revision],
    deleted: Sequence[str] = (),
    masks: Mapping[str, Sequence[str]] | None = None,
    reading: Reading = NOTHING,
) -> list[str]:
    """Write `output` with the episodes of `path` that are not in `deleted`, revised.

    Episodes of a file of ours keep their names, and all but the trimmed ones are copied as stored. A file of
    robomimic's layout is converted, and its episodes are numbered anew from 0.

    Args:
        revisions: by the episode's name in `path`.
        masks: by name, the names (in `path`) of the episodes of each; replaces the file's masks of the same name.
        reading: what the file does not say, and what of it is wanted.

    Returns what the new file does not hold as it was, one line each. Raises DatasetError where a name is unknown or a
    trim leaves nothing.
    """
    path, output = Path(path), Path(output)
    edit.check_output(output)
    with Dataset(path, reading=reading) as dataset:
        names, ours = list(dataset.episodes), dataset.ours
        lists = {name: [names[i] for i in indices] for name, indices in dataset.masks.items()} | dict(masks or {})
    _check_names(path, names, [*revisions, *deleted, *(name for group in (masks or {}).values() for name in group)])
    kept = [name for name in names if name not in set(deleted)]
    if not kept:
        raise DatasetError(f"every episode of {path} is marked for deletion; a dataset needs at least one")
    lists = {name: [demo for demo in demos if demo in set(kept)] for name, demos in lists.items()}
    lists = {name: demos for name, demos in lists.items() if demos}
    if ours and not reading.changes:
        return _copy(path, output, kept, revisions, lists)
    return _convert(path, output, kept, revisions, lists, reading)


def _copy(
    path: Path, output: Path, kept: Sequence[str], revisions: Mapping[str, Revision], masks: Mapping[str, Sequence[str]]
) -> list[str]:
    """Copy whole episodes as they lie in the file, and bring the trimmed ones in by way of a temporary file."""
    trimmed = [name for name in kept if name in revisions and revisions[name].trims]
    whole = {name: name for name in kept if name not in set(trimmed)}
    success = {name: revisions[name].success for name in whole if name in revisions}
    scratch = output.with_name(output.name + ".trimmed.tmp")
    with ExitStack() as stack:
        recorded = edit.open_file(stack, path)
        sources: list[tuple[EpisodeFile, Mapping[str, str]]] = [(recorded, whole)]
        stack.callback(scratch.unlink, missing_ok=True)
        if trimmed:
            with Dataset(path) as dataset:
                number = {name: i for i, name in enumerate(dataset.episodes)}
                cut = (revised(dataset.read(number[name]), revisions[name]) for name in trimmed)
                convert.write(Source(dataset.header, cut, len(trimmed)), scratch)
            file = edit.open_file(stack, scratch)
            sources.append((file, dict(zip(file.demos(), trimmed))))
        changed = {name: value for name, value in success.items() if value is not None}
        lost = convert.left_over_of(recorded, trimmed)
        return [*edit.assemble(output, sources, masks=masks, success=changed), *lost]


def _convert(
    path: Path,
    output: Path,
    kept: Sequence[str],
    revisions: Mapping[str, Revision],
    masks: Mapping[str, Sequence[str]],
    reading: Reading,
) -> list[str]:
    with Dataset(path, reading=reading) as dataset:
        names = list(dataset.episodes)
    source = convert.open_source(path, reading)
    number, episodes = {name: i for i, name in enumerate(kept)}, source.episodes
    source.episodes = (
        revised(episode, _within(revisions.get(name, Revision()), len(episode)))
        for name, episode in zip(names, episodes)
        if name in number
    )
    source.masks = {name: tuple(number[demo] for demo in demos) for name, demos in masks.items()}
    convert.write(source, output)
    return list(dict.fromkeys(source.lost))


def _within(revision: Revision, steps: int) -> Revision:
    """Return a revision for an episode that lost its last step on the way, for want of what followed it."""
    return replace(revision, last=None) if revision.last is not None and revision.last >= steps - 1 else revision


def revised(episode: Episode, revision: Revision) -> Episode:
    """Return `episode` with its success set and its steps cut to [first, last].

    Where steps are cut off at the end, the episode counts as truncated there, and the observation after the last kept
    action becomes the final one. Time begins anew with the first kept step. Counts of the recording, such as steps that
    were late, stay as they are.
    """
    steps = len(episode)
    first, last = revision.first, steps - 1 if revision.last is None else revision.last
    if not 0 <= first <= last < steps:
        raise DatasetError(f"a trim must keep steps within 0 to {steps - 1}, received {first} to {last}")
    if revision.success is not None:
        episode = episode.with_info(success=revision.success)
    if (first, last) == (0, steps - 1):
        return episode
    rows = slice(first, last + 1)
    truncated, terminated = episode.truncated[rows].copy(), episode.terminated[rows].copy()
    final = episode.final_obs
    if last < steps - 1:
        truncated[-1], terminated[-1] = True, False
        final = {key: value[last + 1] for key, value in episode.obs.items()}
    began_s = float(episode.timestamps[first] - episode.timestamps[0])
    return replace(
        episode,
        obs={key: value[rows] for key, value in episode.obs.items()},
        final_obs=final,
        actions=episode.actions[rows],
        rewards=episode.rewards[rows],
        terminated=terminated,
        truncated=truncated,
        timestamps=episode.timestamps[rows] - began_s,
        events=_events(episode, first, last, began_s),
        **{name: _rows(getattr(episode, name), rows) for name in _OPTIONAL},
    )


_OPTIONAL = ("states", "action_modes", "policy_actions", "expert_actions", "gate")


def _rows(array: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if array is None else array[rows]


def _events(episode: Episode, first: int, last: int, began_s: float) -> tuple[Event, ...]:
    kept = [event for event in episode.events if first <= event.step <= last]
    return tuple(replace(event, step=event.step - first, time_s=event.time_s - began_s) for event in kept)


def set_masks(path: str | Path, masks: Mapping[str, Sequence[str]]) -> None:
    """Set filter keys of a file of ours in place: as crash-safe as recording, since it is done by the same writer."""
    with Dataset(path) as dataset:
        header = dataset.header
        _check_names(Path(path), list(dataset.episodes), [name for group in masks.values() for name in group])
    with DatasetWriter(
        Path(path),
        task=header.task,
        env_args=header.env_args,
        control_hz=header.control_hz,
        action_spec=header.action_spec,
        observation_spec=header.observation_spec,
        append=True,
    ) as writer:
        for name, demos in masks.items():
            writer.add_mask(name, demos)


def _check_names(path: Path, names: Sequence[str], asked: Sequence[str]) -> None:
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise DatasetError(f"{path} has no episodes {unknown[:3]}; it has {len(names)} from {names[:1]}")


@dataclass(frozen=True, kw_only=True)
class Idle:
    """What counts as standing still."""

    still: float = 0.01
    """Share of each dimension's range in the file within which an observation stays where it is."""
    keys: tuple[str, ...] = ()
    """Observations that tell; none takes all that are no pictures."""
    margin: int = 2
    """Idle steps that are kept at each end."""


def trim_idle(
    path: str | Path, output: str | Path, idle: Idle, reading: Reading = NOTHING
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Write a new file without the steps at both ends of episodes in which nothing moves.

    Returns the first and last step that is kept of each episode that is cut, and notes. An episode in which nothing
    moves at all stays whole.
    """
    with Dataset(path, reading=reading) as dataset:
        if not len(dataset):
            raise DatasetError(f"{path} holds no episodes to trim")
        keys = idle.keys or dataset.low_dim_keys()
        unknown = [key for key in keys if key not in dataset.low_dim_keys()]
        if unknown or not keys:
            raise DatasetError(
                f"{path} has no observations {unknown} that could tell; {', '.join(dataset.low_dim_keys())}"
            )
        names = [f"obs/{key}" for key in keys]
        rows = [_stacked(dataset.arrays(i, names)) for i in range(len(dataset))]
        spans = np.max([r.max(axis=0) for r in rows], axis=0) - np.min([r.min(axis=0) for r in rows], axis=0)
        cuts: dict[str, tuple[int, int]] = {}
        for name, values in zip(dataset.episodes, rows):
            first, last = moving(values, idle.still * spans, idle.margin)
            if (first, last) != (0, len(values) - 1):
                cuts[name] = (first, last)
    revisions = {name: Revision(first=first, last=last) for name, (first, last) in cuts.items()}
    return cuts, revise(path, output, revisions=revisions, reading=reading)


def moving(rows: np.ndarray, slack: np.ndarray, margin: int) -> tuple[int, int]:
    """Return the first and last step of (T, D) rows that is kept: what moves, and `margin` steps around it."""
    away = [np.flatnonzero((np.abs(rows - rows[end]) > slack).any(axis=1)) for end in (0, -1)]
    if not len(away[0]) or not len(away[1]):
        return 0, len(rows) - 1
    return max(0, int(away[0][0]) - 1 - margin), min(len(rows) - 1, int(away[1][-1]) + 1 + margin)


def _stacked(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return (T, D) float64 all arrays side by side."""
    return np.concatenate([a.reshape(len(a), -1).astype(np.float64) for a in arrays.values()], axis=1)
