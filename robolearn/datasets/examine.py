"""A look at data before it is trained on: what must not be learned from is refused, what is odd is named.

Training calls `check_trainable` before anything else; `dataset info` and `validate` show the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.configuration.parts.dataset_names import beside
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.format.units import ROUNDING, to_physical
from robolearn.datasets.normalisation import Glitch, find_glitches
from robolearn.errors import DatasetError, hint, option
from robolearn.picture_layout import is_depth

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Actions beyond the limits that a file states or was assumed to have."""

    share: float
    """Of the steps."""
    value: float
    """The worst one, in physical units."""
    limit: float
    """What it is beyond."""
    name: str
    """Of its dimension."""
    step: int
    episode: str

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of the steps; the worst is {self.name} = {self.value:g}, beyond {self.limit:g}, at step "
            f"{self.step} of {self.episode}"
        )


def check_trainable(
    dataset: Dataset, keys: Sequence[str] | None = None, actions: Sequence[str] = ("actions",)
) -> tuple[str, ...]:
    """Return what is odd in the data, a line each.

    Args:
        keys: observation keys that are trained on (all where None).
        actions: arrays of actions that are learned from; an episode need not have them all.

    Raises DatasetError where an action lies outside of its limits or is not finite, an observation is not finite, an
    episode's facts cannot be read, a key is a depth picture that no encoder takes, or a file is there twice.
    """
    _check_no_file_twice(dataset)
    seen = tuple(dataset.observation_spec) if keys is None else tuple(keys)
    _check_pictures(dataset, seen)
    for index in range(len(dataset)):
        dataset.episode_info(index)
    _check_finite(dataset, seen)
    check_limits(dataset, actions)
    return (*_never_moved(dataset), *map(str, glitches(dataset, seen)))


def _check_no_file_twice(dataset: Dataset) -> None:
    """Raise DatasetError where two names lead to one file: half of a split would be learned by heart."""
    known: dict[Path, Path] = {}
    for path in dataset.paths:
        if (first := known.setdefault(path.resolve(), path)) is not path:
            raise DatasetError(f"{path} is the same file as {first}: its episodes would count twice; name it once")


def _never_moved(dataset: Dataset) -> Sequence[str]:
    """Say that actions are the same at every step of all episodes, as a recorder writes them that forgot to."""
    actions = dataset.columns(["actions"])["actions"] if len(dataset) else np.empty((0, 0))
    if len(actions) < 2 or (actions != actions[0]).any():
        return ()
    first = actions[0]
    values = ", ".join(f"{value:g}" for value in first[:SHOWN]) + (", ..." if len(first) > SHOWN else "")
    return (f"actions are the same at every step of all episodes ({values}): did the recorder write them?",)


def check_limits(dataset: Dataset, names: Sequence[str] = ("actions",)) -> None:
    """Raise DatasetError where actions lie outside of their limits, with their share and the worst of them."""
    found = outside(dataset, names)
    if found is None:
        return
    path = dataset.paths[0]
    spec = dataset.action_spec
    assumed = " that files of robomimic's layout have by convention" if not dataset.ours else ""
    given = dataset.reading.limits
    what = f"--limits {' '.join(given)}" if given else f"the limits {min(spec.low):g} to {max(spec.high):g}{assumed}"
    new = beside(path, "_scaled")
    raise DatasetError(
        f"actions of {path} lie outside of {what}: {found}. Give their physical limits, --limits LOW HIGH, or take the "
        f"range in the data: `{hint('dataset', 'convert', path, new, '--limits', 'data')}`"
    )


def outside(dataset: Dataset, names: Sequence[str] = ("actions",)) -> Outside | None:
    """Return how far actions lie outside of [-1, 1] of their limits; None where none does.

    Args:
        names: arrays of actions; what is NaN in labels was not asked for.
    """
    steps, bad, worst = 0, 0, None
    for index in range(len(dataset)):
        for array in dataset.arrays(index, names).values():
            actions = array.astype(np.float64)
            over = np.where(np.isfinite(actions), np.abs(actions) - 1.0, -1.0)
            steps, bad = steps + len(actions), bad + int((over.max(axis=1) > ROUNDING).sum())
            at = np.unravel_index(int(over.argmax()), over.shape)
            if over[at] > ROUNDING and (worst is None or over[at] > worst[0]):
                worst = (float(over[at]), index, int(at[0]), int(at[1]), actions[at[0]])
    if worst is None:
        return None
    _, index, step, dim, row = worst
    spec = dataset.action_spec
    return Outside(
        share=bad / steps,
        value=float(to_physical(row, spec)[dim]),
        limit=spec.high[dim] if row[dim] > 0 else spec.low[dim],
        name=spec.names[dim],
        step=step,
        episode=dataset.episodes[index],
    )


def glitches(dataset: Dataset, keys: Sequence[str] | None = None) -> list[Glitch]:
    """Return the steps at which an observation lies absurdly far from all others, at most SHOWN for each key."""
    low_dim = dataset.low_dim_keys() if len(dataset) else ()
    found: list[Glitch] = []
    for key in low_dim if keys is None else [key for key in keys if key in low_dim]:
        name = f"obs/{key}"
        found += find_glitches(name, dataset.columns([name])[name], dataset.lengths, dataset.episodes)[:SHOWN]
    return found


def _check_pictures(dataset: Dataset, keys: Sequence[str]) -> None:
    for key in keys:
        spec = dataset.observation_spec[key]
        if is_depth(spec):
            raise DatasetError(
                f"obs/{key} of {dataset.paths[0]} is a depth picture, {spec.dtype} {spec.shape}, which no encoder "
                "takes; scale it to 8 bits by its range, --depth_range NEAR FAR (in the file's unit), or leave it out, "
                f"{option('drop', key)}"
            )


def _check_finite(dataset: Dataset, keys: Sequence[str]) -> None:
    names = [f"obs/{key}" for key in keys if key in dataset.low_dim_keys()] + ["actions"]
    for name, column in dataset.columns(names).items() if len(dataset) else ():
        if column.dtype.kind != "f":
            continue
        bad = ~np.isfinite(column.reshape(len(column), -1)).all(axis=1)
        if bad.any():
            row, ends = int(bad.argmax()), np.cumsum(dataset.lengths)
            index = int(np.searchsorted(ends, row, side="right"))
            episode, step = dataset.episodes[index], row - int(ends[index]) + dataset.lengths[index]
            raise DatasetError(
                f"{name} is not finite at step {step} of {episode}; leave the episode out: {option('exclude', episode)}"
            )
