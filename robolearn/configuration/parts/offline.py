"""Methods of learning from data sets, one class each, told apart by `name`; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.configuration.parts.algorithms import CriticConfig, QConfig
from robolearn.configuration.tree.bounds import MAX_STEPS, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CloningMethod:
    """Behaviour cloning: every recorded action is right."""

    name: Literal["bc"] = "bc"


@dataclass(frozen=True, kw_only=True)
class IQLConfig:
    """Implicit Q-learning (Kostrikov et al. 2022): clone what turned out better than usual, by recorded rewards.

    Its cloning is that of any head, weighted by exp(beta x advantage).
    """

    name: Literal["iql"] = "iql"
    reward: Literal["success", "env"] = "success"
    """One at the last step of episodes that succeeded and else zero, or the recorded rewards."""
    gamma: float = 0.99
    """Discount of one control step."""
    n_step: int = 1
    """Steps of reward before the value takes over."""
    expectile: float = 0.8
    """Which of the recorded actions' values V aims at: 0.5 their mean, towards 1 the best of them."""
    beta: float = 10.0
    """How sharply better actions are preferred; 0 clones all alike."""
    max_weight: float = 100.0
    """Largest weight of a window."""
    tau: float = 0.005
    """Share of the way that the target critics go towards the critics at each step."""
    learning_rate: float = 3e-4
    """Adam's step size of the values; the policy's is the optimiser's."""
    critic: QConfig = field(default_factory=lambda: QConfig(layer_norm=True))
    """Q."""
    value: CriticConfig = field(default_factory=lambda: CriticConfig(activation="relu", layer_norm=True))
    """V."""

    def __post_init__(self) -> None:
        check_range(self, "n_step", low=1, high=MAX_STEPS)
        check_range(self, "beta", "learning_rate", low=0)
        for name in ("gamma", "tau"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in (0, 1], received {getattr(self, name)}")
        if not 0.5 <= self.expectile < 1.0:
            raise ConfigError(f"expectile must lie in [0.5, 1), received {self.expectile}")
        if not self.max_weight >= 1.0:
            raise ConfigError(f"max_weight must be at least 1, received {self.max_weight}")


@dataclass(frozen=True, kw_only=True)
class CQLConfig:
    """Conservative Q-learning (Kumar et al. 2020; calibrated: Nakamoto et al. 2023): SAC on recorded transitions whose
    critics promise less of actions that nobody recorded.

    For tanh-Gaussian policies (policy.head gaussian). Its optimisers are its own; `optimiser` is cloning's.
    """

    name: Literal["cql"] = "cql"
    reward: Literal["success", "env"] = "success"
    """One at the last step of episodes that succeeded and else zero, or the recorded rewards."""
    gamma: float = 0.99
    """Discount of one control step."""
    n_step: int = 1
    """Steps of reward before the value takes over."""
    conservatism: float = 0.1
    """Weight of the gap between the values of other actions and of the recorded ones; larger rewards want more."""
    calibrated: bool = True
    """Push no action of the policy below the return that the data had from there (Cal-QL)."""
    num_actions: int = 4
    """Actions drawn for each state to judge other actions by: so many uniform ones, so many of the policy's there, and
    so many of the policy's at the next state."""
    cloning_steps: int = 1_000
    """First updates, in which the policy is cloned while the critics learn."""
    tau: float = 0.005
    """Share of the way that the target critics go towards the critics at each step."""
    learning_rate: float = 1e-4
    """Adam's step size of the policy and of the temperature."""
    critic_learning_rate: float = 3e-4
    """Adam's step size of the critics."""
    temperature: float = 0.01
    """Weight of the entropy at the start; it is learned."""
    target_entropy: float | None = None
    """Entropy of the policy in nats; none takes minus the number of action dimensions."""
    critic: QConfig = field(default_factory=lambda: QConfig(layer_norm=True))
    """Q."""

    def __post_init__(self) -> None:
        check_range(self, "n_step", "num_actions", low=1, high=MAX_STEPS)
        check_range(self, "cloning_steps", low=0, high=MAX_STEPS)
        check_range(self, "conservatism", low=0)
        for name in ("gamma", "tau"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in (0, 1], received {getattr(self, name)}")
        for name in ("learning_rate", "critic_learning_rate", "temperature"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} must be positive, received {getattr(self, name)}")


DataMethod = CloningMethod | IQLConfig | CQLConfig
"""Methods of `robolearn train`."""
