"""Rows in random order, cut into minibatches, several of which may go into one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from robolearn.envs.interface import Observation

UNROLLED = 4
"""Minibatches in one graph, at most: a small network's step is short beside the call of a graph, but every further
minibatch in it costs as much time to compile again."""


class Rows(Protocol):
    """Tensors (rows, ...) that belong together."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor."""
        ...

    def split(self, size: int) -> Sequence[Self]:
        """Cut into parts of `size` rows, the last one shorter where they do not come out even; parts are views."""
        ...


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class MinibatchGroup(Generic[R]):
    """`count` minibatches of `size` rows each, one behind the other."""

    rows: R
    """(count * size, ...)."""
    count: int
    size: int


def shuffled_minibatches(rows: R, total: int, size: int, generator: torch.Generator) -> list[MinibatchGroup[R]]:
    """Return all `total` rows once, in random order, as groups of minibatches.

    They are gathered for the whole epoch at once, so that a group is a view.

    Args:
        size: rows of a minibatch, 0 for all; the last one is smaller where they do not come out even.
    """
    order = torch.randperm(total, generator=generator, device=generator.device)
    shuffled = rows.map(lambda field: field.index_select(0, order))
    size = min(size or total, total)
    together = max(n for n in range(1, UNROLLED + 1) if total // size % n == 0)
    groups = []
    for i, part in enumerate(shuffled.split(size * together)):
        length = min(size * together, total - i * size * together)
        count = max(1, length // size)
        groups.append(MinibatchGroup(part, count, length // count))
    return groups


def split_observation(obs: Observation, size: int) -> list[Observation]:
    """Cut (rows, ...) of every key into parts of `size` rows, the last one shorter."""
    parts = zip(*(value.split(size) for value in obs.values()))
    return [dict(zip(obs, part)) for part in parts]
