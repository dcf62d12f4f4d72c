"""Two jobs at the same time on two cores: compiled graphs run without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from robolearn.training import threads

T = TypeVar("T")
U = TypeVar("U")


class SideBySide:
    """Runs two jobs at the same time, the second in its own thread; one after the other where there is one core."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.jobs = 2 if enabled and threads.MAX_THREADS > 1 else 1
        # The thread flushes denormals from its start to its end, since the mode is each thread's own.
        self._thread = ThreadPoolExecutor(1, "beside", torch.set_flush_denormal, (True,)) if self.jobs > 1 else None

    def __call__(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """Return what both return; raise what either raised once both have ended."""
        if self._thread is None:
            return first(), second()
        own_threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()

        def beside() -> U:
            torch.set_num_threads(own_threads)  # which every thread keeps for itself, as it does the gradients' mode
            with torch.set_grad_enabled(gradients):
                return second()

        other = self._thread.submit(beside)
        try:
            mine = first()
        finally:
            wait([other])
        return mine, other.result()

    def map(self, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """Apply a function to each item, to the second half of them beside the first; results in their order."""
        half = (len(items) + 1) // 2
        first, second = self(
            lambda: [function(item) for item in items[:half]],
            lambda: [function(item) for item in items[half:]],
        )
        return [*first, *second]
