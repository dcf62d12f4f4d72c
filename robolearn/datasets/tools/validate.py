"""Finding every fault of a dataset file, with its place and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe, probe
from robolearn.datasets.format.episode_file import EpisodeFile
from robolearn.datasets.format.schema import SCHEMA
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.errors import DatasetError
from robolearn.specs import ActionMode

RERECORD = "delete the episode (`robolearn dataset delete`) or restore the file from a copy"
RESTORE = "restore the file from a copy"


@dataclass(frozen=True)
class Problem:
    """One fault."""

    place: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message} -> {self.remedy}"


def validate(path: str | Path) -> list[Problem]:
    """Read everything in the file once and list what is wrong; an empty list means that all of it is usable.

    Every frame is inflated against its checksum, every small array against its own, every value against the schema.
    Never raises for what is in the file. Files of robomimic's layout have no checksums: there, a damaged value that is
    still a plausible one cannot be seen.
    """
    path = Path(path)
    try:
        probe.check(path)
        file = EpisodeFile(path)
    except DatasetError as error:
        return [Problem(str(path), str(error), _open_remedy(path))]
    try:
        return list(_problems(file))
    finally:
        file.close()


def _problems(file: EpisodeFile) -> Iterator[Problem]:
    name = file.path.name
    if file.recording:
        yield Problem(
            name,
            "is the index of a recording that goes on or was interrupted",
            f"wait until it has finished, or `robolearn dataset repair {name}`",
        )
    elif parts_of(file.path).exists():
        yield Problem(name, f"{parts_of(file.path).name} was left beside it", f"`robolearn dataset repair {name}`")
    total = 0
    for demo in file.demos():
        problems = list(_episode_problems(file, demo))
        yield from problems
        if not problems:
            total += file.steps(demo)
    yield from _guarded(f"{name}:/data", RESTORE, lambda: _total_problems(file))
    yield from _guarded(f"{name}:/mask", "set the mask again", lambda: _mask_problems(file))
    yield from _guarded(f"{name}:/models", RESTORE, lambda: _model_problems(file))


def _guarded(place: str, remedy: str, check: Callable[[], Iterator[Problem]]) -> Iterator[Problem]:
    """Return a check's problems; what it raises is a problem too, and ends it."""
    try:
        yield from check()
    except DatasetError as error:
        yield Problem(place, str(error), remedy)


def _episode_problems(file: EpisodeFile, demo: str) -> Iterator[Problem]:
    place = f"{file.path.name}:/data/{demo}"

    def attributes() -> Iterator[Problem]:
        file.info(demo)
        yield from ()

    def arrays() -> Iterator[Problem]:
        for name in file.array_names(demo):
            yield from _guarded(f"{place}/{name}", RERECORD, lambda name=name: _read_problems(file, demo, name))

    def values() -> Iterator[Problem]:
        episode = file.read(demo, tuple(k for k, s in file.header.observation_spec.items() if not s.is_image))
        ended = episode.terminated | episode.truncated
        if ended[:-1].any():
            yield Problem(place, f"the episode ends at step {int(ended.argmax())} of {len(ended)}", RERECORD)
        assert episode.action_modes is not None
        strange = set(np.unique(episode.action_modes).tolist()) - {int(mode) for mode in ActionMode}
        if strange:
            yield Problem(f"{place}/action_modes", f"unknown modes {sorted(strange)}; expected -1, 0 or 1", RERECORD)
        for name in ("policy_actions", "expert_actions"):
            rows = getattr(episode, name)
            halves = ~(np.isfinite(rows).all(axis=1) | np.isnan(rows).all(axis=1))
            if halves.any():
                yield Problem(f"{place}/{name}", f"step {int(halves.argmax())} is neither finite nor all NaN", RERECORD)
        if any(not 0 <= event.step <= len(episode) for event in episode.events):
            yield Problem(f"{place}/events", "an event lies outside of the episode", RERECORD)
        if episode.info.model and episode.info.model not in file.models():
            yield Problem(place, f"names the model {episode.info.model}, which the file does not hold", RERECORD)

    problems = [*_guarded(place, RERECORD, attributes), *_guarded(place, RERECORD, arrays)]
    if not problems:
        problems = [*_guarded(place, RERECORD, values)]
    if file.ours and not problems:
        problems = [*_guarded(place, RERECORD, lambda: _consistency_problems(file, demo))]
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
            yield Problem(f"{place}/dones", "differs from terminated or truncated", RERECORD)
        for folder in ("obs", "final_obs"):
            extra = set(safe.names(safe.group(group, folder))) - set(file.header.observation_spec)
            if extra:
                yield Problem(f"{place}/{folder}", f"holds keys that observation_spec lacks: {sorted(extra)}", RERECORD)
        views = safe.group(group, "next_obs")
        if set(safe.names(views)) != set(file.header.observation_spec):
            yield Problem(f"{place}/next_obs", "has other keys than obs", RERECORD)
            return
        for key in file.header.observation_spec:
            if not _is_shifted_view(safe.dataset(views, key), f"{group.name}", key, steps):
                yield Problem(
                    f"{place}/next_obs/{key}",
                    "is not the view of obs and final_obs that it should be",
                    "merge the file into a new one, which makes the views anew",
                )


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


def _total_problems(file: EpisodeFile) -> Iterator[Problem]:
    total = sum(file.steps(demo) for demo in file.demos())
    if file.ours and file.total != total:
        yield Problem(
            f"{file.path.name}:/data",
            f"total is {file.total}, the episodes have {total} steps",
            "merge the file into a new one, which counts anew",
        )


def _mask_problems(file: EpisodeFile) -> Iterator[Problem]:
    known = set(file.demos())
    for name, demos in file.masks.items():
        missing = sorted(set(demos) - known)
        if missing:
            yield Problem(
                f"{file.path.name}:/mask/{name}",
                f"names episodes that are not there: {missing[:5]}",
                "merge the file into a new one, which drops them",
            )


def _model_problems(file: EpisodeFile) -> Iterator[Problem]:
    file.models()
    yield from ()


def _open_remedy(path: Path) -> str:
    if parts_of(path).exists():
        return f"`robolearn dataset repair {path}` makes it anew from {parts_of(path).name}"
    return f"{RESTORE}; expected an HDF5 file of schema {SCHEMA} or of robomimic's layout"
