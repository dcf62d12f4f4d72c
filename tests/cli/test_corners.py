"""Corners of the command line: a policy's own task with one field changed, `none`, run folders, words and paths."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from robolearn.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*words: str) -> dict[str, Any]:
    """Evaluate in two episodes; returns the configuration that was written beside the figures."""
    assert main(["eval", *words, "--episodes", "2", "--videos", "0", "--output", "out"]) == 0
    return yaml.safe_load(Path("out/config.yaml").read_text())


def steps(name: str = "run") -> list[int]:
    return [episode["steps"] for episode in json.loads(Path(f"out/{name}.json").read_text())["episodes"]]


def test_one_field_of_a_policys_own_task_is_changed(reach: Path) -> None:
    config = evaluate(str(reach / "run"), "--task.max_steps", "7")
    assert (config["task"]["id"], config["task"]["max_steps"]) == ("Reach", 7)
    assert steps() == [7, 7]


def test_one_field_of_the_datas_own_task_is_changed_for_dagger(reach: Path) -> None:
    data, run = str(reach / "demos.hdf5"), str(reach / "run")
    rounds = ["--rounds", "1", "--episodes_per_round", "1", "--loop.total_steps", "1", "--output", "dagger"]
    assert main(["dagger", "--policy", run, "--dataset", data, "--task.max_steps", "6", *rounds]) == 0
    assert yaml.safe_load(Path("dagger/config.yaml").read_text())["task"]["max_steps"] == 6
    assert json.loads(Path("dagger/rounds/01/round.json").read_text())["steps"] <= 6


def test_kwargs_of_the_own_task_are_changed_one_by_one(reach: Path) -> None:
    run = str(reach / "run")
    first = evaluate(run, "--task.kwargs.reward", "dense")["task"]
    assert (first["id"], first["kwargs"]) == ("Reach", {"reward": "dense"})
    Path("half.yaml").write_text("task: {kwargs: {reward: dense}, max_steps: 5}\n")
    second = evaluate(run, "--config", "half.yaml", "--task.kwargs.random_physics", "0.5")["task"]
    assert second["kwargs"] == {"reward": "dense", "random_physics": 0.5}
    assert second["max_steps"] == 5


def test_none_is_what_help_calls_it(reach: Path) -> None:
    assert evaluate(str(reach / "run"), "--task", "none")["task"] is None


def test_an_expert_alone_with_keys_of_the_environment(capsys: Capture) -> None:
    words = ["--expert", "auto", "--task", "Reach", "--task.kwargs.reward", "dense"]
    assert evaluate(*words)["task"]["kwargs"] == {"reward": "dense"}
    assert "demonstrator: 2/2 solved" in capsys.readouterr().out


def test_a_key_of_a_free_mapping_needs_its_value(capsys: Capture) -> None:
    assert main(["eval", "--task", "Reach", "--task.kwargs.reward", "--episodes", "2"]) == 2
    assert "--task.kwargs.reward needs a value" in capsys.readouterr().err


def test_chunks_are_executed_as_asked(reach: Path, capsys: Capture) -> None:
    run = str(reach / "run")
    assert evaluate(run, "--exec_steps", "3", "--task.max_steps", "9")["exec_steps"] == 3
    third = json.loads(Path("out/run.json").read_text())
    evaluate(run, "--temporal_ensemble", "0.01", "--task.max_steps", "9")
    assert json.loads(Path("out/run.json").read_text())["episodes"] != third["episodes"] or steps() == [9, 9]
    shutil.rmtree("out")
    assert main(["eval", run, "--exec_steps", "5", "--output", "out"]) == 2
    assert "exec_steps 5 is more than" in capsys.readouterr().err
    assert not Path("out").exists()
    assert main(["eval", run, "--exec_steps", "2", "--temporal_ensemble", "0.01"]) == 2
    assert "drop it or exec_steps 2" in capsys.readouterr().err


def test_run_folders_serve_where_policies_do(reach: Path) -> None:
    assert main(["plot", "density", str(reach / "run"), "--dataset", str(reach / "demos.hdf5"), "--samples", "10"]) == 0
    assert Path("density.png").stat().st_size > 1000


@pytest.mark.parametrize("verb", [["eval"], ["plot", "density", "--dataset", "x.hdf5"], ["finetune"]])
def test_an_unfinished_run_is_called_one(verb: list[str], reach: Path, capsys: Capture) -> None:
    shutil.copytree(reach / "run", "stopped", ignore=shutil.ignore_patterns("policy"))
    assert main([*verb, "stopped"]) == 2
    assert "stopped is the folder of an unfinished run" in capsys.readouterr().err


def test_a_filter_that_matches_nothing_writes_nothing(reach: Path, capsys: Capture) -> None:
    data = str(reach / "demos.hdf5")
    assert main(["dataset", "filter", data, "--success", "false", "--output", "failures.hdf5"]) == 2
    said = capsys.readouterr().err
    assert "no file is written" in said
    assert not Path("failures.hdf5").exists()
    hint = shlex.split(said.split("`")[1])
    assert main(hint[1:]) == 0, "the hint can be pasted, spaces in the path and all"


def test_a_path_that_is_not_there_is_not_taken_for_a_verb(capsys: Capture) -> None:
    assert main(["plot", "runs/nowhere"]) == 2
    assert "the path runs/nowhere does not exist" in capsys.readouterr().err


def test_a_demo_that_cannot_begin_leaves_no_folder(capsys: Capture) -> None:
    assert main(["demo", "--task", "gym:NotInstalled-v0"]) == 2
    assert "NotInstalled" in capsys.readouterr().err
    assert not Path("demo").exists()


def test_info_names_the_environments_own_name(capsys: Capture) -> None:
    sample = Path(__file__).parents[2] / "datasets" / "sample" / "pick_place.hdf5"
    assert main(["dataset", "info", str(sample)]) == 0
    assert "Meta-World/MT1, env_name pick-place-v3" in capsys.readouterr().out


def test_tables_are_readable_at_40_columns(reach: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["dataset", "info", str(reach / "demos.hdf5"), "--episodes"]) == 0
    assert main(["tasks"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 40
    assert "\u2026" not in text, "nothing is cut short"
    assert "demo_3" in text


def test_one_is_singular(reach: Path, capsys: Capture) -> None:
    assert (
        main(["dataset", "delete", str(reach / "demos.hdf5"), "demo_0", "demo_1", "demo_2", "--output", "a.hdf5"]) == 0
    )
    assert "a.hdf5: 1 episode, " in capsys.readouterr().out


@pytest.mark.parametrize(("size", "expected"), [("16", [16, 16]), ("16,24", [16, 24]), ("[16, 24]", [16, 24])])
def test_one_number_is_both_sides_of_a_picture(size: str, expected: list[int]) -> None:
    from robolearn.cli.main import verb_commands
    from robolearn.cli.parsing.parser import parse
    from robolearn.envs.task_env import TaskOptions

    config = parse(verb_commands("record")["record"], ["--task", "Reach", "--task.kwargs.image_size", size])
    assert list(TaskOptions(**config.task.kwargs).image_size) == expected


@pytest.mark.parametrize("size", ["abc", "0", "64,", "1,2,3", "100000000000", "1.5"])
def test_other_sizes_are_refused_before_anything_is_written(size: str, capsys: Capture) -> None:
    assert main(["record", "a.hdf5", "--task", "Reach", "--task.kwargs.image_size", size]) == 2
    assert "image_size must" in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--dataset", "x.hdf5", "--batch_size", "1e14"], "batch_size must be at most 16777216"),
        (["train", "--dataset", "x.hdf5", "--seed", "1e30"], "seed must be at most"),
        (["record", "--task", "Reach", "--seed", "-1"], "seed must not be negative"),
        (["record", "--task", "Reach", "--num_envs", "1e9"], "num_envs must be at most"),
        (["train", "--dataset", "x.hdf5", "--policy.backbone.hidden_sizes", "1e9"], "hidden_sizes must be at most"),
        (["train", "--dataset", "x.hdf5", "--policy.pred_steps", "1e9"], "pred_steps must be at most"),
        (["rl", "--task", "Reach", "--algorithm.batch_size", "1e14"], "batch_size must be at most"),
        (["eval", "p", "--episodes", "1e12"], "episodes must be at most"),
        (["dataset", "filter", "x.hdf5", "--output", "y.hdf5", "--max_steps", "0"], "max_steps must be at least 1"),
    ],
)
def test_a_slip_of_the_keyboard_is_told_at_once(words: list[str], message: str, capsys: Capture) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


def test_a_key_given_twice_is_refused(capsys: Capture) -> None:
    Path("c.yaml").write_text("dataset: [x.hdf5]\nloop:\n  total_steps: 5\n  total_steps: 6\n")
    assert main(["train", "--config", "c.yaml"]) == 2
    assert "'total_steps' stands in lines 3 and 4; keep one" in capsys.readouterr().err


def test_the_viewer_listens_to_this_machine_alone_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr("robolearn.teleop.task_viewer.view", lambda name, *, host, port, seed: heard.append(host))
    assert main(["tasks", "view", "Reach"]) == 0
    assert main(["tasks", "view", "Reach", "--host", "0.0.0.0"]) == 0
    assert heard == ["127.0.0.1", "0.0.0.0"]
