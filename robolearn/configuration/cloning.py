"""Configuration of behaviour cloning. Free of torch, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.offline import CloningMethod, DataMethod
from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_BATCH, MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BCConfig(Reading):
    """Clone the behaviour in dataset files."""

    BUDGET: ClassVar[tuple[str, ...]] = ("loop", "export", "device", "output", "resume", "rollouts", "num_envs", "task")
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

    dataset: tuple[str, ...]
    """Files to learn from; several read as one."""
    filter_key: str = ""
    """Train on the episodes of this mask only; empty takes all that are not set aside for validation."""
    valid_mask: str | None = "valid"
    """Mask whose episodes are set aside for validation, where the files have it; none learns from these, too."""
    valid_fraction: float = 0.0
    """Share of the episodes set aside for validation where no mask does."""
    target: Literal["actions", "labels"] = "actions"
    """Learn the executed actions, or at each step the expert's label or what a person executed (DAgger files)."""
    weights: Literal["plain", "iwr", "sirius"] = "plain"
    """Loss weights of steps: equal, interventions as heavy as all else (IWR), or Sirius' classes."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What is trained."""
    init_policy: str = ""
    """Policy folder to start from, its normalisers kept; it then decides what `policy` is."""
    batch_size: int = 256
    """Windows in a batch."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """How weights move."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """How long, how often."""
    export: Literal["last", "best"] = "last"
    """Export the last weights, or those of the best evaluation (validation likelihood says little about success)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks (float32 on a processor that lacks bfloat16); weights stay float32."""
    device: str = "auto"
    """Torch device; auto takes a GPU where there is one."""
    seed: int = 0
    """Seed of weights, batches and noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset:
            raise ConfigError("dataset needs at least one file, received none")
        check_range(self, "batch_size", low=1, high=MAX_BATCH)
        check_range(self, "seed", low=0, high=MAX_SEED)
        if not 0.0 <= self.valid_fraction < 1.0:
            raise ConfigError(f"valid_fraction must lie in [0, 1), received {self.valid_fraction}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(BCConfig):
    """Train a policy by behaviour cloning."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": ("dataset", "filter_key", "valid_mask"),
        "policy": ("policy.head", "policy.backbone", "policy.obs_steps", "policy.pred_steps", "policy.exec_steps"),
        "training": ("method", "loop.total_steps", "batch_size", "optimiser.learning_rate", "seed", "device"),
        "output": ("output", "resume", "rollouts"),
    }
    OWN_TASK: ClassVar[str] = "dataset"

    method: DataMethod = field(default_factory=CloningMethod)
    """How it learns: bc clones every action, iql those that turned out well by the recorded rewards, cql climbs careful
    values of actions (policy.head gaussian)."""
    output: str = ""
    """Run folder; empty means policies/<dataset>_<head>."""
    resume: bool = False
    """Go on where the run in the output folder stopped."""
    rollouts: int = 0
    """Episodes rolled out at each evaluation, on seeds kept for tuning; the best checkpoint is then the one that
    succeeds most."""
    task: TaskConfig | None = None
    """Task that the policy is for, in which it is rolled out; none takes the one that the data was recorded in."""
    num_envs: int = 4
    """Environments that roll out side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "rollouts", low=0, high=MAX_EPISODES)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)

    @property
    def run_dir(self) -> Path:
        return Path(self.output or f"policies/{Path(self.dataset[0]).stem}_{self.policy.head.name}")
