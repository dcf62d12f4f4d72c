"""Assumptions about a file: the facts that it does not state, and how it is read otherwise than it lies there.

`dataset info`, `validate`, `convert` and `train` show these lines; each says which option tells otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

Topic = Literal[
    "control_hz",
    "env_args",
    "actions",
    "limits",
    "observations",
    "pictures",
    "rewards",
    "ends",
    "next_obs",
    "timestamps",
    "success",
    "seed",
    "states",
    "num_samples",
    "instruction",
    "not taken",
]


@dataclass
class Assumptions:
    """Lines by topic, in the order in which they were noted; the same line is kept once."""

    _lines: dict[tuple[Topic, str], None] = field(default_factory=dict)

    def note(self, topic: Topic, text: str) -> None:
        self._lines.setdefault((topic, text))

    def about(self, *topics: Topic) -> tuple[str, ...]:
        """Return the lines of these topics."""
        return tuple(text for topic, text in self._lines if topic in topics)

    def lines(self) -> tuple[str, ...]:
        """Return all lines, `topic: text`."""
        return tuple(f"{topic}: {text}" for topic, text in self._lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines())

    def __len__(self) -> int:
        return len(self._lines)

    @classmethod
    def joined(cls, parts: Iterable[Assumptions]) -> Assumptions:
        """Return the assumptions of several files as one."""
        return cls({key: None for part in parts for key in part._lines})


def is_assumption(line: str) -> bool:
    """Tell whether a line of a conversion's report is an assumption, and not something that was left behind."""
    topic = line.partition(":")[0]
    return topic in get_args(Topic) and topic != "not taken"
