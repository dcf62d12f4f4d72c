"""The seat of the driver among several open pages: one at a time, the others watch and may ask for it."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 5.0
"""How long a driver that was asked may stay silent, and how long the seat of one that is gone is kept for it."""


class Seat:
    """The driver's seat. The first page takes it; who asks gets it when the driver agrees or says nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pages: list[str] = []
        self.driver: str | None = None
        """The page that drives; it may be gone for a moment."""
        self.asking: str | None = None
        """The page that asked for the seat."""
        self._since = clock()
        """When the driver was last heard of, was asked, or left."""

    def enter(self, page: str) -> None:
        """A page opened, or came back."""
        if page not in self._pages:
            self._pages.append(page)
        if self.driver is None:
            self._give(page)

    def leave(self, page: str) -> None:
        """A page was closed, or its line broke."""
        if page in self._pages:
            self._pages.remove(page)
        if page == self.asking:
            self.asking = None
        if page == self.driver:
            self._since = self._clock()

    def ask(self, page: str) -> None:
        """A watching page wants to drive; one at a time may ask."""
        if page in self._pages and page != self.driver and self.asking is None:
            self.asking, self._since = page, self._clock()

    def answer(self, page: str, *, give: bool) -> None:
        """The driver answers whoever asked."""
        if page == self.driver and self.asking is not None:
            if give:
                self._give(self.asking)
            else:
                self.asking = None

    def stir(self, page: str) -> None:
        """The driver's inputs moved: it is not silent."""
        if page == self.driver:
            self._since = self._clock()

    def update(self) -> None:
        """Let time do what it does: pass the seat on."""
        gone = self.driver not in self._pages
        if self.asking is not None and (gone or self.patience_s == 0.0):
            self._give(self.asking)
        elif gone and self._pages and self.patience_s == 0.0:
            self._give(self._pages[0])
        elif gone and not self._pages and self.patience_s == 0.0:
            self.driver = None

    @property
    def patience_s(self) -> float:
        """Seconds until a silent driver, or one that is gone, loses the seat to whoever wants it."""
        return max(0.0, PATIENCE_S - (self._clock() - self._since))

    def _give(self, page: str) -> None:
        self.driver, self.asking, self._since = page, None, self._clock()
