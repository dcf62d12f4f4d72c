"""Commands that messages tell to type are pasted into a shell, whatever is in a path; faults of configuration files;
pictures of a suffix that nothing writes."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robolearn.cli.main import verb_commands
from robolearn.cli.parsing.parser import parse
from robolearn.evaluation import contact_sheet

pytestmark = pytest.mark.usefixtures("elsewhere")
SMALL = ("--policy.backbone.hidden_sizes", "8", "--batch_size", "8", "--loop.total_steps", "2")


def pasted(text: str) -> list[list[str]]:
    """Return the words of each command behind "next:", as a shell takes them; each must be one that robolearn reads."""
    lines = [line.removeprefix("next: ") for line in text.splitlines() if line.startswith("next: ")]
    commands = [shlex.split(command) for line in lines for command in re.split(r" {4}", line)]
    assert commands
    for program, *words in commands:
        assert program == "robolearn"
        assert_read(words)
    return commands


def assert_read(words: list[str]) -> None:
    """Parse a command; ConfigError where a path has fallen to pieces."""
    commands = verb_commands(words[0])
    name = words[0] if words[0] in commands else " ".join(words[:2])
    parse(commands[name], words[len(name.split()) :])


def test_the_next_command_keeps_odd_paths_whole(reach: Path, said: Any) -> None:
    data, run = "it's my/d e$mo.hdf5", "runs of 'mine'/a b"
    found = pasted(said("record", data, "--task", "Reach", "--episodes", 2))
    assert found == [["robolearn", "dataset", "info", data], ["robolearn", "train", "--dataset", data]]
    said(*found[0][1:])
    found = pasted(said("train", "--dataset", data, *SMALL, "--output", run))
    assert found == [["robolearn", "eval", f"{run}/policy"]]
    small = ("--episodes_per_round", 1, "--rounds", 1, "--loop.total_steps", 1, "--batch_size", 8, "--eval_episodes", 0)
    found = pasted(said("dagger", "--policy", run, "--dataset", data, *small, "--output", "d a"))
    assert [words[-1] for words in found] == ["d a/policy"] * 2


def test_a_workspace_in_an_odd_place_is_entered_by_what_is_said(said: Any) -> None:
    line = said("init", "my work; echo no").splitlines()[-1]
    assert shlex.split(line.removeprefix("next: ")) == ["cd", "my work; echo no", "&&", "robolearn", "tasks"]


def test_episodes_and_keys_of_odd_names_are_left_out_by_what_is_said(reach: Path, said: Any) -> None:
    shutil.copy(reach / "demos.hdf5", "bad.hdf5")
    shutil.copy(reach / "demos.hdf5", "good.hdf5")
    with h5py.File("bad.hdf5", "r+") as file:
        obs = file["data/demo_1/obs"]
        key = sorted(obs)[0]
        values = obs[key][:]
        values[2] = np.nan
        obs[key][...] = values
    train = ("train", "--dataset", "good.hdf5", "bad.hdf5", *SMALL, "--output", "run")
    out = said(*train, code=2)
    remedy = shlex.split(out[out.index("--exclude") :].splitlines()[0])
    assert remedy == ["--exclude", "bad.hdf5:demo_1"], "and not demo_1 of the good file"
    assert "next:" in said(*train, *remedy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: Reach\nepisodes: 1\ntask: Lift\n", "the key 'task' stands in lines 1 and 3; keep one"),
        ("task:\n  id: Reach\n  max_steps: 5\n  max_steps: 6\n", "the key 'max_steps' stands in lines 3 and 4"),
        ("task: {id: Reach, kwargs: {a: 1,\n a: 2}}\n", "the key 'a' stands in lines 1 and 2"),
        ("task: Reach\nepisods: 1\n", "unknown key 'episods'; did you mean 'episodes'"),
        ("task: {id: Reach, maxsteps: 1}\n", "unknown key 'maxsteps' in task; did you mean 'max_steps'"),
        ("task: Reach\n1: 2\n", "unknown key '1'"),
    ],
)
def test_a_configuration_with_a_key_twice_or_unknown_is_refused(text: str, message: str, said: Any) -> None:
    Path("c.yaml").write_text(text)
    out = said("record", "new.hdf5", "--config", "c.yaml", code=2)
    assert message in out
    assert not list(Path().glob("new*"))


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("config.yaml", "version: 1", "the key 'version' stands in lines 2 and"),
        ("config.yaml", "obs_stepz: 1", "unknown key 'obs_stepz'"),
    ],
)
def test_a_policy_folder_with_a_key_twice_or_unknown_is_refused(
    file: str, line: str, message: str, reach: Path, said: Any
) -> None:
    shutil.copytree(reach / "run" / "policy", "policy")
    path = Path("policy") / file
    path.write_text(path.read_text() + line + "\n")
    out = said("eval", "policy", "--episodes", 1, "--videos", 0, code=2)
    assert message in out
    assert "Traceback" not in out


@pytest.mark.parametrize("name", ["sheet.nonsense", "sheet", "sheet.pdf", ".png", "sheets/"])
def test_a_contact_sheet_of_another_suffix_is_refused_before_a_task_is_run(
    name: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(contact_sheet, "make_task", made)
    assert "must end in .png or .jpg" in said("tasks", "list", "Reach", "--render", "--output", name, code=2)
    assert not list(Path().iterdir())
