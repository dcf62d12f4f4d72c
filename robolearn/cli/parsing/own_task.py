"""One field of a policy's own task changed: `robolearn eval POLICY --task.max_steps 250`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict, to_dict
from robolearn.configuration.tree.values import text_values


def complete_task(config: type, data: dict[str, Any]) -> None:
    """Fill in a task of which only some fields are given from the task of the policy or the data.

    A configuration class says in `OWN_TASK` which of its keys names the one whose task is meant: `policy`, `policies`
    (the first one) or `dataset`. Keys of `task.kwargs` are filled in one by one. Raises PolicyError, DatasetError or
    ConfigError where the task cannot be read there.
    """
    source, given = getattr(config, "OWN_TASK", None), data.get("task")
    if source is None or not isinstance(given, dict) or "id" in given or not data.get(source):
        return
    names = text_values(data[source], source)
    own = to_dict(_task_of_data(names[0], data) if source == "dataset" else _task_of_policy(names[0]))
    kwargs = given.get("kwargs") or {}
    data["task"] = own | given | {"kwargs": own["kwargs"] | kwargs}


def _task_of_policy(folder: str) -> TaskConfig:
    from robolearn.evaluation.policy_task import task_of

    return task_of(folder)


def _task_of_data(path: str, data: dict[str, Any]) -> TaskConfig:
    """Return the task of a file, read as the values in `data` ask for."""
    from robolearn.datasets.dataset import Dataset

    options = {f.name: data[f.name] for f in fields(Reading) if f.name in data}
    with Dataset(path, reading=from_dict(Reading, options)) as dataset:
        return TaskConfig.from_env_args(dict(dataset.env_args))
