"""Configuration of what looks at policies and episodes: evaluation, replay and plots; free of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_CHUNK, MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.errors import ConfigError
from robolearn.seeds import REPORT_SEED

MAX_NAMES = 3
"""Policies that the name of a folder lists."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluate policies on the same fixed seeds, and compare them where there are several."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("policies", "expert", "task", "task.kwargs", "task.max_steps"),
        "how": ("episodes", "seed", "num_envs", "sample", "exec_steps", "temporal_ensemble"),
        "output": ("output", "resume", "videos"),
    }
    OWN_TASK: ClassVar[str] = "policies"
    BUDGET: ClassVar[tuple[str, ...]] = ("num_envs", "videos", "task.workers", "task.worker_kind", "output", "resume")
    """Keys that may differ where figures are made anew or gone on with; see `robolearn.configuration.provenance`."""

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
    exec_steps: int | None = None
    """Ta, predicted steps that are executed before the policy is asked again; none takes each policy's own."""
    temporal_ensemble: float | None = None
    """Ask the policy at every step and average what all its chunks say about it, with weights exp(-m i) of this m,
    i = 0 for the oldest chunk (ACT takes 0.01); none executes chunks in turn."""
    output: str = ""
    """Folder for the figures (JSON) and the report (HTML); empty takes one in runs/eval named like the policies."""
    resume: bool = False
    """Go on where the evaluation in the output folder stopped; without it, all of it is made anew."""
    videos: int = 1
    """Episodes to put on video, where OpenGL is there."""

    def __post_init__(self) -> None:
        check_range(self, "episodes", low=1, high=MAX_EPISODES)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "exec_steps", low=1, high=MAX_CHUNK)
        check_range(self, "temporal_ensemble", low=0)
        check_range(self, "seed", low=0, high=MAX_SEED)
        check_range(self, "videos", low=0, high=MAX_EPISODES)
        if self.temporal_ensemble is not None and self.exec_steps is not None:
            raise ConfigError(
                "temporal_ensemble asks the policy at every step and executes no chunks; "
                f"drop it or exec_steps {self.exec_steps}"
            )
        if not self.policies and not (self.expert and self.task):
            raise ConfigError("name the policies to evaluate: robolearn eval FOLDER [FOLDER ...]")

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.episodes))

    @property
    def folder(self) -> Path:
        """Return the folder that the evaluation is written into."""
        if self.output:
            return Path(self.output)
        paths = [Path(os.path.abspath(policy)) for policy in self.policies]  # `.` and `..` have names, too
        names = [path.parent.name if path.name == "policy" else path.name for path in paths]
        if not names and self.task is not None:
            names = [self.task.id.removeprefix("gym:").replace("/", "_").replace(":", "_"), "demonstrator"]
        more = [f"and_{len(names) - MAX_NAMES}_more"] if len(names) > MAX_NAMES else []
        return Path("runs/eval") / "_".join([*names[:MAX_NAMES], *more])


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(Reading):
    """Replay recorded episodes in the simulator, by their actions or by their states."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("dataset", "episodes", "by", "task", "task.kwargs"),
        "reading": ("control_hz", "limits", "rename"),
        "output": ("video",),
    }
    OWN_TASK: ClassVar[str] = "dataset"

    dataset: str = field(default="", metadata={"positional": True})
    """HDF5 file with the episodes."""
    episodes: tuple[int, ...] = (0,)
    """Indices of the episodes, from 0."""
    task: TaskConfig | None = None
    """Task to replay in; none takes the one that the file names."""
    by: Literal["action", "state"] = "action"
    """action: make the recorded actions again from the first state, and say how far the simulator strays; state:
    restore every recorded state, which shows exactly what was recorded."""
    video: str = ""
    """MP4 file to render the replay into; needs OpenGL and the extra `video`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset:
            raise ConfigError("name the data set to replay: robolearn replay FILE")
        if self.video and not self.video.endswith(".mp4"):
            raise ConfigError(f"video must end in .mp4, received {self.video!r}")


@dataclass(frozen=True, kw_only=True)
class DensityConfig(Reading):
    """Plot a policy's action density at recorded states, so that its modes can be seen."""

    policy: str = field(metadata={"positional": True})
    """Policy folder, or a run folder that holds one."""
    dataset: str
    """File whose states are shown; the demonstrated actions are marked."""
    episode: int = 0
    """Episode in the file."""
    steps: tuple[int, ...] = ()
    """Steps of the episode; empty takes four, evenly spaced."""
    dims: tuple[int, int] = (0, 1)
    """Action dimensions on the two axes."""
    samples: int = 2000
    """Actions drawn at each state."""
    output: str = "density.png"
    """Picture to write: .png, .svg or .pdf."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "samples", low=1, high=MAX_EPISODES)
        if self.dims[0] == self.dims[1] or min(self.dims) < 0:
            raise ConfigError(f"dims must be two different action dimensions, received {list(self.dims)}")


@dataclass(frozen=True, kw_only=True)
class CurvesConfig:
    """Plot learning curves: runs that differ in nothing but their seed become one mean with its interval."""

    runs: tuple[str, ...] = field(metadata={"positional": True})
    """Run folders."""
    metric: str = ""
    """Metric to show; empty takes the first of eval_success, eval_return, success, return, valid_loss and loss."""
    output: str = "curves.png"
    """Picture to write: .png, .svg or .pdf."""
    bootstraps: int = 2000
    """Resamples behind each interval."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name the run folders to plot, for example runs/*")
        check_range(self, "bootstraps", low=1, high=10**6)


@dataclass(frozen=True, kw_only=True)
class CriticPlotConfig:
    """Plot what the critics of an off-policy run promised against what evaluated episodes returned."""

    run: str = field(metadata={"positional": True})
    """Run folder of `finetune --method residual` (or sac), or of `rl` with sac or td3."""
    output: str = "critic.png"
    """Picture to write: .png, .svg or .pdf."""
