"""Conditional 1-D U-Net over the steps of an action chunk (Diffusion Policy, Chi et al. 2023).

With channels (256, 512, 1024) and a chunk of 16 steps:

    16 x 256 --------------------------------- 16 x 256 -> 16 x A
        8 x 512 ------------------ 8 x 512
            4 x 1024 - 4 x 1024

The two upward levels join the encoder's output of the level below them, as the published network does; the top level's
is not joined.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import UNetConfig
from robolearn.errors import ConfigError
from robolearn.policies.networks.time import TimeEmbedding


class ConvBlock(nn.Module):
    """Convolution over steps, group normalisation, Mish; (B, C, L) -> (B, C', L)."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, config.kernel_size, padding=config.kernel_size // 2)
        self.norm = nn.GroupNorm(config.num_groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two convolution blocks with FiLM between them, and a skip."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, config)
        self.second = ConvBlock(outputs, outputs, config)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.channels = outputs

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """x (B, C, L), film (B, 2C'): scale, then shift."""
        scale, shift = film.unsqueeze(-1).chunk(2, 1)
        return self.second(scale * self.first(x) + shift) + self.skip(x)


class UNetLevels(nn.Module):
    """A denoiser's way down and up through its levels, in either layout of a chunk: (B, C, L) or (B, L, C).

    The condition depends on noise level and features alone, so that it can be computed for all steps of a chain at
    once. It holds every residual block's scales and shifts, made by one linear layer.
    """

    channels_dim: int
    """Position of C in the layout."""
    multiple: int
    """L must be a multiple of this."""
    film_sizes: list[int]
    """Numbers of the condition that each residual block takes, in order."""
    time: nn.Module
    film: nn.Module
    down: nn.ModuleList
    shrink: nn.ModuleList
    middle: nn.ModuleList
    up: nn.ModuleList
    grow: nn.ModuleList
    last: nn.Module
    out: nn.Module

    def condition(self, time: Tensor, features: Tensor) -> Tensor:
        """Return the condition (M, C) for noise levels (M,) and features (M, D)."""
        return self.film(F.mish(torch.cat([self.time(time), features], -1)))

    def through_levels(self, x: Tensor, condition: Tensor) -> Tensor:
        """Denoise a padded chunk of A channels, given its condition (B, C); layout and shape stay."""
        film = iter(condition.split(self.film_sizes, -1))
        skips = []
        for level, (first, second) in enumerate(self.down):  # type: ignore[not-iterable]
            x = second(first(x, next(film)), next(film))
            skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
        for block in self.middle:
            x = block(x, next(film))
        for (first, second), grow in zip(self.up, self.grow):  # type: ignore[not-iterable]
            x = torch.cat([x, skips.pop()], self.channels_dim)
            x = grow(second(first(x, next(film)), next(film)))
        return self.out(self.last(x))


class UNet1d(UNetLevels):
    """Denoiser: a noisy chunk (B, Tp, A) and its condition (B, C) -> (B, Tp, A)."""

    channels_dim = 1

    def __init__(self, config: UNetConfig, *, feature_size: int, action_size: int) -> None:
        super().__init__()
        channels = config.channels
        wrong = [c for c in channels if c < 1 or c % config.num_groups]
        if not channels or wrong or config.kernel_size % 2 == 0:
            raise ConfigError(
                f"a unet needs channels that are multiples of num_groups ({config.num_groups}) and an odd kernel_size, "
                f"received channels {list(channels)} and kernel_size {config.kernel_size}"
            )
        self.multiple = 2 ** (len(channels) - 1)
        self.time = TimeEmbedding(config.time_size)
        sizes = (action_size, *channels)
        self.down = nn.ModuleList(_pair(i, o, config) for i, o in pairwise(sizes))
        self.shrink = nn.ModuleList(nn.Conv1d(c, c, 3, stride=2, padding=1) for c in channels[:-1])
        self.middle = _pair(channels[-1], channels[-1], config)
        self.up = nn.ModuleList(_pair(2 * o, i, config) for i, o in reversed(list(pairwise(channels))))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(c, c, 4, stride=2, padding=1) for c in channels[-2::-1])
        self.last = ConvBlock(channels[0], channels[0], config)
        self.out = nn.Conv1d(channels[0], action_size, 1)
        blocks = [block for pair in (*self.down, self.middle, *self.up) for block in pair]  # type: ignore[not-iterable]
        self.film_sizes = [2 * block.channels for block in blocks]
        self.film = nn.Linear(config.time_size + feature_size, sum(self.film_sizes))
        _scales_start_at_one(self.film, self.film_sizes)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        steps = x.shape[1]
        padded = F.pad(x.transpose(1, 2), (0, -steps % self.multiple))
        return self.through_levels(padded, condition)[..., :steps].transpose(1, 2)


def _pair(inputs: int, outputs: int, config: UNetConfig) -> nn.ModuleList:
    return nn.ModuleList([ResidualBlock(inputs, outputs, config), ResidualBlock(outputs, outputs, config)])


def _scales_start_at_one(film: nn.Linear, sizes: list[int]) -> None:
    """A scale drawn around zero would start every block with a dead signal path."""
    with torch.no_grad():
        for part in film.bias.split(sizes):
            scale, shift = part.chunk(2)
            scale.fill_(1.0)
            shift.zero_()
