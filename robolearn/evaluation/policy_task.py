"""The task that a saved policy is for."""

from __future__ import annotations

from pathlib import Path

from robolearn.configuration.parts.task import TaskConfig
from robolearn.errors import ConfigError
from robolearn.policies.folder import policy_env_args


def task_of(folder: str | Path, named: TaskConfig | None = None) -> TaskConfig:
    """The task `named`, else the one that the policy in `folder` was made for. Raises ConfigError where none is."""
    if named is not None:
        return named
    env_args = policy_env_args(folder)
    if not env_args:
        raise ConfigError(f"{folder} does not say which task it is for; name it with --task")
    return TaskConfig.from_env_args(env_args)
