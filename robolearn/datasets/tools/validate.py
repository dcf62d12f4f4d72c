"""Finding every fault of a dataset file, with its place and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.configuration.parts.dataset_names import beside
from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.examine import check_trainable, outside
from robolearn.datasets.format import checked as safe, probe
from robolearn.datasets.format.episode_file import EpisodeFile, check_choice
from robolearn.datasets.format.leaves import descend, walk
from robolearn.datasets.format.schema import SCHEMA
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.tools.edit import duplicates
from robolearn.errors import DatasetError, hint
from robolearn.specs import ActionMode, join_key

RESTORE = "restore the file from a copy"
LEAVE_OUT = "leave out"
"""Stands for the command that leaves out every faulty episode, until all are known."""


@dataclass(frozen=True)
class Problem:
    """One fault."""

    place: str
    message: str
    remedy: str
    """In words, or a command line between backticks that mends it."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message} -> {self.remedy}"


@dataclass(frozen=True)
class Findings:
    """What a file is like."""

    problems: list[Problem]
    """What is wrong; with none, all of the file is usable."""
    assumed: tuple[str, ...] = ()
    """What the file does not say and was assumed."""
    odd: tuple[str, ...] = ()
    """What is usable and should be looked at."""


def validate(path: str | Path, reading: Reading = NOTHING) -> list[Problem]:
    """Return what is wrong with a file, see `examine`; an empty list means that all of it is usable."""
    return examine(path, reading).problems


def examine(path: str | Path, reading: Reading = NOTHING) -> Findings:
    """Read everything in the file once and list what is wrong, assumed and odd.

    Every frame is inflated against its checksum, every small array against its own, every value against the schema.
    Never raises for what is in the file. Files of robomimic's layout have no checksums: there, a damaged value that is
    still a plausible one cannot be seen.
    """
    path = Path(path)
    try:
        probe.check(path)
        file = EpisodeFile(path, reading)
        check_choice([file], reading)
    except DatasetError as error:
        return Findings([Problem(str(path), str(error), _open_remedy(path, str(error), reading))])
    try:
        problems = list(_problems(file))
        bad = [problem.place.rpartition("/data/")[2].partition("/")[0] for problem in problems if _leaves_out(problem)]
        names = list(dict.fromkeys(bad))
        command = _command("delete", path, *names, reading=reading, output="--output")
        if len(names) == len(file.demos()):  # then it is the layout, and no episode would be left
            command = f"no episode is without a fault: {RESTORE}, or mend what wrote it"
        problems = [replace(p, remedy=command) if _leaves_out(p) else p for p in problems]
        return Findings(problems, file.assumptions.lines(), () if problems else tuple(_odd(path, reading)))
    finally:
        file.close()


def _leaves_out(problem: Problem) -> bool:
    return problem.remedy == LEAVE_OUT


def _command(verb: str, path: Path, *words: str, reading: Reading = NOTHING, output: str = "", **changes: Any) -> str:
    """Return a command, between backticks, that writes a mended file beside `path`."""
    number = next(n for n in count(1) if not _mended(path, n).exists())
    target = [output, _mended(path, number)] if output else [_mended(path, number)]
    words = tuple(words) if output else ()
    return f"`{hint('dataset', verb, path, *words, *target, *reading.options(**changes))}`"


def _mended(path: Path, number: int) -> Path:
    return beside(path, f"_mended{'' if number == 1 else number}")


def _problems(file: EpisodeFile) -> Iterator[Problem]:
    path, name = file.path, file.path.name
    anew = _command("merge", path, reading=file.reading, output="--output")
    if file.recording:
        yield Problem(
            name,
            "is the index of a recording that goes on or was interrupted",
            f"`{hint('dataset', 'repair', path)}`, once nobody records into it any more",
        )
    elif parts_of(path).exists():
        yield Problem(name, f"{parts_of(path).name} was left beside it", f"`{hint('dataset', 'repair', path)}`")
    faulty = False
    for demo in file.demos():
        problems = list(_episode_problems(file, demo))
        yield from problems
        faulty |= bool(problems)
    if not faulty:
        yield from _guarded(f"{name}:/data", anew, lambda: _total_problems(file, anew))
        yield from _guarded(f"{name}:/data", anew, lambda: _limit_problems(file))
    yield from _guarded(f"{name}:/mask", anew, lambda: _mask_problems(file, anew))
    yield from _guarded(f"{name}:/models", RESTORE, lambda: _model_problems(file))


