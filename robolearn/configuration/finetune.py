"""Configuration of fine-tuning; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.configuration.algorithms import CriticConfig, PPOConfig
from robolearn.configuration.loop import LoopConfig
from robolearn.configuration.task import TaskConfig
from robolearn.errors import ConfigError
from robolearn.seeds import PRACTICE_SEED, PRACTICE_SEEDS


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Improve a cloned policy with PPO, from the task's success alone or from its reward."""

    policy: str
    """Policy folder to start from."""
    task: TaskConfig | None = None
    """Task to practise; none takes the one that the policy was made for."""
    output: str = "runs/finetune"
    """Run folder; the improved policy is its sub-folder `policy`."""
    reward: Literal["success", "env"] = "success"
    """One where the task is solved (which ends the episode) and else zero, or the environment's own reward."""
    max_steps: int | None = 200
    """Steps until a training episode is truncated; none takes the task's own limit. Evaluation keeps the task's."""
    num_envs: int = 32
    """Environments that run side by side."""
    seed: int = 0
    """Seed of the exploration noise and of the new networks."""
    first_seed: int = PRACTICE_SEED
    """Seed of the first training episode."""
    num_seeds: int = PRACTICE_SEEDS
    """Training episodes take this many seeds in turn, so that other seeds stay fresh for evaluation."""
    eval_episodes: int = 100
    """Training seeds, the last ones, that the policy is evaluated on; 0 evaluates never."""
    export: Literal["best", "last"] = "best"
    """Export the policy of the best evaluation (the one that training started from counts), or the last."""
    min_std: float | None = 0.1
    """Raise the head's smallest standard deviation to this: what cloning was sure of must be explored again, and a
    ratio of nearly deterministic densities says nothing. The policy's mode stays what it was; none leaves the head."""
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            num_steps=128,
            epochs=5,
            batch_size=512,
            learning_rate=1e-5,
            critic_learning_rate=1e-3,
            clip=0.1,
            target_kl=0.01,
            critic_warmup=2,
        )
    )
    """The algorithm."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The value network."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(total_steps=50, log_every=1, evaluate_every=10, checkpoint_every=10)
    )
    """Updates, one rollout of `num_envs` x `ppo.num_steps` macro-steps each, and how often to report and save."""
    device: str = "cpu"
    """Where the networks live: cpu, cuda, or auto."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, received {getattr(self, name)}")
        if not 0 <= self.eval_episodes < self.num_seeds:
            raise ConfigError(
                f"eval_episodes must lie in [0, num_seeds), received {self.eval_episodes} of {self.num_seeds}"
            )
        if self.export == "best" and not self.eval_episodes:
            raise ConfigError("export best needs evaluations: set eval_episodes, or export last")

    @property
    def eval_seeds(self) -> range:
        """The seeds that evaluation takes; training never does."""
        end = self.first_seed + self.num_seeds
        return range(end - self.eval_episodes, end)
