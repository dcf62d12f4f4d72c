"""Configuration of the dataset viewer; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import TaskConfig
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Reading):
    """Look at recorded episodes in the browser, mark them, trim them, and save a new file."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("dataset", "exclude", "task", "task.kwargs"),
        "reading": ("control_hz", "limits", "rename"),
        "page": ("host", "port"),
    }
    OWN_TASK: ClassVar[str] = "dataset"

    dataset: str = field(default="", metadata={"positional": True})
    """HDF5 file (ours or robomimic's), a folder of ALOHA or Minari, or minari:ID."""
    task: TaskConfig | None = None
    """Task whose scene shows the recorded states; none takes the model in the file, else the task that it names."""
    host: str = "127.0.0.1"
    """Address to serve on; anything but this machine's own loopback asks for the token in the printed link."""
    port: int = 8080
    """Port of the page; the next free one where it is taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset:
            raise ConfigError("name the dataset to look at: robolearn view FILE")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in [0, 65536), received {self.port}")
