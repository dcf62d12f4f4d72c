"""How the processor computes: how many threads a network gets, and what becomes of numbers next to zero."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

WORTH_A_THREAD = 10_000_000
"""Multiplications of a forward pass for each thread. With less a thread gains less than it costs: its barriers spin on
cores that the environments want."""
ALL = torch.get_num_threads()
"""Torch's own choice."""


@contextmanager
def fitting_threads(*modules: nn.Module, rows: int) -> Iterator[None]:
    """As many threads as these networks are worth with `rows` rows at a time; OMP_NUM_THREADS, where set, decides."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        work = rows * sum(p.numel() for module in modules for p in module.parameters())
        torch.set_num_threads(max(1, min(ALL, work // WORTH_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as zero inside.

    Densities and Adam's second moments come close to zero in a trained network, and arithmetic on such numbers takes a
    slow path of the processor: a fifth of a mixture policy's update. Physics is left alone, so that it stays exact.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _flush_in_pool() -> None:
    """Start torch's pool of threads with denormals flushed: threads inherit the mode of the one that starts them, and
    `flushed_denormals` can only change its own. Where the pool is there already this changes nothing."""
    with flushed_denormals():
        torch.ones(1 << 20).mul_(2.0)


_flush_in_pool()
