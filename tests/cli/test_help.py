"""`--help`: the common keys in groups, all keys on demand, and nothing wider than the terminal."""

from __future__ import annotations

import pytest

from robolearn.cli.main import VERBS, main, overview, verb_commands
from robolearn.cli.parsing.help import WIDEST, command_help, two_columns
from robolearn.configuration.tree import common_groups, options

COMMANDS = {name: command for verb in VERBS for name, command in verb_commands(verb).items()}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_fits_the_terminal(name: str, width: int) -> None:
    for everything in (False, True):
        lines = command_help(COMMANDS[name], everything=everything, width=width).splitlines()
        # A key is one word, however narrow the terminal is; all that is prose is wrapped.
        prose = [line for line in lines if not line.lstrip().startswith("--")]
        assert max(map(len, prose)) <= width


@pytest.mark.parametrize("name", COMMANDS)
def test_the_common_keys_are_a_dozen_and_all_keys_are_all(name: str) -> None:
    command = COMMANDS[name]
    short, whole = (command_help(command, everything=everything, width=WIDEST) for everything in (False, True))
    keys = [option.key for option in options(command.config)]
    assert all(f"--{key} " in whole or f"--{key}." in whole or f"  {key} " in whole for key in keys)
    shown = [key for key in keys if f"--{key} " in short or f"--{key}.KEY" in short or f"  {key} " in short]
    if len(keys) <= 20 and not common_groups(command.config):
        assert shown == keys
        return
    assert 8 <= len(shown) <= 17
    assert f"All {len(keys)} keys." in short


def test_help_all_through_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["train", "--help"]) == 0
    short = capsys.readouterr().out
    assert main(["train", "--dataset", "x.hdf5", "--help", "all"]) == 0
    whole = capsys.readouterr().out
    assert "policy.vision.keypoints" in whole
    assert "policy.vision.keypoints" not in short
    groups = [line for line in short.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["data:", "policy:", "training:", "output:", "general:"]


@pytest.mark.parametrize("width", ["40", "200"])
def test_the_lists_of_verbs_fit(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert main(["dataset"]) == 0
    text = capsys.readouterr().out + overview()
    assert max(map(len, text.splitlines())) <= int(width)
    assert " ".join(text.split()).count("recover an interrupted recording") == 1, "no word is lost"


def test_two_columns_become_one_where_the_names_leave_no_room() -> None:
    rows = [("a_rather_long_name_of_a_key", "one two three four")]
    assert list(two_columns(rows, 30)) == ["  a_rather_long_name_of_a_key", "      one two three four"]
    assert list(two_columns([("key", "one two three four")], 20)) == ["  key  one two three", "       four"]
