"""A dataset to convert, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from robolearn.datasets.format.schema import Header
from robolearn.specs import Episode


@dataclass
class Source:
    """Episodes and what holds for all of them, as a reader of one layout delivers them to a writer of another."""

    header: Header
    episodes: Iterator[Episode]
    """In order; consumed once."""
    count: int
    models: Mapping[str, bytes] = field(default_factory=dict)
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Indices of episodes by mask name."""
    lost: list[str] = field(default_factory=list)
    """Facts that the source does not state, or that we cannot hold; complete once the episodes are consumed."""