def _odd(path: Path, reading: Reading) -> Iterator[str]:
    with Dataset(path, reading=reading) as dataset:
        try:
            yield from check_trainable(dataset)
        except DatasetError as error:
            yield str(error)
        yield from (f"{first} and {second} are the same episode" for first, second in duplicates(dataset))


def _guarded(place: str, remedy: str, check: Callable[[], Iterator[Problem]]) -> Iterator[Problem]:
    """Return a check's problems; what it raises is a problem too, and ends it."""
    try:
        yield from check()
    except DatasetError as error:
        yield Problem(place, str(error), remedy)


def _episode_problems(file: EpisodeFile, demo: str) -> Iterator[Problem]:
    place = f"{file.path.name}:/data/{demo}"

    def attributes() -> Iterator[Problem]:
        file.steps(demo)
        try:
            file.info(demo)
        except DatasetError as error:
            if "--success" not in str(error):
                raise
            remedy = _command("convert", file.path, reading=file.reading, success=False)
            yield Problem(place, str(error), remedy)

    def arrays() -> Iterator[Problem]:
        for name in file.array_names(demo):
            yield from _guarded(f"{place}/{name}", LEAVE_OUT, lambda name=name: _read_problems(file, demo, name))

    def values() -> Iterator[Problem]:
        keys = tuple(k for k, s in file.header.observation_spec.items() if not s.is_image)
        if file.ours or file.has_next_obs:
            episode = file.read(demo, keys)
        elif file.steps(demo) < 2:
            raise DatasetError("has one step, and no next_obs says what followed it")
        else:
            episode = file.read_without_last(demo, keys)
        ended = episode.terminated | episode.truncated
        if ended[:-1].any():
            yield Problem(place, f"the episode ends at step {int(ended.argmax())} of {len(ended)}", LEAVE_OUT)
        assert episode.action_modes is not None
        strange = set(np.unique(episode.action_modes).tolist()) - {int(mode) for mode in ActionMode}
        if strange:
            yield Problem(f"{place}/action_modes", f"unknown modes {sorted(strange)}; expected -1, 0 or 1", LEAVE_OUT)
        for name in ("policy_actions", "expert_actions"):
            rows = getattr(episode, name)
            halves = ~(np.isfinite(rows).all(axis=1) | np.isnan(rows).all(axis=1))
            if halves.any():
                yield Problem(
                    f"{place}/{name}", f"step {int(halves.argmax())} is neither finite nor all NaN", LEAVE_OUT
                )
        if any(not 0 <= event.step <= len(episode) for event in episode.events):
            yield Problem(f"{place}/events", "an event lies outside of the episode", LEAVE_OUT)
        if episode.info.model and episode.info.model not in file.models():
            yield Problem(place, f"names the model {episode.info.model}, which the file does not hold", LEAVE_OUT)

    problems = [*_guarded(place, LEAVE_OUT, attributes)]
    if not problems:
        problems = [*_guarded(place, LEAVE_OUT, arrays)]
    if not problems and not file.scales_badly(demo):
        problems = [*_guarded(place, LEAVE_OUT, values)]
    if file.ours and not problems:
        problems = [*_guarded(place, LEAVE_OUT, lambda: _consistency_problems(file, demo))]
    yield from problems


def _read_problems(file: EpisodeFile, demo: str, name: str) -> Iterator[Problem]:
    file.check_array(demo, name)
    yield from ()


