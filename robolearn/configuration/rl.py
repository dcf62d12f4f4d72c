"""Configuration of learning from one's own experience, from scratch; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from robolearn.configuration.parts.algorithms import CriticConfig, DQNConfig, PPOConfig, SACConfig, TD3Config
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import (
    ActionValuesHeadConfig,
    GaussianHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.reward import check_reward_from
from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_EPISODES, MAX_SEED, MAX_STEPS, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RLConfig(Reading):
    """Train a controller from scratch with PPO, SAC, TD3 or DQN."""

    BUDGET: ClassVar[tuple[str, ...]] = (
        *("env_steps", "evaluate_every", "log_every", "checkpoint_every", "eval_episodes", "tensorboard", "wandb"),
        *("task.workers", "device", "output", "resume"),
    )
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

    task: TaskConfig
    """Task to learn, by its own reward."""
    algorithm: PPOConfig | SACConfig | TD3Config | DQNConfig = field(default_factory=PPOConfig)
    """The algorithm."""
    demonstrations: tuple[str, ...] = ()
    """Data set files that SAC and TD3 draw a share of each batch from (RLPD)."""
    reward: Literal["env", "success"] = "env"
    """The environment's own reward, or one where the task is solved (which ends the episode) and else zero."""
    reward_from: str = ""
    """Folder of a success classifier (robolearn reward train), which then says in practice where the task is solved;
    evaluation asks the environment. Empty asks the environment in practice, too."""
    policy: PolicyConfig | None = None
    """The actor; none takes the algorithm's usual one (PPO: tanh 64x64, SAC and TD3: relu 256x256, tanh-Gaussian; DQN:
    values of actions, layers as under `algorithm.critic`)."""
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
        super().__post_init__()
        if self.demonstrations and not isinstance(self.algorithm, SACConfig | TD3Config):
            raise ConfigError(
                f"demonstrations enter the replay of SAC and TD3, {self.algorithm.name} has none for them; use "
                "algorithm sac or td3, or clone the demonstrations first (robolearn train) and fine-tune"
            )
        check_reward_from(self.reward_from, self.reward)
        check_range(self, "env_steps", low=1, high=MAX_STEPS)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "eval_episodes", low=0, high=MAX_EPISODES)
        check_range(self, "evaluate_every", "log_every", "checkpoint_every", low=0, high=MAX_STEPS)
        check_range(self, "seed", low=0, high=MAX_SEED)
        self._check_budget()

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
        if isinstance(self.algorithm, DQNConfig):
            values = self.algorithm.critic
            layers = MLPConfig(
                hidden_sizes=values.hidden_sizes,
                activation=values.activation,
                layer_norm=values.layer_norm,
                dropout=values.dropout,
            )
            return PolicyConfig(backbone=layers, head=ActionValuesHeadConfig())
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

        return LoopConfig(
            total_steps=updates(self.env_steps - self.first_steps),
            log_every=max(1, updates(self.log_every)),
            evaluate_every=updates(self.evaluate_every),
            checkpoint_every=updates(self.checkpoint_every),
            tensorboard=self.tensorboard,
            wandb=self.wandb,
        )

    @property
    def first_steps(self) -> int:
        """Control steps before the first update: those of off-policy algorithms that act at random."""
        if isinstance(self.algorithm, PPOConfig):
            return 0
        at_once = self.num_envs * self.actor.exec_steps
        return -(-self.algorithm.random_steps // at_once) * at_once

    def _check_budget(self) -> None:
        """Raise ConfigError where the steps do not suffice for one update; more than asked for are never made."""
        first, each = self.first_steps, self.steps_per_update
        if self.env_steps >= first + each:
            return
        if isinstance(self.algorithm, PPOConfig):
            made, remedy = f"collects {each} steps", "algorithm.num_steps or num_envs"
        else:
            made, remedy = f"collects {each} steps after {first} at random", "algorithm.random_steps"
        raise ConfigError(
            f"env_steps {self.env_steps} does not suffice for one update of {self.algorithm.name}, which {made}; "
            f"raise it, or lower {remedy}"
        )

    @property
    def run_dir(self) -> str:
        task = self.task.id.split("/")[-1].removeprefix("gym:")
        return self.output or f"runs/{self.algorithm.name}_{task}_{self.seed}"


@dataclass(frozen=True, kw_only=True)
class RLCommand(RLConfig):
    """Train a controller from scratch with RL."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("task", "task.kwargs", "algorithm", "demonstrations", "reward", "reward_from", "env_steps"),
        "algorithm": ("algorithm.learning_rate", "algorithm.gamma", "policy.head"),
        "how": ("seed", "num_envs", "device"),
        "evaluation": ("eval_episodes", "evaluate_every"),
        "output": ("output", "resume"),
    }

    resume: bool = False
    """Go on where the run in the output folder stopped."""
