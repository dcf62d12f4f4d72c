"""Small networks that are trained together in seconds: the members of an ensemble are one dimension of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.errors import TrainingError

HIDDEN = (64, 64)
BATCH = 128
LEARNING_RATE = 1e-3


class Members(nn.Module):
    """M fully connected networks (ReLU) of the same shape: (M, B, D) -> (M, B, O), or (B, D) for all of them.

    Inputs are standardised by the data that the networks are made for. Weights are drawn from `generator`, as torch's
    `nn.Linear` draws them.
    """

    def __init__(self, inputs: Tensor, outputs: int, members: int, generator: torch.Generator) -> None:
        """
        Args:
            inputs: (R, D), for their mean and deviation only.
        """
        super().__init__()
        self.members = members
        deviation, self.mean = torch.std_mean(inputs, dim=0, correction=0)
        self.scale = floored(deviation)
        sizes = (inputs.shape[1], *HIDDEN, outputs)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size, out in pairwise(sizes):
            drawn = torch.rand(members, size + 1, out, generator=generator) * 2.0 - 1.0  # U(-1, 1) / sqrt(size)
            self.weights.append(drawn[:, :-1] / size**0.5)
            self.biases.append(drawn[:, -1:] / size**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        x = (inputs - self.mean) / self.scale
        x = x.expand(self.members, *x.shape[-2:])  # (M, B, D)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            x = torch.baddbmm(bias, x, weight)
            x = x if number == len(self.weights) else F.relu(x)
        return x


class Bootstrap:
    """Draws rows for each member from episodes that were drawn for it, with replacement, once and for all."""

    def __init__(self, lengths: Sequence[int], members: int, seed: Sequence[int]) -> None:
        """
        Args:
            lengths: rows of each episode, which follow one another.
        """
        self._rng = np.random.default_rng([*seed, 0xB007])
        episodes = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
        drawn = self._rng.integers(len(lengths), size=(members, len(lengths))).tolist()
        self._rows = [np.concatenate([episodes[number] for number in own]) for own in drawn]

    def rows(self, count: int) -> Tensor:
        """Return (M, count) row numbers."""
        return torch.from_numpy(np.stack([own[self._rng.integers(len(own), size=count)] for own in self._rows]))


def train(
    network: Members, rows: Bootstrap, loss: Callable[[Tensor], Tensor], updates: int, before: Callable[[int], None]
) -> None:
    """Train a network by Adam.

    Args:
        loss: of row numbers (M, BATCH), a scalar.
        before: called with the number of each update before it.

    Raises TrainingError where the loss is not finite.
    """
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    value = torch.zeros(())
    with torch.enable_grad():
        for number in range(updates):
            before(number)
            value = loss(rows.rows(BATCH))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    if not value.isfinite():
        raise TrainingError(f"a gate's networks did not learn: their loss is {float(value)} after {updates} updates")


def floored(deviation: Tensor) -> Tensor:
    """Return (D,) deviations, none below a hundredth of the largest: what hardly moves says little."""
    largest = float(deviation.max())
    return deviation.clamp_min(0.01 * largest if largest > 0.0 else 1.0)


def generator(seed: Sequence[int]) -> torch.Generator:
    """Return a generator of its own: nothing that a gate trains touches torch's global one."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> 1))
