"""Provenance: did an output that is there come from the same inputs? Asked before it is gone on with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from robolearn.configuration.tree import read_yaml, to_dict
from robolearn.errors import ConfigError

MAX_NAMED = 3
"""Differences that a message names."""


def check_same_inputs(config: Any, path: str | Path, *, output: str | Path) -> None:
    """Raise ConfigError naming what differs where the configuration written at `path` is another one.

    A class of configurations says in `BUDGET` which of its keys may differ: how long and how often, where it runs and
    writes. Keys that one of the two does not know are not compared.

    Args:
        path: the resolved configuration beside the output; where there is none, nothing is known and nothing raised.
        output: what would be gone on with, for the message.
    """
    path = Path(path)
    if not path.is_file():
        return
    free: Collection[str] = getattr(config, "BUDGET", ())
    before, now = dict(_leaves(read_yaml(path))), dict(_leaves(to_dict(config)))
    names = [key for key in now if key in before and not any(key == f or key.startswith(f"{f}.") for f in free)]
    different = [f"{key} {before[key]!r}, now {now[key]!r}" for key in names if not _same(before[key], now[key])]
    if different:
        more = f" and {len(different) - MAX_NAMED} more" if len(different) > MAX_NAMED else ""
        raise ConfigError(
            f"{output} was made from other inputs ({path.name} in its place says {'; '.join(different[:MAX_NAMED])}"
            f"{more}). To go on with it, take its own: --config {path}; else name another output"
        )


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _same(before: Any, now: Any) -> bool:
    """Compare two plain values; two ways to one file are the same, and so are a list and a tuple."""
    if isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(before) == len(now) and all(map(_same, before, now))
    if isinstance(before, str) and isinstance(now, str) and before != now and before and now:
        return Path(before).exists() and Path(now).exists() and Path(before).samefile(now)
    return before == now
