"""Configuration of DAgger; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_BATCH, MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.errors import ConfigError
from robolearn.seeds import DAGGER_SEED


@dataclass(frozen=True, kw_only=True)
class DaggerConfig:
    """Correct a policy: roll it out, have every visited state labelled, aggregate, train on."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("policy", "dataset", "task", "expert"),
        "rounds": ("rounds", "episodes_per_round", "beta_start", "from_scratch"),
        "training": ("loop.total_steps", "batch_size", "optimiser.learning_rate"),
        "how": ("seed", "num_envs"),
        "output": ("output",),
    }
    OWN_TASK: ClassVar[str] = "dataset"

    policy: str
    """Policy folder to start from."""
    dataset: tuple[str, ...]
    """Demonstration files that the policy was cloned from."""
    task: TaskConfig | None = None
    """Task to roll out in; none takes the one that the data set was recorded in."""
    output: str = "runs/dagger"
    """Run folder; a folder with complete rounds is resumed."""
    expert: str = "auto"
    """Who labels: auto (the task's own expert), an entry point of robolearn.experts, or module:callable."""
    rounds: int = 2
    """Rounds of collecting and training."""
    episodes_per_round: int = 20
    """Episodes rolled out in each round."""
    beta_schedule: Literal["exponential", "linear", "constant"] = "exponential"
    """How the share of steps that the expert drives falls over the rounds."""
    beta_start: float = 0.5
    """Share of steps that the expert drives in the first round."""
    beta_decay: float = 0.5
    """Factor from round to round of the exponential schedule."""
    from_scratch: bool = False
    """Train a new policy of the same kind in each round instead of going on with the one there is."""
    batch_size: int = 256
    """Windows in a batch."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """How weights move, in each round."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(total_steps=2000, evaluate_every=0, checkpoint_every=1000)
    )
    """How long each round trains."""
    deterministic: bool = True
    """Roll out the policy's mode instead of samples."""
    seed: int = DAGGER_SEED
    """Seed of the first episode; later ones count up."""
    num_envs: int = 4
    """Environments that run side by side; the files do not depend on it."""

    def __post_init__(self) -> None:
        check_range(self, "rounds", "episodes_per_round", low=1, high=MAX_EPISODES)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "batch_size", low=1, high=MAX_BATCH)
        check_range(self, "seed", low=0, high=MAX_SEED)
        for name in ("beta_start", "beta_decay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in [0, 1], received {getattr(self, name)}")
        if not self.dataset:
            raise ConfigError("dataset needs at least one file: DAgger aggregates with the demonstrations")

    def beta(self, round: int) -> float:
        """The expert's share of steps in round 1, 2, ..."""
        if self.beta_schedule == "constant":
            return self.beta_start
        if self.beta_schedule == "exponential":
            return self.beta_start * self.beta_decay ** (round - 1)
        return self.beta_start * (1 - (round - 1) / max(self.rounds - 1, 1))

    def training(self, dataset: tuple[str, ...], policy: str, kind: PolicyConfig) -> BCConfig:
        """How a round trains on everything collected so far: labels wherever the policy drove."""
        return BCConfig(
            dataset=dataset,
            target="labels",
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            loop=self.loop,
            seed=self.seed,
            policy=kind if self.from_scratch else PolicyConfig(),
            init_policy="" if self.from_scratch else policy,
        )
