"""Ways of fine-tuning a policy, one class each, told apart by `name`; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.configuration.parts.algorithms import CriticConfig, PPOConfig


@dataclass(frozen=True, kw_only=True)
class PPOTuningConfig(PPOConfig):
    """PPO on a policy with an exact likelihood (gaussian, mixture, autoregressive): small steps from where it is."""

    name: Literal["ppo"] = "ppo"
    num_steps: int = 128
    epochs: int = 5
    batch_size: int = 512
    learning_rate: float = 1e-5
    critic_learning_rate: float | None = 1e-3
    clip: float = 0.1
    target_kl: float | None = 0.01
    critic_warmup: int = 2
    min_std: float | None = 0.1
    """Raise the head's smallest standard deviation to this: what cloning was sure of must be explored again, and a
    ratio of nearly deterministic densities says nothing. The policy's mode stays what it was; none leaves the head."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The value network."""
