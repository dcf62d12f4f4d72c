"""All tasks by name, from the entry points `robolearn.tasks`: robolearn's own and those that other packages add.

An entry point names a `Task` class, which says itself what it is for, or a factory of any other `VectorEnv`:
`(num_envs, *, backend, device, **options)`. Listing and completing names imports neither torch nor MuJoCo.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from robolearn.errors import TaskError

if TYPE_CHECKING:
    from robolearn.tasks.task import Task

GROUP = "robolearn.tasks"


def names() -> list[str]:
    """List all known tasks: our own, then others', each by name."""
    points = _points()
    return sorted(points, key=lambda name: (not _is_own(points[name]), name))


def own_names() -> list[str]:
    """List the tasks that ship with robolearn."""
    return [name for name in names() if _is_own(_points()[name])]


def summary(name: str) -> str:
    """Say in a line what a task is for, or where it comes from if its factory does not say. Imports the task."""
    return getattr(load(name), "summary", None) or f"from {_points()[name].value}"


def load(name: str) -> type[Task] | Callable[..., Any]:
    """Return the class or factory of a task.

    Raises TaskError on an unknown name, with the closest known one, and where another package's module is broken.
    """
    points = _points()
    if name in points:
        try:
            return points[name].load()
        except (ImportError, AttributeError) as error:
            raise TaskError(
                f"task {name!r} is registered as {points[name].value}, which does not load: {error}"
            ) from None
    folded = [known for known in points if known.lower() == name.lower()]
    close = folded or difflib.get_close_matches(name, points, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names())}, and gym:<id> for Gymnasium's"
    raise TaskError(f"unknown task {name!r}; {hint}")


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _is_own(point: EntryPoint) -> bool:
    return point.value.startswith("robolearn.")
