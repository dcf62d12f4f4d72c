"""The command line: `robolearn VERB [--config FILE] [--key value ...]`, one thin module per verb.

A verb module has `CONFIG`, a configuration class, and `run(config) -> exit code`; `dataset`, `tasks` and `plot` have
`VERBS` instead, a table of sub-verbs, of which `DEFAULT` may be left out before a path (`plot runs/*`). Modules are
imported only when their verb is called, and import torch or MuJoCo only when they run.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from robolearn import __version__
from robolearn.cli.parsing.bad_luck import explained
from robolearn.cli.parsing.command import Command
from robolearn.cli.parsing.help import command_help, terminal_width, two_columns
from robolearn.cli.parsing.parser import asked_for_help, parse
from robolearn.configuration.tree import unknown_key
from robolearn.errors import ConfigError, NoticeWarning, RobolearnError
from robolearn.storage import absence

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("robolearn.cli.verbs.demo", "the whole line once: record, clone, correct, fine-tune, evaluate, report"),
    "init": ("robolearn.cli.verbs.init", "make a workspace: folders and example configurations"),
    "tasks": ("robolearn.cli.verbs.tasks", "list, render and view the tasks"),
    "record": ("robolearn.cli.verbs.record", "record demonstrations, yours or an expert's, into an HDF5 file"),
    "teleop": ("robolearn.cli.verbs.teleop", "list the devices to drive with, and test one"),
    "dataset": ("robolearn.cli.verbs.dataset", "look at, check, repair, edit and convert datasets"),
    "train": ("robolearn.cli.verbs.train", "train a policy by behaviour cloning"),
    "dagger": ("robolearn.cli.verbs.dagger", "correct a policy with DAgger rounds"),
    "finetune": ("robolearn.cli.verbs.practice.finetune", "improve a policy by practice"),
    "rl": ("robolearn.cli.verbs.practice.rl", "train a controller from scratch with RL"),
    "reward": ("robolearn.cli.verbs.practice.reward", "learn from recorded episodes which states are solved"),
    "eval": ("robolearn.cli.verbs.eval", "evaluate and compare policies on fixed seeds"),
    "replay": ("robolearn.cli.verbs.replay", "replay recorded episodes in the simulator"),
    "view": ("robolearn.cli.verbs.view", "look at recorded episodes in the browser, mark, trim and split them"),
    "plot": ("robolearn.cli.verbs.plot", "plot learning curves and action densities"),
    "completion": ("robolearn.cli.parsing.completion", "print a shell completion script"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 fine, 2 bad input, 130 interrupted)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    _speak_any_path()
    warnings.simplefilter("ignore", NoticeWarning)  # verbs print these themselves
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = None  # one of several processes of torchrun, of which the first one speaks
    if not argv or argv[0] in ("-h", "--help", "help"):
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
        helped, everything = asked_for_help(rest)
        if helped:
            print(command_help(command, everything=everything))
            return 0
        config = parse(command, rest)
        with explained(argv[0], config):
            return command.run(config)
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
    """Return the top-level help; imports nothing."""
    width = terminal_width()
    paragraphs = (
        "usage: robolearn VERB [--config FILE] [--key value ...]",
        "Record demonstrations, clone them, correct them with DAgger, fine-tune the same policy with RL.",
        "robolearn VERB --help lists a verb's options; robolearn --version prints the version.",
    )
    usage, purpose, more = ("\n".join(textwrap.wrap(text, width, break_on_hyphens=False)) for text in paragraphs)
    verbs = two_columns([(verb, text) for verb, (_, text) in VERBS.items()], width)
    return "\n".join([usage, "", purpose, "", *verbs, "", more])


def find_command(argv: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """The command that `argv` names and the arguments left; None after a sub-verb overview was printed."""
    verb = argv[0]
    if verb not in VERBS:
        raise ConfigError(str(unknown_key(verb, list(VERBS), "")).replace("key", "verb"))
    commands = verb_commands(verb)
    if verb in commands:
        return commands[verb], argv[1:]
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        rows = [(command.prog, command.help) for command in commands.values()]
        print("\n".join(two_columns(rows, terminal_width())))
        return None, ()
    name = f"{verb} {argv[1]}"
    if name in commands:
        return commands[name], argv[2:]
    known = [n.split()[1] for n in commands]
    default = getattr(import_module(VERBS[verb][0]), "DEFAULT", None)
    if default is None:
        raise ConfigError(str(unknown_key(argv[1], known, f"robolearn {verb}")).replace("key", "verb"))
    if not argv[1].startswith("-") and not Path(argv[1]).exists():
        raise ConfigError(
            f"the path {argv[1]} {absence(argv[1])}, and it is none of robolearn {verb}'s verbs: {', '.join(known)}"
        )
    return commands[f"{verb} {default}"], argv[1:]


def _speak_any_path() -> None:
    """Let names that the terminal's encoding cannot spell be printed with backslashes instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _check_processes(verb: str) -> None:
    """Several processes of torchrun doing anything but training would only write over each other."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        if not os.environ.get(name, "0").isdecimal():
            raise ConfigError(
                f"the variable {name} is {os.environ[name]!r}; torchrun sets it to a number, nobody else should: "
                f"unset {name}"
            )
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
