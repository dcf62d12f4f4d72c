"""`robolearn tasks`: list the tasks, write a contact sheet of them, or look at one in the browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TasksConfig:
    """List, render and view tasks."""

    action: Literal["list", "view"] = field(default="list", metadata={"positional": True})
    """list: names and purposes; view NAME: the task's expert at work, in the browser."""
    name: str | None = field(default=None, metadata={"positional": True})
    """The task to view."""
    render: bool = False
    """Write a contact sheet: each task at the start, on the way and solved, and through its second camera."""
    output: str = "tasks.png"
    """Where the contact sheet goes, a .png or .jpg file."""
    port: int = 8080
    """Port of the browser viewer."""
    seed: int = 0
    """Seed of the first episode shown."""

    def __post_init__(self) -> None:
        if self.action == "view" and self.name is None:
            raise ConfigError("view needs the name of a task: robolearn tasks view Lift")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in [0, 65536), received {self.port}")


CONFIG = TasksConfig


def run(config: TasksConfig) -> int:
    from robolearn.tasks import registry

    if config.action == "view":
        from robolearn.teleop.task_viewer import view

        assert config.name is not None
        view(config.name, port=config.port, seed=config.seed)
        return 0
    if config.render:
        from robolearn.evaluation.contact_sheet import write_contact_sheet

        path = Path(config.output)
        write_contact_sheet([config.name] if config.name else registry.own_names(), path, seed=config.seed)
        print(f"wrote {path}")
        return 0
    names = registry.names()
    width = max(map(len, names)) + 2
    for name in names:
        print(f"{name:<{width}}{registry.summary(name)}")
    return 0
