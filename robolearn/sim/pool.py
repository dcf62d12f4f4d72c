"""A persistent pool of threads for short jobs that release the interpreter lock."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def default_threads() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """`size` threads, the calling one included. Started once; idle threads wait without using the CPU.

    Every thread has its share of the items, the same one every time, so that a core finds in its cache what it worked
    on last; whoever is done early takes from the ends of the others' shares. So a thread that the system lets wait
    holds nobody up.
    """

    def __init__(self, size: int):
        self.size = max(1, size)
        self._jobs: list[SimpleQueue[Callable[[], None] | None]] = [SimpleQueue() for _ in range(self.size - 1)]
        self._threads = [threading.Thread(target=_serve, args=(jobs,), daemon=True) for jobs in self._jobs]
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[[T], None], items: Sequence[T], *, threads: int | None = None) -> None:
        """Call `work` on every item, in no particular order; raises the first error once all items are done.

        Args:
            threads: use so many at most; None uses all.
        """
        count = min(self.size, len(items), threads or self.size)
        if count <= 1:
            _raise_first([_outcome(work, item) for item in items])
            return
        bounds = [len(items) * k // count for k in range(count + 1)]
        shares = [deque(items[first:last]) for first, last in itertools.pairwise(bounds)]
        outcomes: SimpleQueue[BaseException | None] = SimpleQueue()

        def drain(own: int) -> None:
            for share, take in [(shares[own], deque.popleft), *((share, deque.pop) for share in shares)]:
                while share:
                    try:
                        item = take(share)
                    except IndexError:
                        break  # another thread was faster
                    outcomes.put(_outcome(work, item))

        for k in range(1, count):
            self._jobs[k - 1].put(lambda k=k: drain(k))
        drain(0)
        _raise_first([outcomes.get() for _ in items])

    def close(self) -> None:
        for jobs in self._jobs:
            jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads, self._jobs = [], []
        self.size = 1


def _outcome(work: Callable[[T], None], item: T) -> BaseException | None:
    try:
        work(item)
    except BaseException as error:
        return error
    return None


def _raise_first(outcomes: list[BaseException | None]) -> None:
    for error in outcomes:
        if error is not None:
            raise error


def _serve(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
