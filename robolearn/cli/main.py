"""The command line: `robolearn VERB [--config FILE] [--key value ...]`, one thin module per verb.

A verb module has `CONFIG`, a configuration class, and `run(config) -> exit code`; `dataset`, `tasks` and `plot` have
`VERBS` instead, a table of sub-verbs, of which `DEFAULT` may be left out before a path (`plot runs/*`). Modules are
imported only when their verb is called, and import torch or MuJoCo only when they run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from robolearn import __version__
from robolearn.configuration.tree import ConfigError, Option, load, options, unknown_key
from robolearn.errors import RobolearnError

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("robolearn.cli.demo", "the whole line once: record, clone, correct, fine-tune, evaluate, report"),
    "init": ("robolearn.cli.init", "make a workspace: folders and example configurations"),
    "tasks": ("robolearn.cli.tasks", "list, render and view the tasks"),
    "record": ("robolearn.cli.record", "record demonstrations of an expert into an HDF5 file"),
    "teleop": ("robolearn.cli.teleop", "list the devices to drive with, and test one"),
    "dataset": ("robolearn.cli.dataset", "look at, check, repair, edit and convert datasets"),
    "train": ("robolearn.cli.train", "train a policy by behaviour cloning"),
    "dagger": ("robolearn.cli.dagger", "correct a policy with DAgger rounds"),
    "finetune": ("robolearn.cli.finetune", "fine-tune a policy with PPO"),
    "rl": ("robolearn.cli.rl", "train a controller from scratch with RL"),
    "eval": ("robolearn.cli.eval", "evaluate and compare policies on fixed seeds"),
    "replay": ("robolearn.cli.replay", "replay recorded episodes in the simulator"),
    "plot": ("robolearn.cli.plot", "plot learning curves and action densities"),
    "completion": ("robolearn.cli.completion", "print a shell completion script"),
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb or sub-verb, ready to be parsed and run."""

    prog: str
    config: type
    run: Callable[[Any], int]
    help: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 fine, 2 bad input, 130 interrupted)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if int(os.environ.get("RANK", "0")):
        sys.stdout = None  # one of several processes of torchrun, of which the first one speaks
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"robolearn {__version__}")
        return 0
    try:
        _check_processes(argv[0])
        command, rest = find_command(argv)
        if command is None:
            return 0
        return command.run(parse(command, rest))
    except RobolearnError as error:
        print(f"robolearn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrobolearn: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; that is its right. Python would complain at exit.
        sys.stdout = None
        return 128 + signal.SIGPIPE


def overview() -> str:
    """The top-level help; imports nothing."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: robolearn VERB [--config FILE] [--key value ...]",
            "",
            "Record demonstrations, clone them, correct them with DAgger, fine-tune the same policy with RL.",
            "",
            *lines,
            "",
            "robolearn VERB --help lists a verb's options; robolearn --version prints the version.",
        ]
    )


def find_command(argv: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """The command that `argv` names and the arguments left; None after a sub-verb overview was printed."""
    verb = argv[0]
    if verb not in VERBS:
        raise ConfigError(str(unknown_key(verb, list(VERBS), "")).replace("key", "verb"))
    commands = verb_commands(verb)
    if verb in commands:
        return commands[verb], argv[1:]
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        width = max(map(len, commands)) + 2
        print("\n".join(f"  robolearn {name:<{width}}{command.help}" for name, command in commands.items()))
        return None, ()
    name = f"{verb} {argv[1]}"
    default = getattr(import_module(VERBS[verb][0]), "DEFAULT", None)
    if name not in commands and default and (argv[1].startswith("-") or Path(argv[1]).exists()):
        return commands[f"{verb} {default}"], argv[1:]
    if name not in commands:
        known = [n.split()[1] for n in commands]
        raise ConfigError(str(unknown_key(argv[1], known, f"robolearn {verb}")).replace("key", "verb"))
    return commands[name], argv[2:]


def _check_processes(verb: str) -> None:
    """Several processes of torchrun doing anything but training would only write over each other."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and verb not in ("train", "finetune", "rl"):
        raise ConfigError(f"{verb} runs in one process, torchrun started {processes}; call robolearn {verb} by itself")


def verb_commands(verb: str) -> dict[str, Command]:
    """The command of a verb, or those of its sub-verbs, by full name."""
    path, text = VERBS[verb]
    module = import_module(path)
    if not hasattr(module, "VERBS"):
        return {verb: Command(prog=f"robolearn {verb}", config=module.CONFIG, run=module.run, help=text)}
    return {
        f"{verb} {name}": Command(prog=f"robolearn {verb} {name}", config=config, run=run, help=sub_text)
        for name, (config, run, sub_text) in module.VERBS.items()
    }


def parse(command: Command, argv: Sequence[str]) -> Any:
    """The configuration that `argv` describes; raises ConfigError on anything unknown or ill-formed."""
    parser = build_parser(command)
    values, rest = parser.parse_known_args([_underscored(token) for token in argv])
    known = list(options(command.config))
    open_keys = tuple(f"{o.key}." for o in known if o.open)
    overrides = [(key, value) for key, value in vars(values).items() if key != "--config"]
    overrides += _open_overrides(rest, open_keys, [key for o in known for key in (o.key, *o.aliases)])
    # Sections before their fields (`--policy.head gaussian --policy.head.squash false` in any order).
    overrides.sort(key=lambda item: item[0].count("."))
    return load(command.config, getattr(values, "--config", None), overrides)


def build_parser(command: Command) -> argparse.ArgumentParser:
    """An argparse parser for help and completion; defaults are left to the configuration classes."""
    parser = _Parser(
        prog=command.prog,
        description=command.help,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=110),
    )
    parser.add_argument("--config", dest="--config", metavar="FILE", help="YAML file with values for the keys below")
    for option in options(command.config):
        _add_option(parser, option)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    sequence = getattr(option.type, "__origin__", None) in (tuple, list)
    described: dict[str, Any] = {"help": _describe(option)}
    if option.choices:
        described["metavar"] = "{" + ",".join(option.choices) + "}"
    else:
        described["metavar"] = "VALUE" if sequence or option.open else getattr(option.type, "__name__", "value").upper()
    # Hidden second ways to write the same; an absent one must not undo the other.
    hidden: dict[str, Any] = {"dest": option.key, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    for alias in option.aliases:
        parser.add_argument(f"--{alias}", **hidden)
    if option.positional:
        # argparse does not honour SUPPRESS for an absent "*" positional unless it is the action's own default.
        nargs = "*" if sequence else "?"
        parser.add_argument(option.key, nargs=nargs, default=argparse.SUPPRESS, help=described["help"])
        parser.add_argument(f"--{option.key}", nargs="+" if sequence else None, **hidden)
    elif option.type is bool:
        parser.add_argument(f"--{option.key}", dest=option.key, nargs="?", const="true", **described)
    elif sequence:
        parser.add_argument(f"--{option.key}", dest=option.key, nargs="+", **described)
    else:
        parser.add_argument(f"--{option.key}", dest=option.key, **described)


def _describe(option: Option) -> str:
    if option.default is MISSING:
        shown = "required"
    elif isinstance(option.default, (str, int, float, bool, tuple)) or option.default is None:
        shown = f"default: {_plain(option.default)}"
    else:
        shown = f"default: {option.default.name}" if hasattr(option.default, "name") else ""
    return f"{option.help} ({shown})".strip().replace("%", "%%") if shown else option.help.replace("%", "%%")


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "empty"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value) or "empty"


def _underscored(token: str) -> str:
    """`--num-modes` reads as `--num_modes`; values are left alone."""
    if not token.startswith("--"):
        return token
    name, equals, value = token.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _open_overrides(rest: Sequence[str], prefixes: tuple[str, ...], known: list[str]) -> list[tuple[str, Any]]:
    """Overrides below free mappings (`--task.kwargs.env_name pick-place-v3`), which argparse cannot know."""
    found: list[tuple[str, Any]] = []
    tokens = list(rest)
    while tokens:
        token = tokens.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if not token.startswith("--"):
            raise ConfigError(f"unexpected argument {token!r}; options are written --key value")
        if not key.startswith(prefixes or ("\0",)):
            raise unknown_key(key, known, "")
        if not equals:
            if not tokens:
                raise ConfigError(f"--{key} needs a value")
            value = tokens.pop(0)
        found.append((key, value))
    return found
