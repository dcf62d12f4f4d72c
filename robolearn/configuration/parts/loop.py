"""Configuration of the training loop and of optimisers. Free of torch, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robolearn.configuration.tree.bounds import MAX_STEPS, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length of a training, and its rhythm of logging, evaluating and saving."""

    total_steps: int = 10_000
    """Updates in all."""
    log_every: int = 100
    """Updates between two lines of metrics, each the mean over its updates."""
    evaluate_every: int = 1000
    """Updates between evaluations; 0 evaluates only at the end."""
    checkpoint_every: int = 2000
    """Updates between checkpoints; 0 saves only at the end and when interrupted."""
    tensorboard: bool = True
    """Write TensorBoard files beside metrics.jsonl."""
    wandb: str = ""
    """Weights & Biases project to log to as well; empty for none."""

    def __post_init__(self) -> None:
        check_range(self, "total_steps", "log_every", low=1, high=MAX_STEPS)
        check_range(self, "evaluate_every", "checkpoint_every", low=0, high=MAX_STEPS)


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW (Adam where nothing decays) with warm-up, schedule, clipping and an average of the weights."""

    learning_rate: float = 1e-3
    """Step size after warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of gradients and of their squares."""
    weight_decay: float = 0.0
    """Decoupled decay of the weights."""
    warmup_steps: int = 0
    """Updates over which the step size grows from zero."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """How the step size falls to zero by the last update."""
    max_grad_norm: float = 0.0
    """Gradients of a larger norm are scaled down to it; 0 leaves them alone."""
    ema: bool = True
    """Keep an exponential moving average of the weights; it is what is evaluated and exported."""
    ema_power: float = 0.75
    """The average's decay after n updates is 1 - (1 + n)^-power: short memory at first, long later."""
    ema_max_decay: float = 0.9999
    """Longest memory."""
    ema_every: int = 10
    """Updates between two steps of the average, each with the decay of all of them."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be positive, received {self.learning_rate}")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"betas must lie in [0, 1), received {self.betas}")
        check_range(self, "weight_decay", "warmup_steps", "max_grad_norm", "ema_power", low=0)
        if not 0.0 <= self.ema_max_decay < 1.0:
            raise ConfigError(f"ema_max_decay must lie in [0, 1), received {self.ema_max_decay}")
        check_range(self, "ema_every", low=1)
