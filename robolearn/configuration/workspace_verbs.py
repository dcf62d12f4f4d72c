"""Configuration of the verbs around the work: a new workspace, the list of tasks, completions of the shell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.configuration.tree.bounds import MAX_SEED, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Make a workspace."""

    folder: str = field(default="", metadata={"positional": True})
    """Folder to make; existing files in it are kept."""

    def __post_init__(self) -> None:
        if not self.folder:
            raise ConfigError("name the folder of the workspace: robolearn init DIR")


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
    host: str = "127.0.0.1"
    """Address that the browser viewer listens on: this machine alone; 0.0.0.0 lets the whole network in."""
    port: int = 8080
    """Port of the browser viewer."""
    seed: int = 0
    """Seed of the first episode shown."""

    def __post_init__(self) -> None:
        if self.action == "view" and self.name is None:
            raise ConfigError("view needs the name of a task: robolearn tasks view Lift")
        check_range(self, "seed", low=0, high=MAX_SEED)
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in [0, 65536), received {self.port}")


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    shell: Literal["bash", "zsh", "tcsh"] = field(default="bash", metadata={"positional": True})
    """Shell to complete for; bash reads ~/.local/share/bash-completion/completions/robolearn."""
