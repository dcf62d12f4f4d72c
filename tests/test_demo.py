"""The whole line as commands on a toy task: record, train, DAgger, fine-tune, eval, replay, demo, from any folder."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from robolearn.datasets.dataset import Dataset
from robolearn.evaluation.results import EvaluationResult
from robolearn.training import progress
from tests import commands
from tests.envs.toy import POINT_REACH
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
TASK = (
    "--task",
    POINT_REACH,
    "--task.kwargs.tolerance",
    "0.15",
    "--task.max_steps",
    "40",
    "--task.worker_kind",
    "sync",
)
EXPERT = ("--expert", "tests.envs.toy:point_reach_expert")
SHORT = ("--loop.total_steps", "150", "--loop.tensorboard", "false")


def robolearn(*args: str | Path, cwd: Path, code: int = 0) -> str:
    result = commands.robolearn(*args, cwd=cwd, environment=environment(cwd))
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout if code == 0 else result.stderr


def environment(home: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(home)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    robolearn("record", "demos.hdf5", *TASK, *EXPERT, "--episodes", "5", "--action_noise", "0.1", cwd=folder)
    robolearn(
        "train",
        "--dataset",
        "demos.hdf5",
        "--output",
        "clone",
        *SHORT,
        "--policy.backbone.hidden_sizes",
        "32,32",
        cwd=folder,
    )
    return folder


def test_recording_holds_noisy_actions_and_clean_labels(workspace: Path) -> None:
    with Dataset(workspace / "demos.hdf5") as dataset:
        episodes = [dataset.read(i) for i in range(len(dataset))]
    assert [e.info.seed for e in episodes] == sorted(e.info.seed for e in episodes)
    assert all(e.info.success and e.info.source == "demo" for e in episodes)
    noise = np.concatenate([e.actions - e.expert_actions for e in episodes])
    inside = np.abs(np.concatenate([e.expert_actions for e in episodes])) < 0.6
    assert 0.08 < noise[inside].std() < 0.12


def test_recording_repeats_whatever_the_number_of_environments(workspace: Path, tmp_path: Path) -> None:
    command = ("record", "again.hdf5", *TASK, *EXPERT, "--episodes", "5", "--action_noise", "0.1", "--num_envs", "5")
    robolearn(*command, cwd=tmp_path)
    with Dataset(workspace / "demos.hdf5") as first, Dataset(tmp_path / "again.hdf5") as second:
        assert len(first) == len(second)
        for i in range(len(first)):
            np.testing.assert_array_equal(first.read(i).actions, second.read(i).actions)
            np.testing.assert_array_equal(first.read(i).obs["state"], second.read(i).obs["state"])


def test_an_expert_that_fails_is_reported_and_its_successes_are_kept(tmp_path: Path) -> None:
    expert = ("--expert", "tests.episodes.experts:never")
    message = robolearn("record", "x.hdf5", *TASK, *expert, "--episodes", "2", cwd=tmp_path, code=2)
    assert "solved 0 of 10 attempts" in message
    assert "--keep_failures" in message


@pytest.mark.long
def test_dagger_finetune_eval_and_replay(workspace: Path) -> None:
    rounds = ("--rounds", "1", "--episodes_per_round", "4")
    text = robolearn(
        "dagger",
        "--policy",
        "clone/policy",
        "--dataset",
        "demos.hdf5",
        "--output",
        "dagger",
        *rounds,
        *EXPERT,
        *SHORT,
        cwd=workspace,
    )
    assert "round 1:" in text
    assert "dagger" in robolearn("dataset", "info", "dagger/rounds/01/episodes.hdf5", cwd=workspace)
    robolearn("dataset", "validate", "dagger/rounds/01/episodes.hdf5", cwd=workspace)
    practice = ("--num_envs", "2", "--method.num_steps", "32", "--loop.total_steps", "2", "--eval_episodes", "4")
    robolearn("finetune", "dagger/policy", "--output", "tuned", *practice, cwd=workspace)
    text = robolearn("eval", "clone", "dagger", "tuned", *EXPERT, "--episodes", "6", "--output", "eval", cwd=workspace)
    assert "dagger against clone" in text
    assert "tuned against dagger" in text
    report = (workspace / "eval/report.html").read_text()
    for name in ("clone", "dagger", "tuned"):
        result = EvaluationResult.load(workspace / f"eval/{name}.json")
        assert f"{result.successes}/6" in text
        assert name in report
    text = robolearn("replay", "demos.hdf5", "--episodes", "0", "2", cwd=workspace)
    assert text.count("exactly as recorded") == 2


@pytest.mark.long
def test_the_demo_resumes_what_is_complete(tmp_path: Path) -> None:
    small = ("--demonstrations", "4", "--clone_steps", "60", "--rounds", "1", "--episodes_per_round", "3")
    short = ("--round_steps", "40", "--updates", "1", "--episodes", "5", "--num_envs", "2")
    first = robolearn("demo", "out", *TASK, *EXPERT, *small, *short, cwd=tmp_path)
    assert "already there" not in first
    page = (tmp_path / "out/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    figures = json.loads((tmp_path / "out/report.json").read_text())
    assert [stage["name"] for stage in figures["stages"]] == ["clone", "dagger", "finetune"]
    assert all(stage["episodes"] == 5 for stage in figures["stages"])
    again = robolearn("demo", "out", *TASK, *EXPERT, *small, *short, cwd=tmp_path)
    assert again.count("already there") == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "--dataset", "nowhere.hdf5"), "nowhere.hdf5"),
        (("train", "--dataset", "demos.hdf5", "--policy.obs_keys", "stat"), "stat"),
        (("eval", "nowhere"), "nowhere"),
        (("eval", "demos.hdf5"), "a saved policy is a folder"),
        (("dagger", "--policy", "clone/policy", "--dataset", "demos.hdf5", "--expert", "nobody"), "unknown expert"),
        (("finetune", "clone/policy", "--task", "gym:HalfCheetah-v5"), "state"),
        (("replay", "demos.hdf5", "--episodes", "99"), "episode 99 is not there"),
        (("record", "x.hdf5", "--task", "gym:NoSuchEnv-v0"), "NoSuchEnv"),
        (("record", "demos.hdf5", *TASK, *EXPERT), "demos.hdf5"),
    ],
)
def test_bad_input_is_named(workspace: Path, args: tuple[str, ...], message: str) -> None:
    before = contents(workspace)
    assert message in robolearn(*args, cwd=workspace, code=2)
    assert contents(workspace) == before, "a refused command leaves nothing behind and changes nothing"


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file and, without contents, folder below; libraries' caches apart."""
    paths = [path for path in folder.rglob("*") if not path.relative_to(folder).parts[0].startswith(".")]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def talkative(words: list[str]) -> int:
    """Tell of progress at every episode."""
    progress.PLAIN_INTERVAL_S = 0.0
    return commands.command(words)


