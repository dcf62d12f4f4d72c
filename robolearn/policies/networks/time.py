"""Features of a noise level or flow time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sines and cosines at geometrically spaced frequencies, then a small MLP: (M,) -> (M, size).

    Times are given on the scale of diffusion's noise levels (0 to about 100 or 1000), flow times multiplied to match.
    """

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        half = max(size // 2, 1)
        frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * half, 4 * size), nn.Mish(), nn.Linear(4 * size, size))

    def forward(self, time: Tensor) -> Tensor:
        angles = time.unsqueeze(-1).float() * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], -1))
