"""Words of the command line to a configuration, by an argparse parser made from the configuration's class."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, get_origin

from robolearn.cli.parsing.command import Command
from robolearn.cli.parsing.help import describe, metavar
from robolearn.cli.parsing.own_task import complete_task
from robolearn.configuration.tree import Option, load, options, unknown_key
from robolearn.configuration.tree.values import TRUTHS
from robolearn.errors import ConfigError

NEGATIVE = re.compile(r"(-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?(:.*)?|-inf)$", re.IGNORECASE)
"""Values that begin with a minus: numbers, and pairs of them (`-1:1`)."""
CONFIG_KEY, HELP_KEY = "--config", "--help"
"""Where the parser puts what is no key of a configuration; no key begins with dashes."""


def asked_for_help(argv: Sequence[str]) -> tuple[bool, bool]:
    """Return whether help is asked for, and whether for all keys."""
    at = next((i for i, word in enumerate(argv) if word in ("-h", "--help")), None)
    return at is not None, at is not None and list(argv[at + 1 : at + 2]) == ["all"]


def parse(command: Command, argv: Sequence[str]) -> Any:
    """Return the configuration that `argv` describes; raises ConfigError on anything unknown or ill-formed."""
    known = list(options(command.config))
    prefixes = tuple(f"--{option.key}." for option in known if option.open)
    flags = {f"--{option.key}" for option in known if option.type is bool}
    words, overrides = _split_open(list(_flags_told([_underscored(word) for word in argv], flags)), prefixes)
    # Intermixed: `eval POLICY --videos 0 POLICY` names two policies.
    values, rest = build_parser(command).parse_known_intermixed_args(words)
    _refuse(rest, [key for option in known for key in (option.key, *option.aliases)])
    overrides += [(key, value) for key, value in vars(values).items() if not key.startswith("--")]
    # Sections before their fields (`--policy.head gaussian --policy.head.squash false` in any order).
    overrides.sort(key=lambda item: item[0].count("."))
    complete = partial(complete_task, command.config)
    return load(command.config, getattr(values, CONFIG_KEY, None), overrides, complete)


def build_parser(command: Command) -> argparse.ArgumentParser:
    """Return a parser, also for completion; defaults are left to the configuration classes."""
    parser = _Parser(
        prog=command.prog,
        description=command.help,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--help", dest=HELP_KEY, nargs="?", choices=["all"], help="the common keys, or all")
    parser.add_argument("--config", dest=CONFIG_KEY, metavar="FILE", help="YAML file with values for the keys below")
    for option in options(command.config):
        _add_option(parser, option)
    return parser


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._negative_number_matcher = NEGATIVE  # argparse's own takes -1e3 for an option, and -1:1

    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}; see {self.prog} --help")


class _Once(argparse.Action):
    """Takes a list of values; a second one would replace the first without a word."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"--{self.dest} is given twice; write all its values behind one: --{self.dest} A B")
        setattr(namespace, self.dest, values)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    sequence = get_origin(option.type) in (tuple, list)
    described: dict[str, Any] = {"help": describe(option).replace("%", "%%"), "metavar": metavar(option)}
    # Hidden second ways to write the same; an absent one must not undo the other.
    hidden: dict[str, Any] = {"dest": option.key, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    for alias in option.aliases:
        parser.add_argument(f"--{alias}", **hidden)
    if option.positional:
        # argparse does not honour SUPPRESS for an absent "*" positional unless it is the action's own default.
        nargs = "*" if sequence else "?"
        parser.add_argument(option.key, nargs=nargs, default=argparse.SUPPRESS, help=described["help"])
        many: dict[str, Any] = {"nargs": "+", "action": _Once} if sequence else {}
        parser.add_argument(f"--{option.key}", **many, **hidden)
    elif option.type is bool:
        parser.add_argument(f"--{option.key}", dest=option.key, nargs="?", const="true", **described)
    elif sequence:
        parser.add_argument(f"--{option.key}", dest=option.key, nargs="+", action=_Once, **described)
    else:
        parser.add_argument(f"--{option.key}", dest=option.key, **described)


def _underscored(word: str) -> str:
    """`--num-modes` reads as `--num_modes`; values are left alone."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _flags_told(words: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    """Yield the words; a flag that no truth value follows is told true, lest it swallows what does follow."""
    for word, following in pairwise([*words, ""]):
        yield f"{word}=true" if word in flags and following.lower() not in (*TRUTHS, "none", "null") else word


def _split_open(words: Sequence[str], prefixes: tuple[str, ...]) -> tuple[list[str], list[tuple[str, Any]]]:
    """Take out overrides below free mappings (`--task.kwargs.env_name pick-place-v3`) before argparse, which cannot
    know them, would give their values to the positional arguments."""
    rest: list[str] = []
    found: list[tuple[str, Any]] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith(prefixes or ("\0",)):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not queue or queue[0].startswith("--"):
                raise ConfigError(f"--{key} needs a value")
            value = queue.pop(0)
        found.append((key, value))
    return rest, found


def _refuse(rest: Sequence[str], known: list[str]) -> None:
    """Raise ConfigError where words are left over."""
    if not rest:
        return
    if not rest[0].startswith("--"):
        raise ConfigError(f"unexpected argument {rest[0]!r}; options are written --key value")
    raise unknown_key(rest[0].removeprefix("--").partition("=")[0], known, "")
