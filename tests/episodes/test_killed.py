"""The commands themselves killed in mid-episode: at most the last second of each episode in progress is lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.datasets.tools.validate import validate
from tests.commands import Fork, start
from tests.envs.toy import COUNTER
from tests.waiting import wait_until

EXPERT = ("--expert", "tests.episodes.experts:logged")
TASK = ("--task", COUNTER, "--task.max_steps", "400", "--task.worker_kind", "sync")


def run(*command: str, cwd: Path, expert_s: float = 0.0) -> Fork:
    return start(
        *command, cwd=cwd, environment=os.environ | {"EXPERT_LOG": str(cwd / "log"), "EXPERT_S": str(expert_s)}
    )


def killed(*command: str, cwd: Path) -> dict[int, int]:
    """Kill a command after a second and a half; returns the steps of each seed that it had made in the first half.

    Time is counted by the expert, which is asked no more than 100 times a second: on a machine that stands still, this
    clock does as well. Once it is asked for a step, those before are made.
    """
    log = cwd / "log"
    process = run(*command, cwd=cwd, expert_s=0.01)
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= 150, lambda: process.err)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    steps: dict[int, int] = {}
    for line in log.read_text().splitlines()[:-100]:
        seed, step = map(int, line.split())
        steps[seed] = max(steps.get(seed, 0), step)
    return steps


@pytest.mark.parametrize("num_envs", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_killed_recording_keeps_its_episodes_in_progress_and_resumes(tmp_path: Path, num_envs: int) -> None:
    path = tmp_path / "d.hdf5"
    command = ("record", "d.hdf5", *TASK, *EXPERT, "--keep_failures", "--num_envs", str(num_envs))
    expected = killed(*command, "--episodes", "3", cwd=tmp_path)
    copy = tmp_path / "copy" / "d.hdf5"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    shutil.copytree(parts_of(path), parts_of(copy))
    repair(copy)
    assert validate(copy) == []
    assert len(expected) >= num_envs
    with Dataset(copy) as dataset:
        found = {info.seed: length for info, length in zip(dataset.info, dataset.lengths)}
        for i, info in enumerate(dataset.info):
            steps = np.arange(dataset.lengths[i])
            np.testing.assert_array_equal(dataset.read(i).obs["state"][:, :2].T, [steps * 0 + info.seed, steps])
    for seed, steps in expected.items():
        assert found[seed] >= steps - 1  # the last observation recorded ends the episode
    assert run(*command, "--episodes", "1", "--resume", cwd=tmp_path).wait() == 0
    with Dataset(path) as dataset:
        assert [info.seed for info in dataset.info] == [0]
        assert dataset.lengths == (400,)


@pytest.mark.long
def test_a_killed_dagger_round_keeps_its_episodes_in_progress(tmp_path: Path) -> None:
    short = ("--loop.total_steps", "2", "--loop.tensorboard", "false", "--policy.backbone.hidden_sizes", "8")
    record = ("record", "d.hdf5", "--task", COUNTER, "--task.max_steps", "20", "--task.worker_kind", "sync")
    assert run(*record, *EXPERT, "--episodes", "2", "--keep_failures", cwd=tmp_path).wait() == 0
    assert run("train", "--dataset", "d.hdf5", "--output", "clone", *short, cwd=tmp_path).wait() == 0
    (tmp_path / "log").unlink()
    rounds = ("--rounds", "1", "--episodes_per_round", "2", "--num_envs", "2", "--output", "dagger")
    given = ("--policy", "clone/policy", "--dataset", "d.hdf5", *TASK, *EXPERT)
    expected = killed("dagger", *given, *rounds, cwd=tmp_path)
    path = tmp_path / "dagger/rounds/01/episodes.hdf5"
    repair(path)
    assert validate(path) == []
    with Dataset(path) as dataset:
        found = {info.seed % 1000: (length, info.round) for info, length in zip(dataset.info, dataset.lengths)}
    assert len(expected) == 2
    for seed, steps in expected.items():
        assert found[seed][0] >= steps - 1
        assert found[seed][1] == 1
