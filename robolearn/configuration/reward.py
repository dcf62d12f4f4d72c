"""Configuration of learned rewards; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from robolearn.configuration.parts.algorithms import CriticConfig
from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.policy import VisionConfig
from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.tree.bounds import MAX_BATCH, MAX_SEED, MAX_STEPS, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RewardConfig(Reading):
    """Train a classifier that tells solved states from others, by the success of recorded episodes."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": ("dataset", "obs_keys", "last_steps", "held_out"),
        "use": ("precision", "hold_steps"),
        "training": ("loop.total_steps", "batch_size", "optimiser.learning_rate", "seed", "device"),
        "output": ("output", "resume"),
    }
    BUDGET: ClassVar[tuple[str, ...]] = ("loop", "device", "output", "resume")
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

    dataset: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Files with episodes that succeeded, and better also some that failed; several read as one."""
    output: str = ""
    """Run folder, with the classifier in its sub-folder `reward`; empty means runs/reward_<dataset>."""
    resume: bool = False
    """Go on where the run in the output folder stopped."""
    obs_keys: tuple[str, ...] = ()
    """Observation keys that it sees, pictures too; empty means all that the data set has."""
    last_steps: int = 1
    """States at the end of an episode that succeeded which count as solved, the one reached last included; raise it
    where episodes go on after success. All others, and all of failures, count as not solved."""
    held_out: float = 0.4
    """Share of the episodes not trained on: half of it picks the threshold, precision and recall are of the other."""
    precision: float = 0.98
    """Share of the states called solved that must be so: the threshold is the lowest that reaches it."""
    hold_steps: int = 2
    """Steps in a row at which a state must be called solved before it counts."""
    network: CriticConfig = field(
        default_factory=lambda: CriticConfig(hidden_sizes=(128, 128), activation="relu", layer_norm=True)
    )
    """Layers behind the encoders."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    """Encoder of pictures, where there are any."""
    batch_size: int = 128
    """States in a batch, half of them solved."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=3e-4, weight_decay=1e-3, ema=False)
    )
    """How weights move; no average of them is kept."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(total_steps=3000, evaluate_every=0, checkpoint_every=0))
    """How long, how often."""
    device: str = "auto"
    """Torch device; auto takes a GPU where there is one."""
    seed: int = 0
    """Seed of the split, of weights and of batches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dataset:
            raise ConfigError("name the files to learn from: robolearn reward train demos.hdf5 --output runs/reward")
        check_range(self, "last_steps", "hold_steps", low=1, high=MAX_STEPS)
        check_range(self, "batch_size", low=2, high=MAX_BATCH)
        check_range(self, "seed", low=0, high=MAX_SEED)
        if not 0.0 < self.held_out < 1.0:
            raise ConfigError(f"held_out must lie in (0, 1), received {self.held_out}")
        if not 0.0 < self.precision <= 1.0:
            raise ConfigError(f"precision must lie in (0, 1], received {self.precision}")

    @property
    def run_dir(self) -> Path:
        return Path(self.output or f"runs/reward_{Path(self.dataset[0]).stem}")


def check_reward_from(classifier: str, reward: str) -> None:
    """Raise ConfigError where a classifier of success is named and the reward is not success."""
    if classifier and reward != "success":
        raise ConfigError(
            f"reward_from {classifier} says what success is, and reward {reward} does not ask; add --reward success"
        )
