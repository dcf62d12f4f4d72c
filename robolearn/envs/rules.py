"""The rules of an episode's end, once for all back ends: time limit, success, and which end goes first. Free of torch.

An episode goes on until one of two flags is set, never both. `terminated` goes first: the task ended, by the
environment's own word or because it was solved. `truncated` is all else: the environment's own word or the time limit.

Flags are bools for one environment, or (N,) bool of NumPy or torch for N of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from robolearn.configuration.parts.task import TaskConfig
from robolearn.errors import TaskError

SUCCESS_KEYS = ("is_success", "success")
"""Entries of `info` that say whether a task is solved, where the task names none."""

Flags = TypeVar("Flags")


def ends(terminated: Flags, truncated: Flags, success: Flags, *, terminate_on_success: bool) -> tuple[Flags, Flags]:
    """Return `terminated` and `truncated` after a step, at most one of which is set in each environment."""
    ended: Any = terminated
    if terminate_on_success:
        ended = ended | success
    return ended, (ended | truncated) ^ ended  # truncated & ~terminated, in terms that bools know as well


@dataclass(frozen=True, kw_only=True)
class EpisodeRules:
    """The rules of a Gymnasium task: the end of its episodes, and their success."""

    task: TaskConfig
    max_steps: int
    """Control steps after which an episode is truncated."""

    @classmethod
    def of(cls, task: TaskConfig, *own_limits: int | None) -> EpisodeRules:
        """Return the rules of a task, with its own limit or else the first one that the environment has.

        Raises TaskError where there is none.
        """
        limit = next((limit for limit in (task.max_steps, *own_limits) if limit), None)
        if limit is None:
            raise TaskError(f"{task.id} has no time limit of its own; set one with --task.max_steps")
        return cls(task=task, max_steps=int(limit))

    @property
    def measured(self) -> bool:
        """Success is a matter of return or reward, not of `info`."""
        return self.task.success_threshold is not None

    @property
    def success_keys(self) -> tuple[str, ...]:
        """Entries of `info` to look for, in this order."""
        return (self.task.success_key,) if self.task.success_key else SUCCESS_KEYS

    def reached(self, returns: Any, rewards: Any) -> Any:
        """Return success by returns so far or rewards of the step, one or (N,), where it is `measured`; else False."""
        threshold = self.task.success_threshold
        if threshold is None:
            return False
        return (returns if self.task.success_measure == "return" else rewards) >= threshold

    def check_told(self, told: bool, info: Mapping[str, Any]) -> None:
        """Raise TaskError where an episode ended and `info` has not said whether the task is solved.

        Only of a key that the task names, and only at the end: some environments report it with the last step.
        """
        if self.task.success_key and not told:
            raise TaskError(f"success_key {self.task.success_key!r} is not in info at the end; it has {sorted(info)}")

    def ends(self, terminated: Any, truncated: Any, success: Any, elapsed: Any) -> tuple[Any, Any]:
        """Return `terminated` and `truncated` of episodes that are `elapsed` steps old; see `ends` of this module."""
        truncated = truncated | (elapsed >= self.max_steps)
        return ends(terminated, truncated, success, terminate_on_success=self.task.terminate_on_success)
