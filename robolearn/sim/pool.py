"""A persistent pool of threads for short jobs that release the interpreter lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def default_threads() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """`size` threads, the calling one included. Started once; idle threads wait without using the CPU."""

    def __init__(self, size: int):
        self.size = max(1, size)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.size - 1)]
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Call `work` on every item, in no particular order; raises the first error once all items are done."""
        pending = iter(items)
        helpers = min(self.size, len(items)) - 1
        finished: SimpleQueue[BaseException | None] = SimpleQueue()

        def drain() -> None:
            error: BaseException | None = None
            for item in pending:  # a list iterator hands every item to exactly one thread
                try:
                    work(item)
                except BaseException as caught:
                    error = error or caught
            finished.put(error)

        for _ in range(helpers):
            self._jobs.put(drain)
        drain()
        errors = [finished.get() for _ in range(helpers + 1)]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
        self.size = 1

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
