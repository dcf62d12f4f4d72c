"""Configuration of the whole line; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.policy import MixtureHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.seeds import DAGGER_SEED, RECORD_SEED, REPORT_SEED

PICK_PLACE = TaskConfig(id="gym:Meta-World/MT1", kwargs={"env_name": "pick-place-v3"})


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Record, clone, correct, fine-tune, evaluate and report."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("task", "task.kwargs", "expert", "demonstrations"),
        "stages": ("clone_steps", "rounds", "episodes_per_round", "round_steps", "updates", "episodes"),
        "how": ("seed", "num_envs"),
        "output": ("output",),
    }

    BUDGET: ClassVar[tuple[str, ...]] = ("episodes", "num_envs", "task.workers", "output")
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

    output: str = field(default="demo", metadata={"positional": True})
    """Folder for everything it makes; what is complete in it is not done again."""
    task: TaskConfig = field(default_factory=lambda: PICK_PLACE)
    """Task, with an expert of its own."""
    expert: str = "auto"
    """Who demonstrates and labels."""
    demonstrations: int = 20
    """Demonstrations to record."""
    action_noise: float = 0.1
    """Noise on the demonstrator's actions, in their [-1, 1] units."""
    clone_steps: int = 1500
    """Updates of behaviour cloning."""
    rounds: int = 2
    """DAgger rounds."""
    episodes_per_round: int = 20
    """Episodes of each round."""
    round_steps: int = 1500
    """Updates of each round."""
    updates: int = 30
    """PPO updates."""
    episodes: int = 100
    """Evaluation episodes, the same seeds for every stage."""
    num_envs: int = 8
    """Environments that run side by side."""
    seed: int = 0
    """Seed of everything but the evaluation episodes."""

    def __post_init__(self) -> None:
        check_range(self, "demonstrations", "episodes_per_round", "episodes", low=1, high=MAX_EPISODES)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "seed", low=0, high=MAX_SEED)

    @property
    def folder(self) -> Path:
        return Path(self.output)

    @property
    def eval_seeds(self) -> list[int]:
        return list(range(REPORT_SEED, REPORT_SEED + self.episodes))

    @property
    def record(self) -> RecordConfig:
        return RecordConfig(
            task=self.task,
            output=str(self.folder / "demonstrations.hdf5"),
            expert=self.expert,
            episodes=self.demonstrations,
            action_noise=self.action_noise,
            seed=RECORD_SEED + self.seed,
            num_envs=min(self.num_envs, 4),
        )

    @property
    def clone(self) -> BCConfig:
        return BCConfig(
            dataset=(self.record.output,),
            policy=PolicyConfig(
                backbone=MLPConfig(hidden_sizes=(256, 256)), head=MixtureHeadConfig(num_modes=5), obs_steps=1
            ),
            optimiser=self._optimiser,
            loop=self._loop(self.clone_steps),
            seed=self.seed,
        )

    @property
    def correct(self) -> DaggerConfig:
        return DaggerConfig(
            policy=str(self.folder / "clone" / "policy"),
            dataset=(self.record.output,),
            task=self._short_task,
            output=str(self.folder / "dagger"),
            expert=self.expert,
            rounds=self.rounds,
            episodes_per_round=self.episodes_per_round,
            eval_episodes=0,
            optimiser=self._optimiser,
            loop=self._loop(self.round_steps),
            seed=DAGGER_SEED + self.seed,
            num_envs=min(self.num_envs, 4),
        )

    @property
    def finetune(self) -> FinetuneConfig:
        base = FinetuneConfig(policy=str(self.folder / "dagger" / "policy"), task=self.task)
        return replace(
            base,
            output=str(self.folder / "finetune"),
            num_envs=2 * self.num_envs,
            seed=self.seed,
            loop=LoopConfig(
                total_steps=self.updates,
                log_every=1,
                evaluate_every=max(1, self.updates // 3),
                checkpoint_every=max(1, self.updates // 3),
            ),
        )

    @property
    def _optimiser(self) -> OptimiserConfig:
        return OptimiserConfig(learning_rate=1e-3, weight_decay=1e-4)

    @property
    def _short_task(self) -> TaskConfig:
        """A policy that has not solved the task after 200 steps is stuck; labels there teach little."""
        return replace(self.task, max_steps=min(self.task.max_steps or 200, 200))

    def _loop(self, steps: int) -> LoopConfig:
        return LoopConfig(total_steps=steps, evaluate_every=0, checkpoint_every=500)
