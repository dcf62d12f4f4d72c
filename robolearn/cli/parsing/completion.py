"""`robolearn completion SHELL`: a completion script, made from the same parsers that parse the command line."""

from __future__ import annotations

import argparse

from robolearn.configuration.workspace_verbs import CompletionConfig

CONFIG = CompletionConfig


def run(config: CompletionConfig) -> int:
    import shtab

    print(shtab.complete(full_parser(), shell=config.shell))
    return 0


def full_parser() -> argparse.ArgumentParser:
    """One parser with every verb and sub-verb, as shtab wants it."""
    from robolearn.cli.main import VERBS, verb_commands
    from robolearn.cli.parsing.parser import build_parser

    parser = argparse.ArgumentParser(prog="robolearn", description="robot imitation and reinforcement learning")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers()
    for verb, (_, text) in VERBS.items():
        commands = verb_commands(verb)
        if verb in commands:
            verbs.add_parser(verb, help=text, parents=[build_parser(commands[verb])], add_help=False)
            continue
        sub_verbs = verbs.add_parser(verb, help=text).add_subparsers()
        for name, command in commands.items():
            sub_verbs.add_parser(name.split()[1], help=command.help, parents=[build_parser(command)], add_help=False)
    return parser
