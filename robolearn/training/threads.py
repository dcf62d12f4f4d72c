"""How the processor computes: how many threads a network gets, and what becomes of numbers next to zero."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")
U = TypeVar("U")

WORTH_A_THREAD = 10_000_000
"""Multiplications of a forward pass for each thread. With less a thread gains less than it costs: its barriers spin on
cores that the environments want."""
ALL = torch.get_num_threads()
"""Torch's own choice."""
torch.set_num_threads(ALL)  # also tells MKL, which else ends and starts threads between its own calls and torch's


@contextmanager
def fitting_threads(*modules: nn.Module, rows: int, jobs: int = 1) -> Iterator[None]:
    """As many threads as these networks are worth with `rows` rows at a time; OMP_NUM_THREADS, where set, decides.

    Args:
        jobs: side by side, among which the work and the cores are divided.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        work = rows * sum(p.numel() for module in modules for p in module.parameters())
        torch.set_num_threads(max(1, min(ALL, work // WORTH_A_THREAD) // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Pair:
    """Runs two jobs side by side, the second in a thread of its own; one after the other where there is one core."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.jobs = 2 if enabled and ALL > 1 else 1
        # Numbers next to zero count as in the training loop, whose mode is that of its own thread.
        self._thread = ThreadPoolExecutor(1, "pair", torch.set_flush_denormal, (True,)) if self.jobs > 1 else None

    def __call__(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """What both return; raises what either raised once both have ended."""
        if self._thread is None:
            return first(), second()
        threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()

        def beside() -> U:
            torch.set_num_threads(threads)  # which every thread keeps for itself, as it does the gradients' mode
            with torch.set_grad_enabled(gradients):
                return second()

        other = self._thread.submit(beside)
        try:
            mine = first()
        finally:
            wait([other])
        return mine, other.result()


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
