"""Environments by name: Gymnasium's under `gym:`, robolearn's own from the entry points `robolearn.tasks`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, Literal

from robolearn.envs.base import VectorEnv
from robolearn.envs.config import GYM_PREFIX, TaskConfig
from robolearn.errors import TaskError

TASKS = "robolearn.tasks"


def make(
    task: str | TaskConfig,
    num_envs: int = 1,
    *,
    backend: Literal["cpu", "warp"] | None = None,
    device: str = "cpu",
    **kwargs: Any,
) -> VectorEnv:
    """`num_envs` environments of a task, stepped together.

    Args:
        task: a name ("Lift", "gym:HalfCheetah-v5") or a configuration.
        backend: physics back end; none takes the configuration's. Gymnasium environments have only "cpu".
        device: where observations and rewards are delivered.
        kwargs: for the environment's constructor, on top of the configuration's.

    Raises TaskError on unknown names (with the closest known one), wrong arguments and missing packages.
    """
    config = TaskConfig(id=task) if isinstance(task, str) else task
    config = replace(config, kwargs=dict(config.kwargs) | kwargs, backend=backend or config.backend)
    if config.gym_id is None:
        return _make_own(config, num_envs, device)
    if config.backend != "cpu":
        raise TaskError(
            f"Gymnasium environments run on the CPU only, received backend {config.backend!r} for {config.id}"
        )
    from robolearn.envs.gymnasium_env import GymVectorEnv

    return GymVectorEnv(config, num_envs, device=device)


def task_names() -> list[str]:
    """The names of robolearn's own tasks and of those that other packages add."""
    return sorted(point.name for point in entry_points(group=TASKS))


def _make_own(config: TaskConfig, num_envs: int, device: str) -> VectorEnv:
    factory = _factory(config.id)
    arguments, where = dict(config.kwargs) | config.options, {"backend": config.backend, "device": device}
    try:
        inspect.signature(factory).bind(num_envs, **where, **arguments)
    except TypeError as error:
        raise TaskError(f"task {config.id} does not take these arguments: {error}; received {arguments}") from None
    return factory(num_envs, **where, **arguments)


def _factory(name: str) -> Callable[..., VectorEnv]:
    points = {point.name: point for point in entry_points(group=TASKS)}
    if name in points:
        return points[name].load()
    close = difflib.get_close_matches(name, points, n=1, cutoff=0.4)
    folded = [known for known in points if known.lower() == name.lower()]
    hint = f"did you mean {(folded or close)[0]!r}?" if folded or close else f"known: {', '.join(sorted(points))}"
    raise TaskError(f"unknown task {name!r}; {hint} Gymnasium environments are named {GYM_PREFIX}<id>")