def interrupted(*args: str, cwd: Path) -> str:
    """Start a command, press Ctrl-C once it has finished some episodes; returns what it said."""
    process = commands.Fork(talkative, list(args), cwd=cwd, environment=environment(cwd))
    wait_until(lambda: len(re.findall(r"\d+/\d+ \w+s, ", process.err)) > 3, lambda: process.err)
    process.send_signal(signal.SIGINT)
    code, said = process.wait(120), process.err
    assert code == 130, said
    assert "Traceback" not in said
    return said


def test_ctrl_c_while_recording_keeps_what_is_there_and_resumes_to_the_same_file(tmp_path: Path) -> None:
    command = ("record", "x.hdf5", *TASK, *EXPERT, "--action_noise", "0.1", "--max_attempts", "100000")
    said = interrupted(*command, "--episodes", "20000", cwd=tmp_path)
    assert "--resume" in said
    with Dataset(tmp_path / "x.hdf5") as dataset:
        kept = len(dataset)
    assert 0 < kept < 20000
    robolearn(*command, "--episodes", str(kept + 3), "--resume", cwd=tmp_path)
    robolearn("record", "y.hdf5", *command[2:], "--episodes", str(kept + 3), cwd=tmp_path)
    with Dataset(tmp_path / "x.hdf5") as resumed, Dataset(tmp_path / "y.hdf5") as whole:
        assert len(resumed) == len(whole) == kept + 3
        for i in (0, kept - 1, kept, kept + 2):
            np.testing.assert_array_equal(resumed.read(i).actions, whole.read(i).actions)


def test_ctrl_c_while_evaluating_keeps_the_finished_episodes(workspace: Path) -> None:
    said = interrupted("eval", "clone", "--episodes", "50000", "--output", "cut", cwd=workspace)
    assert "so far" in said
    assert "to go on: robolearn eval --config cut/config.yaml --resume" in said
    assert len(EvaluationResult.load(workspace / "cut/clone.json").episodes) < 50000


def test_a_workspace_has_configurations_and_cards(tmp_path: Path) -> None:
    robolearn("init", "mine", cwd=tmp_path)
    assert (tmp_path / "mine/datasets/README.md").exists()
    assert list((tmp_path / "mine/configs").rglob("*.yaml"))
    (tmp_path / "mine/datasets/README.md").write_text("my notes")
    assert "kept" in robolearn("init", "mine", cwd=tmp_path)
    assert (tmp_path / "mine/datasets/README.md").read_text() == "my notes"
