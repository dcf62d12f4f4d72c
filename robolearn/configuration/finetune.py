"""Configuration of fine-tuning; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from robolearn.configuration.algorithms import CriticConfig, PPOConfig
from robolearn.configuration.loop import LoopConfig
from robolearn.configuration.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Improve a cloned policy with PPO, from the task's success alone or from its reward."""

    OWN_TASK: ClassVar[str] = "policy"

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
    first_seed: int = 10_000
    """Seed of the first training episode."""
    num_seeds: int = 10_000
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
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "num_seeds", low=1, high=MAX_EPISODES)
        check_range(self, "seed", "first_seed", low=0, high=MAX_SEED)
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


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(FinetuneConfig):
    """Fine-tune a policy with PPO."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("policy", "task", "reward", "max_steps"),
        "training": ("loop.total_steps", "ppo.num_steps", "ppo.learning_rate", "min_std"),
        "how": ("seed", "num_envs", "device"),
        "evaluation": ("eval_episodes", "export"),
        "output": ("output", "resume"),
    }

    resume: bool = False
    """Go on where the run in the output folder stopped."""
