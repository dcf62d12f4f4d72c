"""All tasks by name: robolearn's own, and those that other packages add through the entry point `robolearn.tasks`.

Torch-free to import, so that listing and completing names is quick.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from robolearn.errors import TaskError

GROUP = "robolearn.tasks"

_OWN = {
    "Reach": ("reach", "bring the tool to a point in space: the sanity check"),
    "Lift": ("lift", "grasp and lift a cube at a random pose"),
    "PickPlace": ("pick_place", "put a cube into one of three bins; the goal is in the observation"),
    "Stack": ("stack", "put a cube on a cube: precision and a long horizon"),
    "PegInsert": ("peg_insert", "peg into a hole with 0.8 mm clearance on a radius of 8 mm: the headline task"),
    "PushT": ("push_t", "push a T onto its outline: planar pushing, many ways to do it"),
    "Fork": ("fork", "reach a goal behind a wall, by the left or by the right: mode averaging made visible"),
}


def names() -> list[str]:
    """All known tasks: our own in teaching order, then others' by name."""
    return [*_OWN, *sorted(_others())]


def own_names() -> list[str]:
    """The tasks that ship with robolearn."""
    return list(_OWN)


def summary(name: str) -> str:
    """What a task is for, in a line; for another package's task, where it comes from."""
    return _OWN[name][1] if name in _OWN else f"from {_others()[name].value}"


def task_factory(name: str) -> Callable[..., Any]:
    """The factory `(num_envs, *, backend, device, **options) -> VectorEnv` of a task.

    Raises TaskError on an unknown name, with the closest known one, and where another package's module is broken.
    """
    if name in _OWN:
        module = importlib.import_module(f"robolearn.tasks.{_OWN[name][0]}")
        return getattr(module, name).make
    others = _others()
    if name in others:
        try:
            return others[name].load()
        except (ImportError, AttributeError) as error:
            raise TaskError(
                f"task {name!r} is registered as {others[name].value}, which does not load: {error}"
            ) from None
    known = names()
    folded = [k for k in known if k.lower() == name.lower()]
    close = folded or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."
    raise TaskError(f"unknown task {name!r}; {hint}")


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in _OWN}
