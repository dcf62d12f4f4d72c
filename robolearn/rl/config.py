"""Configuration of the RL algorithms. Free of torch, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """A fully connected value network behind a copy of the policy's encoders."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of each hidden layer."""
    activation: Literal["relu", "tanh", "elu", "silu"] = "tanh"
    """Non-linearity after each layer."""
    layer_norm: bool = False
    """Normalise each layer's output."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017); A2C and REINFORCE are its parts switched off.

    A2C: epochs 1, batch_size 0 (one batch), gae_lambda 1. REINFORCE with return-to-go: also baseline mean or none.
    """

    name: Literal["ppo"] = "ppo"
    gamma: float = 0.99
    """Discount of one control step."""
    gae_lambda: float = 0.95
    """Bias-variance knob of the advantages, per macro-step."""
    num_steps: int = 256
    """L, macro-steps of each environment in one rollout."""
    epochs: int = 10
    """Passes over a rollout."""
    batch_size: int = 64
    """Rows of a minibatch; 0 takes the whole rollout at once."""
    learning_rate: float = 3e-4
    """Adam's step size of the actor."""
    critic_learning_rate: float | None = None
    """Adam's step size of the critic; none takes the actor's."""
    anneal: bool = False
    """Let the step sizes fall linearly to zero at the end of the run."""
    surrogate: Literal["clip", "kl"] = "clip"
    """Clipped ratio, or a KL penalty to the acting policy whose weight adapts to `target_kl`."""
    clip: float = 0.2
    """Ratios beyond 1 +- this earn nothing."""
    target_kl: float | None = None
    """With the clipped surrogate: end an update once its KL exceeds this. With the penalty: what it aims at."""
    value_clip: float | None = None
    """Limit how far a value moves from its old one in an update."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    normalise_advantages: bool = True
    """Scale the advantages of a rollout to zero mean and unit variance."""
    recompute_advantages: bool = True
    """Recompute values and advantages before each epoch, not once for the update."""
    baseline: Literal["critic", "mean", "none"] = "critic"
    """What is subtracted from the returns: learned values, the rollout's mean, or nothing."""
    max_grad_norm: float = 0.5
    """Clip the gradient norms of the actor and of the critic, each by itself."""
    critic_warmup: int = 0
    """First rollouts that train the critic alone."""
    prior_coef: float = 0.0
    """Weight of the KL divergence to the policy that training started from."""
    normalise_returns: bool = False
    """Scale rewards by the running standard deviation of the discounted return."""
    normalise_obs: bool = False
    """Keep the statistics of the policy's observation normalisers up to date with what is seen."""
    compile: bool = False
    """Fuse each gradient step into one graph: half a minute at first, then several times faster for small networks."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, received {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in [0, 1], received {getattr(self, name)}")
        for name in ("learning_rate", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} must be positive, received {getattr(self, name)}")
        if self.batch_size < 0 or self.critic_warmup < 0:
            raise ConfigError(
                f"batch_size and critic_warmup must not be negative, received {self.batch_size}, {self.critic_warmup}"
            )
        if self.surrogate == "kl" and not self.target_kl:
            raise ConfigError("surrogate kl needs a target_kl (0.01 is usual), received none")
        if self.critic_warmup and self.baseline != "critic":
            raise ConfigError(f"critic_warmup needs baseline critic, received baseline {self.baseline}")
