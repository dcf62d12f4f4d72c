"""The action head: from features to action chunks. One file per head beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robolearn.policies.distributions import ActionDistribution
from robolearn.policies.noise import Noise

MEAN_RANGE = 1.05
"""Bounded means reach a little past 1, so that actions at exactly +-1 (a gripper's) do not need infinite weights."""


def bounded(raw: Tensor) -> Tensor:
    """Any real -> (-MEAN_RANGE, MEAN_RANGE)."""
    return MEAN_RANGE * torch.tanh(raw)


def mean_over_steps(per_step: Tensor, valid: Tensor) -> Tensor:
    """(B, Tp) -> (B,): the mean over the valid steps, 0 where there is none."""
    return torch.where(valid, per_step, 0.0).sum(-1) / valid.sum(-1).clamp_min(1)


class Head(nn.Module, ABC):
    """Maps features (B, D) to action chunks (B, Tp, A) in normalised units.

    Built as `Head(config, feature_size=D, pred_steps=Tp, action_size=A)`. A head may hold any network of its own
    (a diffusion head holds its denoiser), but knows neither observations nor normalisers.
    """

    exact_likelihood: bool = False
    """Whether `distribution` exists."""

    @property
    def reparameterised(self) -> bool:
        """Whether samples lie in (-1, 1) and carry gradient to the head's parameters, as SAC and TD3 need them."""
        return False

    def mode_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of this head that the mode of its distribution depends on."""
        return list(self.parameters())

    def fit(self, actions: Tensor) -> None:
        """Called once, before training, with the data's actions (M, A), normalised; most heads need nothing of them."""

    @abstractmethod
    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss per row and metrics.

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
        """(B, D) -> (B, Tp, A), normalised. Deterministic means the mode, or a fixed-noise sample."""

    def distribution(self, features: Tensor) -> ActionDistribution:
        """The density over (B, Tp, A), normalised units; exact-likelihood heads only."""
        raise NotImplementedError(f"{type(self).__name__} has no exact likelihood")
