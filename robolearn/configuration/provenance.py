"""Provenance: did an output that is there come from the same inputs? Asked before it is gone on with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from robolearn.configuration.tree import read_yaml, to_dict
from robolearn.errors import ConfigError, option

MAX_NAMED = 3
"""Differences that a message names."""


def check_same_inputs(config: Any, path: str | Path, *, output: str | Path) -> None:
    """Raise ConfigError naming what differs where the configuration written at `path` is another one.

    A class of configurations says in `BUDGET` which of its keys may differ: how long and how often, where it runs and
    writes. Fields that the written one does not know are not compared.

    Args:
        path: the resolved configuration beside the output; where there is none, nothing is known and nothing raised.
        output: what would be gone on with, for the message.
    """
    path = Path(path)
    if not path.is_file():
        return
    free: Collection[str] = getattr(config, "BUDGET", ())
    found = _differences(read_yaml(path), config, free)
    different = [f"{key} {before!r}, now {now!r}" for key, before, now in found]
    if different:
        more = f" and {len(different) - MAX_NAMED} more" if len(different) > MAX_NAMED else ""
        raise ConfigError(
            f"{output} was made from other inputs ({path.name} in its place says {'; '.join(different[:MAX_NAMED])}"
            f"{more}). To go on with it, take its own: {option('config', path)}; else name another output"
        )


def _differences(before: Any, now: Any, free: Collection[str], key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value before, value now) where plain values differ from a configuration, `free` keys apart."""
    if key in free:
        return
    if is_dataclass(now) and isinstance(before, Mapping):
        values = {f.name: getattr(now, f.name) for f in fields(now) if f.name in before}
    elif isinstance(now, Mapping) and isinstance(before, Mapping):  # such as kwargs: a key less is another value, too
        values = {name: now.get(name) for name in dict.fromkeys([*before, *now])}
    else:
        if not _same(before, to_dict(now)):
            yield key, before, to_dict(now)
        return
    for name, value in values.items():
        yield from _differences(before.get(name), value, free, f"{key}.{name}" if key else str(name))


def _same(before: Any, now: Any) -> bool:
    """Compare two plain values; two ways to one file are the same, and so are a list and a tuple."""
    if isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(before) == len(now) and all(map(_same, before, now))
    if isinstance(before, str) and isinstance(now, str) and before != now and before and now:
        return Path(before).exists() and Path(now).exists() and Path(before).samefile(now)
    return before == now
