"""Torch's threads on the processor: their number, and their treatment of numbers next to zero."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

WORTH_A_THREAD = 10_000_000
"""Multiplications of a forward pass for each thread. With less a thread gains less than it costs: its barriers spin on
cores that the environments want."""
MAX_THREADS = torch.get_num_threads()
"""Torch's own choice."""


@cache
def start_thread_pool() -> None:
    """Settle the number of torch's threads and start them with denormals flushed; a run does this before all else.

    Threads inherit the mode of the one that starts them, and `flushed_denormals` can only change its own: where torch
    has started them already, they stay as they are. A second call does nothing.
    """
    torch.set_num_threads(torch.get_num_threads())  # tells MKL, which else ends and starts threads between its calls
    with flushed_denormals():
        torch.ones(1 << 20).mul_(2.0)  # large enough for all threads


@contextmanager
def fitting_threads(*modules: nn.Module, rows: int, jobs: int = 1) -> Iterator[None]:
    """Give torch as many threads as these networks are worth with `rows` rows at a time; OMP_NUM_THREADS, where set,
    decides instead.

    Args:
        jobs: side by side, among which the work and the cores are divided.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        work = rows * sum(p.numel() for module in modules for p in module.parameters())
        torch.set_num_threads(max(1, min(MAX_THREADS, work // WORTH_A_THREAD) // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as zero inside, in this thread.

    Densities and Adam's second moments come close to zero in a trained network, and arithmetic on such numbers takes a
    slow path of the processor: a fifth of a mixture policy's update. Physics is left alone, so that it stays exact.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
