"""Environments by name: Gymnasium's under `gym:`, robolearn's own from the entry points `robolearn.tasks`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, Literal

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.adapted import renamed
from robolearn.envs.interface import VectorEnv
from robolearn.errors import TaskError
from robolearn.tasks import registry

_PLACES = {"backend": "--task.backend", "workers": "--task.workers", "device": "the device of the run"}
"""The options that say where a task of our own runs: no arguments of the task."""


def make(
    task: str | TaskConfig,
    num_envs: int = 1,
    *,
    backend: Literal["cpu", "warp"] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    **kwargs: Any,
) -> VectorEnv:
    """Return `num_envs` environments of a task, stepped together.

    Args:
        task: a name ("Lift", "gym:HalfCheetah-v5") or a configuration.
        backend: physics back end; none takes the configuration's. Gymnasium environments have only "cpu".
        device: where observations and rewards are delivered.
        workers: threads or processes that share the environments; none takes the configuration's.
        kwargs: for the environment's constructor, on top of the configuration's.

    Raises TaskError on unknown names (with the closest known one), wrong arguments and missing packages.
    """
    config = TaskConfig(id=task) if isinstance(task, str) else task
    config = replace(
        config,
        kwargs=dict(config.kwargs) | kwargs,
        backend=backend or config.backend,
        workers=config.workers if workers is None else workers,
    )
    if config.gym_id is None:
        if named := next((name for name in _PLACES if name in config.kwargs), None):
            raise TaskError(f"{named} is no argument of the task {config.id}: {_PLACES[named]} sets it")
        options = {k: v for k, v in (dict(config.kwargs) | config.options).items() if k != "rename"}
        env = make_task(config.id, num_envs, backend=config.backend, device=device, workers=config.workers, **options)
        return _renamed(env, config)
    if config.backend != "cpu":
        raise TaskError(
            f"Gymnasium environments run on the CPU only, received backend {config.backend!r} for {config.id}"
        )
    from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv  # late: tasks of our own need no Gymnasium

    return _renamed(GymVectorEnv(config, num_envs, device=device), config)


def _renamed(env: VectorEnv, config: TaskConfig) -> VectorEnv:
    try:
        return renamed(env, config.rename)
    except TaskError:
        env.close()
        raise


def make_task(
    name: str,
    num_envs: int = 1,
    *,
    backend: str = "cpu",
    device: str = "cpu",
    workers: int | None = None,
    **options: Any,
) -> VectorEnv:
    """Return environments of a task by its name; `options` are those of `TaskOptions`, or of the task's own factory.

    Raises TaskError on an unknown task or option.
    """
    from robolearn.envs.task_env import TaskEnv  # late: Gymnasium's environments need not load MuJoCo
    from robolearn.tasks.task import Task

    task = registry.load(name)
    if isinstance(task, type) and issubclass(task, Task):
        return TaskEnv.of(task, num_envs, backend=backend, device=device, workers=workers, **options)
    where: dict[str, Any] = {"backend": backend, "device": device}
    if workers is not None:
        where["workers"] = workers
    try:
        inspect.signature(task).bind(num_envs, **where, **options)
    except TypeError as error:
        raise TaskError(f"task {name} does not take these arguments: {error}; received {options}") from None
    return task(num_envs, **where, **options)
