"""Configuration of training from scratch; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from robolearn.configuration.algorithms import CriticConfig, DQNConfig, PPOConfig, SACConfig, TD3Config
from robolearn.configuration.loop import LoopConfig
from robolearn.configuration.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.task import TaskConfig
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RLConfig:
    """Train a controller from scratch with PPO, SAC, TD3 or DQN."""

    task: TaskConfig
    """Task to learn, by its own reward."""
    algorithm: PPOConfig | SACConfig | TD3Config | DQNConfig = field(default_factory=PPOConfig)
    """The algorithm."""
    policy: PolicyConfig | None = None
    """The actor; none takes the algorithm's usual one (PPO: tanh 64x64, SAC and TD3: relu 256x256, tanh-Gaussian)."""
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(hidden_sizes=(64, 64)))
    """PPO's value network; SAC, TD3 and DQN have theirs under `algorithm.critic`."""
    output: str = ""
    """Run folder; empty means runs/<algorithm>_<task>_<seed>."""
    env_steps: int = 1_000_000
    """Control steps in all, over all environments."""
    num_envs: int = 1
    """Environments that run side by side."""
    seed: int = 0
    """Seed of the networks, of exploration and of the episodes."""
    eval_episodes: int = 10
    """Episodes of each evaluation, on the same seeds every time; 0 evaluates never."""
    evaluate_every: int = 50_000
    """Control steps between evaluations."""
    log_every: int = 2_000
    """Control steps between two lines of metrics."""
    checkpoint_every: int = 200_000
    """Control steps between checkpoints."""
    tensorboard: bool = True
    """Write TensorBoard files beside metrics.jsonl."""
    wandb: str = ""
    """Weights & Biases project to log to as well; empty for none."""
    device: str = "cpu"
    """Where networks and replay live: cpu, cuda, or auto."""

    def __post_init__(self) -> None:
        for name in ("env_steps", "num_envs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, received {getattr(self, name)}")
        for name in ("eval_episodes", "evaluate_every", "log_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, received {getattr(self, name)}")

    @property
    def actor(self) -> PolicyConfig:
        """The policy's configuration, with the algorithm's usual one filled in."""
        if self.policy is not None:
            return self.policy
        if isinstance(self.algorithm, PPOConfig):
            return PolicyConfig(
                backbone=MLPConfig(hidden_sizes=(64, 64), activation="tanh"),
                head=GaussianHeadConfig(squash=False, state_dependent_std=False, initial_std=0.5),
            )
        return PolicyConfig(backbone=MLPConfig(hidden_sizes=(256, 256)), head=GaussianHeadConfig())

    @property
    def steps_per_update(self) -> int:
        """Control steps that one step of the training loop collects."""
        macro = self.algorithm.num_steps if isinstance(self.algorithm, PPOConfig) else self.algorithm.collect_steps
        return macro * self.num_envs * self.actor.exec_steps

    @property
    def loop(self) -> LoopConfig:
        """The loop's view of the budget, in updates."""

        def updates(env_steps: int) -> int:
            return max(1, env_steps // self.steps_per_update) if env_steps else 0

        first = 0 if isinstance(self.algorithm, PPOConfig) else self.algorithm.random_steps
        return LoopConfig(
            total_steps=updates(max(self.env_steps - first, 1)),
            log_every=max(1, updates(self.log_every)),
            evaluate_every=updates(self.evaluate_every),
            checkpoint_every=updates(self.checkpoint_every),
            tensorboard=self.tensorboard,
            wandb=self.wandb,
        )

    @property
    def run_dir(self) -> str:
        task = self.task.id.split("/")[-1].removeprefix("gym:")
        return self.output or f"runs/{self.algorithm.name}_{task}_{self.seed}"
