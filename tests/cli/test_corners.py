"""Corners of the command line: a policy's own task with one field changed, `none`, run folders, words and paths."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from robolearn.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*words: str) -> dict[str, Any]:
    """Evaluate anew in two episodes; returns the configuration that was written beside the figures."""
    shutil.rmtree("out", ignore_errors=True)
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
    assert evaluate(str(reach / "run"), "--task", "none")["task"]["id"] == "Reach", "the policy's own"


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
        (
            ["record", "--task", "Reach", "--device", "browser", "--expert", "a:b"],
            "expert is of a recording by an expert",
        ),
        (
            ["record", "--task", "Reach", "--device", "browser", "--max_attempts", "9"],
            "max_attempts is of a recording by",
        ),
        (["record", "--task", "Reach", "--device", "browser", "--num_envs", "4"], "num_envs is of a recording by an"),
        (["record", "--task", "Reach", "--session.port", "9000"], "session is of a recording by hand; name a device"),
        (["record", "--task", "Reach", "--device_options.index", "1"], "device_options is of a recording by hand"),
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


def test_a_files_mask_valid_is_ignored_on_request(reach: Path, capsys: Capture) -> None:
    shutil.copy(reach / "demos.hdf5", "masked.hdf5")
    with h5py.File("masked.hdf5", "r+") as file:
        file["mask/valid"] = np.array([b"demo_1", b"demo_3"])
        file["mask/other"] = np.array([b"demo_0"])
    words = ["train", "--dataset", "masked.hdf5", "--policy.backbone.hidden_sizes", "8", "--loop.total_steps", "1"]
    for more, episodes in (([], 2), (["--valid_mask", "none"], 4), (["--valid_mask", "other"], 3)):
        run = f"run{episodes}"
        assert main([*words, *more, "--output", run]) == 0
        assert f"- episodes: {episodes} (demo)" in Path(run, "policy", "card.md").read_text()
    assert main([*words, "--valid_mask", "none", "--valid_fraction", "0.25", "--output", "drawn"]) == 0
    assert "- episodes: 3 (demo)" in Path("drawn/policy/card.md").read_text()
    capsys.readouterr()
    assert main([*words, "--valid_mask", "nope", "--output", "nope"]) == 2
    assert "no mask 'nope' in masked.hdf5; the masks are ['other', 'valid']" in capsys.readouterr().err


def test_words_in_any_order_mean_the_same(reach: Path, capsys: Capture) -> None:
    """Positional words between options, flags before them, numbers with a minus and an exponent."""
    evaluate("--sample", str(reach / "run"), "--task.max_steps", "3", str(reach / "run"))
    assert Path("out/run_1.json").exists()
    assert Path("out/run_2.json").exists()
    data = str(reach / "demos.hdf5")
    for i, limits in enumerate((["-1e3", "1e3"], ["-.5e2", "50"], ["-20:20"])):
        assert main(["dataset", "convert", data, f"{i}.hdf5", "--limits", *limits]) == 0
    capsys.readouterr()
    assert main(["train", "--dataset", data, "--dataset", data]) == 2
    assert "--dataset is given twice; write all its values behind one" in capsys.readouterr().err
    assert main(["help"]) == 0
    assert "usage: robolearn VERB" in capsys.readouterr().out


def test_deleting_every_episode_writes_nothing(reach: Path, capsys: Capture) -> None:
    words = ["dataset", "delete", str(reach / "demos.hdf5"), *(f"demo_{i}" for i in range(4)), "--output", "none.hdf5"]
    assert main(words) == 2
    assert "none would be left, so no file is written" in capsys.readouterr().err
    assert not Path("none.hdf5").exists()


def test_fewer_steps_than_a_run_has_made_are_refused(reach: Path, capsys: Capture) -> None:
    shutil.copytree(reach / "run", "run")
    before = Path("run/config.yaml").read_bytes()
    words = ["train", "--config", "run/config.yaml", "--output", "run", "--resume", "--loop.total_steps"]
    assert main([*words, "1"]) == 2
    assert "run has made 2 steps, more than the 1 asked for" in capsys.readouterr().err
    assert Path("run/config.yaml").read_bytes() == before
    assert main([*words, "3"]) == 0


@pytest.mark.parametrize("line", ['{"step": 1, "loss": "x"}', "[1, 2]", '{"loss": 2.0}', '{"step": tr', "\udcff"])
def test_damaged_metrics_are_named_with_their_line(line: str, capsys: Capture) -> None:
    Path("run").mkdir()
    Path("run/metrics.jsonl").write_text(f'{line}\n{{"step": 2, "loss": 1.0}}\n', errors="surrogateescape")
    assert main(["plot", "run"]) == 2
    assert "line 1 of run/metrics.jsonl is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_variables_of_torchrun_must_be_numbers(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv(name, "abc")
    stdout = sys.stdout
    assert main(["tasks"]) == 2
    sys.stdout = stdout
    assert f"the variable {name} is 'abc'" in capsys.readouterr().err


def test_a_pipe_is_no_data_set(capsys: Capture) -> None:
    os.mkfifo("pipe")
    for words in (["dataset", "info", "pipe"], ["dataset", "validate", "pipe"], ["train", "--dataset", "pipe"]):
        assert main(words) == 2
        said = capsys.readouterr()
        assert "pipe is neither a file nor a folder" in said.out + said.err


def test_an_expert_that_fails_is_named_with_what_it_was_given(capsys: Capture) -> None:
    words = ["record", "d.hdf5", "--task", "Reach", "--episodes", "1", "--expert", f"{__name__}:failing"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "the expert failed in environment 0, KeyError: 'nothing'" in said
    assert "a dictionary of 'proprio', 'goal'" in said


def failing(obs: Any) -> Any:
    return obs["nothing"]


@pytest.fixture
def nameless(reach: Path, elsewhere: Path) -> str:
    """The demonstrations of Reach as a file that names an environment which cannot be made from its name."""
    shutil.copy(reach / "demos.hdf5", "nameless.hdf5")
    with h5py.File("nameless.hdf5", "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
    return "nameless.hdf5"


def test_episodes_of_a_task_that_the_file_does_not_name_are_replayed_in_the_one_asked_for(
    nameless: str, capsys: Capture
) -> None:
    assert main(["replay", nameless]) == 2
    assert "name that: --task gym:MODULE:ID" in capsys.readouterr().err
    assert main(["replay", nameless, "--task", "Reach"]) == 0
    assert "every state exactly as recorded, success" in capsys.readouterr().out


def test_one_field_of_a_files_own_task_is_changed_for_replay(reach: Path, capsys: Capture) -> None:
    assert main(["replay", str(reach / "demos.hdf5"), "--task.max_steps", "3"]) == 0
    assert "demo_0: 3 steps" in capsys.readouterr().out


def test_policies_are_rolled_out_in_the_task_asked_for_and_are_of_it(nameless: str, capsys: Capture) -> None:
    words = ["train", "--dataset", nameless, "--policy.backbone.hidden_sizes", "8", "--batch_size", "8"]
    words += ["--loop.total_steps", "1", "--loop.evaluate_every", "1", "--rollouts", "1", "--output", "run"]
    assert main(words) == 2
    assert "name that: --task gym:MODULE:ID" in capsys.readouterr().err
    assert main([*words, "--task", "Reach", "--task.max_steps", "4"]) == 0
    assert "eval_success" in Path("run/metrics.jsonl").read_text()
    assert "- task: Reach" in Path("run/policy/card.md").read_text()
    assert evaluate("run")["task"]["max_steps"] == 4, "it need not be named again"
