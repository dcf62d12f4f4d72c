"""Torch's threads on the processor: their number, and their treatment of numbers next to zero."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

WORTH_A_THREAD = 10_000_000
"""Multiplications of a forward pass for each thread. With less a thread gains less than it costs: its barriers spin on
cores that the environments want."""
MAX_THREADS = torch.get_num_threads()
"""Torch's own choice."""
CLEARLY = 1.15
"""So many times as fast more threads must be."""
MEASURED_S, DOUBTFUL_S = 60.0, 10.0
"""What was measured holds for so long; the second where it says fewer than before, as after a moment's stall."""


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
    """Give torch as many threads as these networks are worth with `rows` rows at a time, and as gain something beside
    what else the machine does; OMP_NUM_THREADS, where set, decides instead.

    Args:
        jobs: side by side, among which the work and the cores are divided.
    """
    before = torch.get_num_threads(), _fit.worth
    if "OMP_NUM_THREADS" not in os.environ:
        work = rows * sum(p.numel() for module in modules for p in module.parameters())
        _fit.worth = max(1, min(MAX_THREADS, work // WORTH_A_THREAD) // jobs)
        refit_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        _fit.worth = before[1]


def refit_threads() -> None:
    """Look again how many threads gain something, inside of `fitting_threads`, once a minute at most, but for a second
    look at bad news; long runs do so now and then. Two threads of which one waits for a core that another program has
    are slower than one."""
    if _fit.worth > 1 and time.monotonic() > _fit.holds_until:
        found = gaining_threads(_product_seconds, MAX_THREADS)
        _fit.holds_until = time.monotonic() + (DOUBTFUL_S if found < _fit.gain else MEASURED_S)
        _fit.gain = found
    wanted = min(_fit.worth, _fit.gain)
    if wanted not in (0, torch.get_num_threads()):
        torch.set_num_threads(wanted)


def gaining_threads(seconds: Callable[[int], float], most: int) -> int:
    """Return the number of threads, at most so many, with which work goes clearly faster than with fewer.

    Args:
        seconds: of a piece of work on so many threads.
    """
    best, least = 1, statistics.median(seconds(1) for _ in range(5))
    for number in [*(1 << i for i in range(1, most.bit_length()) if 1 << i < most), most]:
        taken: list[float] = []
        while len(taken) < 5 and sum(time_s > 2.0 * least for time_s in taken) < 2:
            taken.append(seconds(number))  # where cores are missed it takes long, and two of them say enough
        if statistics.median(taken) < least / CLEARLY:
            best, least = number, statistics.median(taken)
    return best


def _product_seconds(threads: int) -> float:
    """Return the time of matrix products that are worth all threads: a few milliseconds on each."""
    torch.set_num_threads(threads)
    size = round((WORTH_A_THREAD * MAX_THREADS) ** (1 / 3))
    a, out = torch.ones(size, size), torch.empty(size, size)
    torch.mm(a, a, out=out)  # wakes the threads up
    start = time.perf_counter()
    for _ in range(max(1, 20 // MAX_THREADS)):
        torch.mm(a, a, out=out)
    return time.perf_counter() - start


@dataclass
class _Fit:
    worth: int = 0
    """Threads that the networks at work are worth; 0 outside of `fitting_threads`."""
    gain: int = MAX_THREADS
    """Threads that gain something, as far as the machine goes."""
    holds_until: float = -math.inf
    """On the monotonic clock, seconds."""


_fit = _Fit()


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
