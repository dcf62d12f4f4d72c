"""The action head: from features to action chunks. One file per head beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robolearn.errors import PolicyError
from robolearn.policies.distributions import ActionDistribution
from robolearn.policies.noise import Noise

MEAN_RANGE = 1.05
"""Bounded means reach a little past 1, so that actions at exactly +-1 (a gripper's) do not need infinite weights."""


def bounded(raw: Tensor) -> Tensor:
    """Map any real into (-MEAN_RANGE, MEAN_RANGE)."""
    return MEAN_RANGE * torch.tanh(raw)


def mean_over_steps(per_step: Tensor, valid: Tensor) -> Tensor:
    """Return the mean (B,) of (B, Tp) over the valid steps, 0 where there is none."""
    return torch.where(valid, per_step, 0.0).sum(-1) / valid.sum(-1).clamp_min(1)


class Head(nn.Module, ABC):
    """Maps features (B, D) to action chunks (B, Tp, A) in normalised units.

    Built as `Head(config, feature_size=D, pred_steps=Tp, action_size=A)`. A head may hold any network of its own
    (a diffusion head holds its denoiser), but knows neither observations nor normalisers.
    """

    exact_likelihood: bool = False
    """True where `distribution` exists: PPO needs it."""
    reparameterised: bool = False
    """True where samples lie in (-1, 1) and carry gradients to the parameters, and the mode does too: SAC and TD3 need
    both."""

    def fit(self, actions: Tensor) -> None:
        """Take what this head needs of the data's actions (M, A), normalised, once before training; most need none."""

    def mode_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the mode depends on, which are those that TD3 trains."""
        return list(self.parameters())

    def start_near_zero(self) -> None:
        """Draw weights anew such that the mode is near zero whatever the features, where this head can: PPO's start."""

    def start_at_zero(self) -> None:
        """Set weights such that the mode is exactly zero whatever the features: a correction's start. Raises
        PolicyError where this head cannot."""
        raise PolicyError(f"{type(self).__name__} cannot begin with a mode of zero; take head gaussian")

    @abstractmethod
    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a loss per row and metrics.

        Args:
            features: (B, D).
            actions: (B, Tp, A), normalised.
            valid: (B, Tp) bool; invalid steps must not contribute.

        Returns:
            (B,) losses (negative log-likelihood or its bound, or the error), averaged over the valid steps so that
            the figure does not depend on Tp; and scalar metrics by name, detached.
        """

    @abstractmethod
    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        """Return chunks (B, Tp, A), normalised, given features (B, D).

        Args:
            deterministic: the mode; a sample by `noise` where there is none (diffusion, flow).
        """

    def distribution(self, features: Tensor) -> ActionDistribution:
        """Return the density over (B, Tp, A), normalised units; exact-likelihood heads only."""
        raise NotImplementedError(f"{type(self).__name__} has no exact likelihood")
