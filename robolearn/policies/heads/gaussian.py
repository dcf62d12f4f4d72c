"""Diagonal Gaussians over action chunks, squashed by tanh (as SAC needs them) or not."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import GaussianHeadConfig
from robolearn.policies.distributions import HALF_LOG_2PI, ActionDistribution, normal_log_prob, sum_steps
from robolearn.policies.heads.head import Head, bounded
from robolearn.policies.noise import Noise

EDGE = 1e-4
"""Squashed actions within this distance of +-1 share one density, the mean over that interval."""


class DiagonalGaussian(ActionDistribution):
    """Independent normals; mean and std are (B, Tp, A)."""

    reparameterised = True

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    def log_prob(self, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        return sum_steps(normal_log_prob(actions, self.mean, self.std).sum(-1), valid)

    def sample(self, noise: Noise) -> Tensor:
        return self.mean + self.std * noise.normal(*self.mean.shape[1:])

    def mode(self) -> Tensor:
        return self.mean

    def entropy(self, noise: Noise, samples: int = 8) -> Tensor:
        return (self.std.log() + 0.5 + HALF_LOG_2PI).sum((-1, -2))


class TanhGaussian(ActionDistribution):
    """tanh of independent normals u ~ N(mean, std); mean and std are (B, Tp, A).

    log p(a) = log N(u) - log(1 - a^2), with log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which does not cancel.
    At |a| -> 1 the density of a demonstration (a closed gripper says exactly 1) would depend on the last bit of `a`,
    and be infinite at 1. The density is therefore that of `a` known to within EDGE there:
    P(|a| > 1 - EDGE) / EDGE on each side, which is finite, integrates to one and stops pulling at the mean once the
    edge is likely.
    """

    reparameterised = True

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    def log_prob(self, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        u = torch.atanh(actions.clamp(-1.0 + EDGE, 1.0 - EDGE))
        inside = normal_log_prob(u, self.mean, self.std) - _log_jacobian(u)
        outward = torch.sign(actions) * (self.mean - u) / self.std
        edge = torch.special.log_ndtr(outward) - math.log(EDGE)
        per_dimension = torch.where(actions.abs() > 1.0 - EDGE, edge, inside)
        return sum_steps(per_dimension.sum(-1), valid)

    def sample(self, noise: Noise) -> Tensor:
        return torch.tanh(self.mean + self.std * noise.normal(*self.mean.shape[1:]))

    def sample_with_log_prob(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Sample, with the log-probability from u itself: exact also where tanh(u) rounds to 1 (SAC's way)."""
        u = self.mean + self.std * noise.normal(*self.mean.shape[1:])
        log_prob = normal_log_prob(u, self.mean, self.std) - _log_jacobian(u)
        return torch.tanh(u), log_prob.sum((-1, -2))

    def mode(self) -> Tensor:
        """Return tanh of the mean, which is the median; the density's peak lies elsewhere, at worst at the edges."""
        return torch.tanh(self.mean)


class GaussianHead(Head):
    """A linear layer for the mean and one (or one vector) whose exponential is the std wherever that is in its range.

    std = (min + e^x) / (1 + e^x / max). Between the bounds x is the log std itself, so that an optimiser's step moves
    it as far as in a head without bounds; a sigmoid from one bound to the other would move it up to twice as far.
    """

    exact_likelihood = True

    def __init__(self, config: GaussianHeadConfig, *, feature_size: int, pred_steps: int, action_size: int) -> None:
        super().__init__()
        self.squash, self.bounded_mean = config.squash, config.bounded_mean
        self.reparameterised = config.squash
        self.log_min, self.log_max = math.log(config.min_std), math.log(config.max_std)
        self.shape = (pred_steps, action_size)
        size = pred_steps * action_size
        initial = (config.initial_std - config.min_std) / (1.0 - config.initial_std / config.max_std)
        raw_std = torch.full((size,), math.log(initial))
        self.mean = nn.Linear(feature_size, size)
        if config.state_dependent_std:
            self.raw_std = nn.Linear(feature_size, size)
            with torch.no_grad():
                self.raw_std.weight.mul_(0.01)
                self.raw_std.bias.copy_(raw_std)
        else:
            self.raw_std = nn.Parameter(raw_std)

    def mode_parameters(self) -> list[nn.Parameter]:
        return list(self.mean.parameters())  # the deviation has no part in the mode

    def start_near_zero(self) -> None:
        nn.init.orthogonal_(self.mean.weight, 0.01)
        nn.init.zeros_(self.mean.bias)

    def start_at_zero(self) -> None:
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)

    def distribution(self, features: Tensor) -> DiagonalGaussian | TanhGaussian:
        mean = self.mean(features).float().view(-1, *self.shape)
        raw = self.raw_std if isinstance(self.raw_std, Tensor) else self.raw_std(features).float()
        log_std = self.log_min + F.softplus(raw - self.log_min) - F.softplus(raw - self.log_max)
        std = log_std.exp().view(-1, *self.shape).expand_as(mean)
        if self.squash:
            return TanhGaussian(mean, std)
        return DiagonalGaussian(bounded(mean) if self.bounded_mean else mean, std)

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        distribution = self.distribution(features)
        losses = -distribution.log_prob(actions, valid) / valid.sum(-1).clamp_min(1)
        return losses, {"std": distribution.std.detach().mean()}

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        distribution = self.distribution(features)
        return distribution.mode() if deterministic else distribution.sample(noise)


def _log_jacobian(u: Tensor) -> Tensor:
    """Return log d tanh(u)/du, element by element."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
