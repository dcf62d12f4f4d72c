"""Progress of long work: rate and time left, as a bar in a terminal and as a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn

PLAIN_INTERVAL_S = 5.0
BAR_INTERVAL_S = 0.1


class Progress:
    """`with Progress("train", 1000, unit="step") as p: p.update(done, note="loss 0.1")`.

    Everything goes to standard error, so that a verb's output can be piped.
    """

    def __init__(self, label: str, total: int, *, unit: str = "step", start: int = 0, quiet: bool = False) -> None:
        """
        Args:
            start: units done before this run (a resumed one), left out of the rate.
            quiet: show nothing (another process does).
        """
        self.quiet = quiet
        self.label, self.total, self.unit, self.start = label, total, unit, start
        self.done, self.note = start, ""
        self._began = self._printed = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        self._began = self._printed = time.monotonic()
        if sys.stderr.isatty() and not self.quiet:
            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}")
            self._bar = Bar(*columns, console=Console(stderr=True), transient=False, refresh_per_second=8)
            self._bar.start()
            self._bar.add_task(self.label, total=self.total, completed=self.start, status="")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, status=self.status())
            self._bar.stop()
        elif not self.quiet:
            print(f"{self.label}: {self.status()}", file=sys.stderr, flush=True)

    def update(self, done: int, note: str = "") -> None:
        """Set how many units are done in all; cheap enough to call at every step."""
        self.done, self.note = done, note or self.note
        now = time.monotonic()
        if now - self._printed < (BAR_INTERVAL_S if self._bar is not None else PLAIN_INTERVAL_S):
            return
        self._printed = now
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, status=self.status())
        elif not self.quiet:
            print(f"{self.label}: {self.status()}", file=sys.stderr, flush=True)

    def status(self) -> str:
        """Return, for example, `120/1000 steps, 42.0/s, 0:21 left, loss 0.1`."""
        elapsed = time.monotonic() - self._began
        rate = (self.done - self.start) / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.done}/{self.total} {self.unit}s"]
        if rate > 0:
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            left = (self.total - self.done) / rate
            parts.append(f"{clock(left)} left" if self.done < self.total else f"took {clock(elapsed)}")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Return `0:05`, `12:34` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
