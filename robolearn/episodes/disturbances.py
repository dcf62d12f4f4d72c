"""Stretches in which a demonstrator's hand is carried off, so that a recording shows how to come back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LASTING_S = (0.2, 0.8)
"""Shortest and longest stretch."""


class Disturbances:
    """Replaces actions by a constant one in a random direction, now and then for a while.

    Cloning sees only where its demonstrator went, and cannot return from elsewhere; noise on single actions hardly
    leads there (as in DART, Laskey et al. 2017), since it averages out. An episode's stretches depend on (`seed`, the
    episode's seed, the step) only.
    """

    def __init__(
        self,
        rate: float,
        *,
        control_hz: float,
        num_envs: int,
        speed: tuple[float, float] = (0.5, 1.0),
        spared: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        """
        Args:
            rate: stretches that begin in a second, on average.
            speed: shortest and longest action that is executed meanwhile, in units of the action limits; its logarithm
                is drawn evenly, so that small displacements, which matter where millimetres do, are as frequent as
                large ones.
            spared: action dimensions that are executed as they come.
        """
        self._chance, self._seed, self._spared = rate / control_hz, seed, list(spared)
        self._speed = np.log(speed)
        self._steps = tuple(max(1, round(seconds * control_hz)) for seconds in LASTING_S)
        self._streams = [np.random.default_rng() for _ in range(num_envs)]
        self._left = [0] * num_envs
        self._carried: list[Tensor | None] = [None] * num_envs

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        for index, episode in zip(mask.nonzero().flatten().tolist(), seeds, strict=True):
            self._streams[index], self._left[index] = np.random.default_rng([self._seed, episode]), 0

    def apply(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is executed, (N, A), in the place of `actions`, and where that is a disturbance, (N,) bool."""
        executed, disturbed = actions.clone(), torch.zeros(len(actions), dtype=torch.bool)
        if not self._chance:
            return executed, disturbed
        for index, stream in enumerate(self._streams):
            if not self._left[index] and stream.random() < self._chance:
                shortest, longest = self._steps
                self._left[index] = int(stream.integers(shortest, longest + 1))
                direction = stream.standard_normal(actions.shape[1])
                direction[self._spared] = 0.0
                direction *= np.exp(stream.uniform(*self._speed)) / np.linalg.norm(direction)
                self._carried[index] = torch.from_numpy(direction).to(actions)
            carried = self._carried[index]
            if self._left[index] and carried is not None:
                self._left[index] -= 1
                executed[index], disturbed[index] = carried, True
        executed[:, self._spared] = actions[:, self._spared]
        return executed, disturbed
