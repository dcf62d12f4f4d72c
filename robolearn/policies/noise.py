"""Sources of a policy's randomness.

Every head draws through a `Noise`, so that a caller decides what a draw depends on: one generator for the whole batch
(training, RL) or one generator per row (evaluation, where an episode's actions must not depend on which other
episodes happen to share its batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch


class Noise(Protocol):
    """Draws of shape (B, *shape)."""

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw standard normal numbers (B, *shape)."""
        ...

    def uniform(self, *shape: int) -> torch.Tensor:
        """Draw uniform numbers on [0, 1), (B, *shape)."""
        ...


class BatchNoise:
    """One generator for all rows; None uses torch's global one."""

    def __init__(self, batch_size: int, device: torch.device | str, generator: torch.Generator | None = None) -> None:
        self.batch_size, self.device, self.generator = batch_size, device, generator

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(self.batch_size, *shape, device=self.device, generator=self.generator)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(self.batch_size, *shape, device=self.device, generator=self.generator)


class FixedNoise:
    """The same draws for every row and every call, from a fixed seed: for comparing samples of policies without a mode.

    Not for acting: a policy that draws the same way of doing it at every state goes nowhere where that way is to wait.
    Zeros would not do: the most symmetric starting point leads between the modes.
    """

    def __init__(self, batch_size: int, device: torch.device | str) -> None:
        self.batch_size, self.device = batch_size, device
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device).expand(self.batch_size, *shape)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator).to(self.device).expand(self.batch_size, *shape)


class GivenNoise:
    """Draws that were made already: the normal numbers that a sampler asks for which adds none on its way."""

    def __init__(self, drawn: torch.Tensor) -> None:
        """
        Args:
            drawn: (B, *shape).
        """
        self.drawn = drawn

    def normal(self, *shape: int) -> torch.Tensor:
        assert self.drawn.shape[1:] == shape, "asked for what was drawn"
        return self.drawn

    def uniform(self, *shape: int) -> torch.Tensor:
        raise AssertionError("uniform numbers were not drawn")


class RowNoise:
    """One generator per row, so that a row's draws depend on its own generator alone."""

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device | str) -> None:
        self.generators, self.device = generators, device

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in self.generators]).to(self.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.stack([torch.rand(shape, generator=g, device=g.device) for g in self.generators]).to(self.device)
