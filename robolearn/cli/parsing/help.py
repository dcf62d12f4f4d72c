"""`robolearn VERB --help`: the keys that people change, in named groups; `--help all` shows every key.

Which keys are common, and under which title, is declared by the verb's configuration class (`COMMON`); a class without
shows all it has. Everything fits the terminal: from 60 columns on in two columns, below with each text under its key.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from typing import Any, get_origin

from robolearn.cli.parsing.command import Command
from robolearn.configuration.tree import Option, common_groups, options

WIDEST, NARROWEST = 120, 24
"""Columns: longer lines are hard to read, and shorter ones hold no word."""
TWO_COLUMNS = 60
LONGEST_CHOICES = 40
"""Characters of choices that are shown beside the key, at most and in less than half the width, instead of under it."""


def terminal_width() -> int:
    """Return the columns to fill: the terminal's or the variable COLUMNS, within reason; all of them for a pipe."""
    return min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)


def command_help(command: Command, *, everything: bool = False, width: int | None = None) -> str:
    """Return the help of a verb: usage, purpose, groups of keys."""
    width = width or terminal_width()
    known = {option.key: option for option in options(command.config)}
    common = common_groups(command.config)
    everything = everything or not common
    groups = {title: [known[key] for key in keys] for title, keys in common.items()}
    left = [option for key, option in known.items() if key not in {o.key for group in groups.values() for o in group}]
    if everything:
        for option in left:
            groups.setdefault(f"{option.key.split('.')[0]}.*" if "." in option.key else "other", []).append(option)
    positional = "".join(
        f" [{o.key} ...]" if _is_sequence(o) else f" [{o.key}]" for o in known.values() if o.positional
    )
    usage = f"usage: {command.prog}{positional} [--config FILE] [--key value ...]"
    general = [("--config FILE", "YAML file with values for the keys; what is given beside it wins.")]
    general += [("--help all", f"All {len(known)} keys.")] if not everything else []
    return "\n".join(
        [
            *textwrap.wrap(usage, width, subsequent_indent="    ", break_on_hyphens=False),
            "",
            *textwrap.wrap(command.help[:1].upper() + command.help[1:] + ".", width),
            *(
                line
                for title, group in groups.items()
                for line in _group(title, (_row(option, width) for option in group), width)
            ),
            *_group("general", general, width),
        ]
    )


def describe(option: Option) -> str:
    """Return the option's help text with its default."""
    if option.default is MISSING:
        shown = "required"
    elif isinstance(option.default, (str, int, float, bool, tuple)) or option.default is None:
        shown = f"default: {_plain(option.default)}"
    else:
        shown = f"default: {option.default.name}" if hasattr(option.default, "name") else ""
    return f"{option.help} ({shown})".strip() if shown else option.help


def metavar(option: Option) -> str:
    """Return what stands for the value: its choices, or the name of its type."""
    if option.choices:
        return "{" + ",".join(option.choices) + "}"
    if _is_sequence(option) or option.open:
        return "VALUE"
    return getattr(option.type, "__name__", "value").upper()


def two_columns(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield rows of a name and a text; on a narrow terminal, or after a long name, the text goes under the name."""
    rows = list(rows)
    longest = max((len(name) for name, _ in rows), default=0)
    column = min(longest, width // 3) + 4 if width >= TWO_COLUMNS or longest <= width // 3 else 6
    for name, text in rows:
        lines = textwrap.wrap(text, width - column, break_on_hyphens=False) or [""]
        fits = len(name) + 4 <= column
        yield f"  {name:<{column - 2}}{lines.pop(0)}".rstrip() if fits else f"  {name}"
        yield from (" " * column + line for line in lines)


def _group(title: str, rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    yield ""
    yield f"{title}:"
    yield from two_columns(rows, width)


def _row(option: Option, width: int) -> tuple[str, str]:
    value, text = metavar(option), describe(option)
    if option.choices and len(value) > min(LONGEST_CHOICES, width // 2):
        value, text = "NAME", f"{text} One of {', '.join(option.choices)}."
    if _is_sequence(option):
        value += " ..."
    if option.open:
        return f"--{option.key}.KEY {value}", text
    return (option.key if option.positional else f"--{option.key} {value}"), text


def _is_sequence(option: Option) -> bool:
    return get_origin(option.type) in (tuple, list)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "empty"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value) or "empty"
