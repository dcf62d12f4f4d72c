"""A control loop's clock: absolute deadlines, and an account of where the time goes."""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPIN_S = 0.0005
"""The last stretch before a deadline is waited out awake: a sleeping process is woken that much late."""
SMOOTHING = 0.1
OTHERS = "other programs"
SWITCH_S = 0.0005
"""After so long a thread hands the interpreter to one that waits; Python's own 5 ms are a fourth of a step at 50 Hz."""


class Pacer:
    """Waits for the ticks of a fixed rate. Delays do not add up, and ticks that were missed are not made up for."""

    def __init__(
        self,
        hz: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.hz, self.period = hz, 1.0 / hz
        self.late = 0
        """Ticks that began more than half a period after they were due."""
        self.is_late = False
        """Whether the present tick is one of them."""
        self.ticks = 0
        self.costs: dict[str, float] = {}
        """Seconds of each section, smoothed over ticks."""
        self.late_by: Counter[str] = Counter()
        """Late ticks by the section that took longest in the step before; OTHERS where none of them did."""
        self._spent: defaultdict[str, float] = defaultdict(float)
        """Seconds of each section in the present tick."""
        self._clock, self._sleep = clock, sleep
        self._due: float | None = None

    def wait(self) -> None:
        """Wait until the next tick is due."""
        now = self._clock()
        due = now if self._due is None else self._due
        while (left := due - self._clock()) > 0:
            self._sleep(max(left - SPIN_S, 0.0))
        behind = self._clock() - due
        self.is_late = behind > 0.5 * self.period
        self.ticks += 1
        self.late += self.is_late
        if self.is_late:
            self.late_by[self._slowest()] += 1
        self._spent.clear()
        self._due = due + self.period * (1 + int(behind / self.period))

    def restart(self) -> None:
        """Begin anew after something that is no part of a control step: the next tick is due a period from now."""
        self._due = self._clock() + self.period
        self._spent.clear()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Book the time spent inside under `name`."""
        began = self._clock()
        try:
            yield
        finally:
            spent = self._clock() - began
            self._spent[name] += spent
            self.costs[name] = self.costs.get(name, spent) + SMOOTHING * (spent - self.costs.get(name, spent))

    def blame(self) -> str | None:
        """Say which section makes the loop too slow for its rate; None where it is not."""
        total = sum(self.costs.values())
        if total <= self.period or not self.costs:
            return None
        worst = max(self.costs, key=lambda name: self.costs[name])
        return (
            f"a step takes {1e3 * total:.0f} ms where {self.hz:g} Hz leave {1e3 * self.period:.0f} ms; "
            f"{worst} costs {1e3 * self.costs[worst]:.0f} ms"
        )

    def _slowest(self) -> str:
        if sum(self._spent.values()) < self.period:
            return OTHERS
        return max(self._spent, key=lambda name: self._spent[name])


@contextmanager
def punctual() -> Iterator[None]:
    """Keep Python itself from making a loop late, inside: threads that serve pages give way at once, and the garbage
    collector leaves alone what was there before, which takes it tens of milliseconds to walk through."""
    before = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()
