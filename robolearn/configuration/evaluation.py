"""Configuration of evaluation; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from robolearn.configuration.task import TaskConfig
from robolearn.errors import ConfigError
from robolearn.seeds import REPORT_SEED


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluate policies on the same fixed seeds, and compare them where there are several."""

    policies: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Policy folders, or run folders that hold one."""
    task: TaskConfig | None = None
    """Task; none takes the one that the first policy was made for."""
    expert: str = ""
    """Evaluate this expert, too: auto, an entry point of robolearn.experts, or module:callable."""
    episodes: int = 100
    """Episodes of each policy."""
    seed: int = REPORT_SEED
    """Seed of the first episode; later ones count up."""
    num_envs: int = 8
    """Environments that run side by side; the figures do not depend on it."""
    sample: bool = False
    """Sample actions instead of taking the policy's mode."""
    output: str = "runs/eval"
    """Folder for the figures (JSON) and the report (HTML)."""
    videos: int = 1
    """Episodes to put on video, where OpenGL is there."""

    def __post_init__(self) -> None:
        for name in ("episodes", "num_envs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, received {getattr(self, name)}")
        if not self.policies and not (self.expert and self.task):
            raise ConfigError("name the policies to evaluate: robolearn eval FOLDER [FOLDER ...]")

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.episodes))