def _consistency_problems(file: EpisodeFile, demo: str) -> Iterator[Problem]:
    """Check what the reader does not need but other tools rely on."""
    place = f"{file.path.name}:/data/{demo}"
    with file.group(demo) as group:
        steps = safe.num_samples(group)
        dones = safe.load(safe.dataset(group, "dones"), (steps,), kinds="u") != 0
        either = file.arrays(demo, ["terminated", "truncated"])
        if not np.array_equal(dones, either["terminated"] | either["truncated"]):
            yield Problem(f"{place}/dones", "differs from terminated or truncated", LEAVE_OUT)
        for folder in ("obs", "final_obs"):
            extra = _keys(safe.group(group, folder)) - file.all_keys
            if extra:
                yield Problem(
                    f"{place}/{folder}", f"holds keys that observation_spec lacks: {sorted(extra)}", LEAVE_OUT
                )
        views = safe.group(group, "next_obs")
        if _keys(views) != file.all_keys:
            yield Problem(f"{place}/next_obs", "has other keys than obs", LEAVE_OUT)
            return
        for key in sorted(file.all_keys):
            if not _is_shifted_view(descend(views, key), f"{group.name}", key, steps):
                yield Problem(
                    f"{place}/next_obs/{key}",
                    "is not the view of obs and final_obs that it should be",
                    _command("convert", file.path, reading=file.reading),
                )


def _keys(group: h5py.Group) -> set[str]:
    """Return the joined names of all arrays below a group."""
    return {join_key(path) for path, _ in walk(group)}


def _is_shifted_view(view: h5py.Dataset, group: str, key: str, steps: int) -> bool:
    """Tell whether the virtual dataset maps rows 0..T-2 to obs[1:] and row T-1 to final_obs, all in this very file."""
    if not view.is_virtual or not view.shape or view.shape[0] != steps:
        return False
    found = []
    for source in view.virtual_sources():
        spaces = [space.get_select_bounds() for space in (source.vspace, source.src_space)]
        found.append((source.file_name, source.dset_name, *[(int(low[0]), int(high[0])) for low, high in spaces]))
    wanted = [(".", f"{group}/final_obs/{key}", (steps - 1, steps - 1), (0, 0))]
    if steps > 1:
        wanted.insert(0, (".", f"{group}/obs/{key}", (0, steps - 2), (1, steps - 1)))
    return sorted(found) == sorted(wanted)


def _total_problems(file: EpisodeFile, remedy: str) -> Iterator[Problem]:
    total = sum(file.steps(demo) for demo in file.demos())
    if file.ours and not file.excluded and file.total != total:
        yield Problem(f"{file.path.name}:/data", f"total is {file.total}, the episodes have {total} steps", remedy)


def _limit_problems(file: EpisodeFile) -> Iterator[Problem]:
    with Dataset(file.path, reading=file.reading) as dataset:
        found = outside(dataset)
    if found is not None:
        remedy = _command("convert", file.path, reading=file.reading, limits=("data",))
        message = f"actions lie outside of the limits, {found}; where these are known, --limits LOW HIGH gives them"
        yield Problem(f"{file.path.name}:/data", message, remedy)


def _mask_problems(file: EpisodeFile, remedy: str) -> Iterator[Problem]:
    known = set(file.all_demos)
    for name, demos in file.masks.items():
        missing = sorted(set(demos) - known)
        if missing:
            yield Problem(f"{file.path.name}:/mask/{name}", f"names episodes that are not there: {missing[:5]}", remedy)


def _model_problems(file: EpisodeFile) -> Iterator[Problem]:
    file.models()
    yield from ()


def _open_remedy(path: Path, message: str, reading: Reading) -> str:
    if parts_of(path).exists():
        return f"`{hint('dataset', 'repair', path)}` makes it anew from {parts_of(path).name}"
    if "does not say its control rate" in message:
        return f"{_command('convert', path, reading=reading, control_hz=20.0)}, with the rate of your robot for 20"
    return f"{RESTORE}; expected an HDF5 file of schema {SCHEMA} or of robomimic's layout"
