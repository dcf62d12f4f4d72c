"""Configuration of the sub-verbs of `robolearn dataset`; free of h5py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from robolearn.configuration.parts.dataset_names import check_dataset_name, check_target
from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.tree.bounds import MAX_SEED, MAX_STEPS, check_range
from robolearn.errors import ConfigError


def _positional(**options: Any) -> Any:
    return field(metadata={"positional": True}, **options)


@dataclass(frozen=True, kw_only=True)
class InfoConfig(Reading):
    path: str = _positional()
    """The dataset file."""
    episodes: bool = False
    """List every episode as well."""


@dataclass(frozen=True, kw_only=True)
class ValidateConfig(Reading):
    path: str = _positional()
    """The dataset file."""


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    path: str = _positional()
    """The dataset file of an interrupted recording."""


@dataclass(frozen=True, kw_only=True)
class MergeConfig(Reading):
    paths: tuple[str, ...] = _positional(default=())
    """The files to merge, in order; they stay as they are."""
    output: str
    """The new file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dataset_name("output", self.output)
        if not self.paths:
            raise ConfigError("give the files to merge: robolearn dataset merge a.hdf5 b.hdf5 --output new.hdf5")


@dataclass(frozen=True, kw_only=True)
class SplitConfig(Reading):
    path: str = _positional()
    """The dataset file; NAME.hdf5 becomes NAME_train.hdf5 and NAME_valid.hdf5, or a file per mask."""
    valid_fraction: float = 0.1
    """The share of the episodes that goes into the second file, where the file has no masks train and valid."""
    masks: tuple[str, ...] = ()
    """Split by these masks instead, a file for each."""
    seed: int = 0
    """Which episodes are drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "seed", low=0, high=MAX_SEED)
        if not 0.0 < self.valid_fraction < 1.0:
            raise ConfigError(f"valid_fraction must lie between 0 and 1, received {self.valid_fraction}")


@dataclass(frozen=True, kw_only=True)
class DeleteConfig(Reading):
    path: str = _positional()
    """The dataset file; it stays as it is."""
    episodes: tuple[str, ...] = _positional(default=())
    """Names of the episodes to leave out."""
    output: str
    """The new file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dataset_name("output", self.output)
        if not self.episodes:
            raise ConfigError("name the episodes: robolearn dataset delete a.hdf5 demo_3 demo_7 --output new.hdf5")


@dataclass(frozen=True, kw_only=True)
class FilterConfig(Reading):
    path: str = _positional()
    """The dataset file; it stays as it is."""
    output: str
    """The new file."""
    mask: str | None = None
    """Keep the episodes of this mask."""
    success: bool | None = None
    """Keep successes, or failures."""
    source: Literal["demo", "dagger", "rl"] | None = None
    """Keep episodes that came about this way."""
    operator: str | None = None
    """Keep episodes of this operator."""
    round: int | None = None
    """Keep episodes of this round."""
    interrupted: bool | None = None
    """Keep episodes that were cut off, or those that were not."""
    min_steps: int = 1
    """Keep episodes of at least so many steps."""
    max_steps: int | None = None
    """Keep episodes of at most so many steps."""

    @property
    def reading(self) -> Reading:
        """Here `success` is a condition, and says nothing about episodes that do not."""
        return replace(super().reading, success=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dataset_name("output", self.output)
        check_range(self, "round", "min_steps", low=0)
        check_range(self, "max_steps", low=self.min_steps)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Reading):
    source: str = _positional()
    """A dataset file (ours or robomimic's), a folder of ALOHA or Minari, or minari:ID."""
    target: str = _positional()
    """The new file; for Minari a folder or minari:ID."""
    to: Literal["robolearn", "robomimic", "minari"] = "robolearn"
    """The layout to write."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target("target", self.target, self.to)


@dataclass(frozen=True, kw_only=True)
class TrimConfig(Reading):
    path: str = _positional()
    """The dataset file; it stays as it is."""
    output: str
    """The new file."""
    still: float = 0.01
    """Share of an observation's range within which it counts as not moving."""
    keys: tuple[str, ...] = ()
    """Observations that tell whether something moves; none takes all that are no pictures."""
    margin: int = 2
    """Idle steps that are kept at each end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dataset_name("output", self.output)
        check_range(self, "still", low=0.0, high=1.0)
        check_range(self, "margin", low=0, high=MAX_STEPS)
