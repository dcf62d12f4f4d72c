"""Configuration of learning from one's own experience, from scratch or from a cloned policy; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from robolearn.configuration.parts.algorithms import CriticConfig, DQNConfig, PPOConfig, SACConfig, TD3Config
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_EPISODES, MAX_SEED, MAX_STEPS, check_range
from robolearn.errors import ConfigError
from robolearn.seeds import PRACTICE_SEED, PRACTICE_SEEDS


@dataclass(frozen=True, kw_only=True)
class RLConfig:
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
        "what": ("task", "task.kwargs", "algorithm", "env_steps"),
        "algorithm": ("algorithm.learning_rate", "algorithm.batch_size", "algorithm.gamma", "policy.head"),
        "how": ("seed", "num_envs", "device"),
        "evaluation": ("eval_episodes", "evaluate_every"),
        "output": ("output", "resume"),
    }

    resume: bool = False
    """Go on where the run in the output folder stopped."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Improve a cloned policy with PPO, from the task's success alone or from its reward."""

    OWN_TASK: ClassVar[str] = "policy"
    BUDGET: ClassVar[tuple[str, ...]] = ("loop", "export", "task.workers", "device", "output", "resume")
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

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
