"""Counter-based randomness: a draw depends on (seed, stream, position) and on nothing else.

The same seed gives the same episode whatever the number of environments, the device or the back end, and drawing
costs the device a few integer operations, never the host a loop over generators.
"""

from __future__ import annotations

import math

import torch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the increment of splitmix64 (Steele et al. 2014)
_MIX = (-4658895280553007687, -7723592293110705685)  # its two multipliers, as signed 64-bit numbers
_UNIT = 2.0**-53


class Draw:
    """Random numbers for N episodes at once; each call takes the next ones of every episode's own sequence."""

    def __init__(self, seeds: torch.Tensor, stream: int = 0):
        """Args:
        seeds: (N,) int64, one per episode.
        stream: keeps uses apart (start, expert, physics ...), which may share a seed.
        """
        assert seeds.dtype == torch.int64
        self._key = _mix(_mix(seeds + _GOLDEN) ^ _mix(torch.full_like(seeds, stream)))
        self._position = 0

    def unit(self, size: int) -> torch.Tensor:
        """Return (N, size) float64, uniform in [0, 1)."""
        positions = torch.arange(self._position, self._position + size, device=self._key.device)
        self._position += size
        bits = _mix(self._key[:, None] + positions * _GOLDEN)
        return _shift(bits, 11).double() * _UNIT

    def uniform(self, low: float, high: float, size: int = 1) -> torch.Tensor:
        """Return (N, size) float64, uniform in [low, high)."""
        return low + (high - low) * self.unit(size)

    def normal(self, size: int) -> torch.Tensor:
        """Return (N, size) float64, standard normal (Box-Muller)."""
        radius = torch.sqrt(-2.0 * torch.log1p(-self.unit(size)))
        return radius * torch.cos(2.0 * math.pi * self.unit(size))

    def integer(self, count: int) -> torch.Tensor:
        """Return (N,) int64, uniform in {0, ..., count - 1}."""
        return (self.unit(1)[:, 0] * count).long().clamp_(max=count - 1)


def noise(seeds: torch.Tensor, step: torch.Tensor, size: int, stream: int) -> torch.Tensor:
    """Return (N, size) standard normal numbers of one step of each episode; `step` is (N,) int64."""
    return Draw(_mix(seeds * 1000003 + step), stream).normal(size)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right, logically; torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift(x, 30)) * _MIX[0]
    x = (x ^ _shift(x, 27)) * _MIX[1]
    return x ^ _shift(x, 31)
