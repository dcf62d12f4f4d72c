"""Action distributions over chunks of Tp steps, as exact-likelihood heads return them for PPO and SAC."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from robolearn.policies.noise import Noise

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class ActionDistribution(ABC):
    """A density over action chunks, one per batch row.

    Log-probabilities are joint over the chunk. `valid` (B, Tp) leaves steps out (they are marginalised: integrated
    over, not set to zero), as for windows that reach past an episode's end or chunks that are executed in part.
    """

    reparameterised: bool = False
    """True where `sample` carries gradients to the parameters (SAC's actor loss needs it)."""

    @abstractmethod
    def log_prob(self, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the log-density (or log-probability mass) (B,), in nats, of actions (B, Tp, A)."""

    @abstractmethod
    def sample(self, noise: Noise) -> Tensor:
        """Return a sample (B, Tp, A), unclipped, to ask `log_prob` for; clip only what goes to the environment."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most likely chunk (B, Tp, A), or the heaviest component's mean for a mixture."""

    def sample_with_log_prob(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return a sample (B, Tp, A) and its log-probability (B,), at least as precise as `log_prob(sample)`."""
        sample = self.sample(noise)
        return sample, self.log_prob(sample)

    def entropy(self, noise: Noise, samples: int = 8) -> Tensor:
        """Return the entropy (B,) in nats, a Monte Carlo estimate unless it is known; its gradient is unbiased."""
        draws = torch.stack([self.sample_with_log_prob(noise)[1] for _ in range(samples)])
        if self.reparameterised:
            return -draws.mean(0)
        # The gradient of -E[log p] is -E[log p * grad log p]; the other samples' mean is its baseline.
        value = draws.detach()
        baseline = (value.sum(0) - value) / max(samples - 1, 1)
        return -(value + (value - baseline) * (draws - value)).mean(0)


def normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return log N(x; mean, std), element by element."""
    # log N(x) = -(x - mean)^2 / (2 std^2) - log std - log(2 pi) / 2
    return -0.5 * ((x - mean) / std).square() - std.log() - HALF_LOG_2PI


def sum_steps(log_probs: Tensor, valid: Tensor | None) -> Tensor:
    """Sum log-probabilities (..., Tp) over the steps that `valid` (broadcast) keeps -> (...)."""
    return log_probs.sum(-1) if valid is None else torch.where(valid, log_probs, 0.0).sum(-1)


class AffineDistribution(ActionDistribution):
    """`offset + scale * x` of a base distribution's x; scale and offset have shape (A,)."""

    def __init__(self, base: ActionDistribution, offset: Tensor, scale: Tensor) -> None:
        self.base, self.offset, self.scale = base, offset, scale
        self.reparameterised = base.reparameterised

    def log_prob(self, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        steps = actions.shape[-2] if valid is None else valid.sum(-1)
        inner = self.base.log_prob((actions - self.offset) / self.scale, valid)
        return inner - steps * self.scale.abs().log().sum()

    def sample(self, noise: Noise) -> Tensor:
        return self.offset + self.scale * self.base.sample(noise)

    def sample_with_log_prob(self, noise: Noise) -> tuple[Tensor, Tensor]:
        sample, log_prob = self.base.sample_with_log_prob(noise)
        return self.offset + self.scale * sample, log_prob - sample.shape[-2] * self.scale.abs().log().sum()

    def mode(self) -> Tensor:
        return self.offset + self.scale * self.base.mode()

    def entropy(self, noise: Noise, samples: int = 8) -> Tensor:
        base = self.base.entropy(noise, samples)
        return base + self.base.mode().shape[-2] * self.scale.abs().log().sum()
