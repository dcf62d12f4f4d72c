"""Episode seeds of a run that several processes share."""

from __future__ import annotations

from robolearn.rl.collecting.macro_steps import SeedStream
from robolearn.training import distributed


class SharedSeeds(SeedStream):
    """Deals out the seeds that one process would draw: process i of n takes the i-th, the (i+n)-th, ..."""

    def take(self, n: int) -> list[int]:
        """Return this process's next `n` seeds."""
        processes, own = distributed.world_size(), distributed.rank()
        seeds = [self.first + ((self.drawn + i) * processes + own) % self.count for i in range(n)]
        self.drawn += n
        return seeds
