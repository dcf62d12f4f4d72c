"""The commands themselves killed in mid-episode: at most the last second of each episode in progress is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.datasets.tools.validate import validate
from tests.envs.toy import COUNTER

ROOT = Path(__file__).parents[2]
EXPERT = ("--expert", "tests.episodes.experts:logged")
TASK = ("--task", COUNTER, "--task.max_steps", "400", "--task.worker_kind", "sync")


def run(*command: str, cwd: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "EXPERT_LOG": str(cwd / "log")}
    return subprocess.Popen([sys.executable, "-m", "robolearn", *command], cwd=cwd, env=environment)


def durable_steps(log: Path, killed_at: float) -> dict[int, int]:
    """Steps of each seed that had been made a second before the kill: the expert was asked for the one after them."""
    rows = [line.split() for line in log.read_text().splitlines()]
    steps: dict[int, int] = {}
    for when, seed, step in rows:
        if float(when) < killed_at - 1.0:
            steps[int(seed)] = max(steps.get(int(seed), 0), int(step))
    return steps


def kill(process: subprocess.Popen[bytes], log: Path, after_s: float) -> float:
    """Kill the process so long after its expert was first asked; returns when."""
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    killed_at = time.time()
    process.wait()
    return killed_at


@pytest.mark.parametrize("num_envs", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_killed_recording_keeps_its_episodes_in_progress_and_resumes(tmp_path: Path, num_envs: int) -> None:
    path, log = tmp_path / "d.hdf5", tmp_path / "log"
    command = ("record", "d.hdf5", *TASK, *EXPERT, "--keep_failures", "--num_envs", str(num_envs))
    killed_at = kill(run(*command, "--episodes", "3", cwd=tmp_path), log, 3.0)
    copy = tmp_path / "copy" / "d.hdf5"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    shutil.copytree(parts_of(path), parts_of(copy))
    repair(copy)
    assert validate(copy) == []
    expected = durable_steps(log, killed_at)
    assert len(expected) == num_envs
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
    log = tmp_path / "log"
    short = ("--loop.total_steps", "2", "--loop.tensorboard", "false", "--policy.backbone.hidden_sizes", "8")
    record = ("record", "d.hdf5", "--task", COUNTER, "--task.max_steps", "20", "--task.worker_kind", "sync")
    assert run(*record, *EXPERT, "--episodes", "2", "--keep_failures", cwd=tmp_path).wait() == 0
    assert run("train", "--dataset", "d.hdf5", "--output", "clone", *short, cwd=tmp_path).wait() == 0
    log.unlink()
    rounds = ("--rounds", "1", "--episodes_per_round", "2", "--num_envs", "2", "--output", "dagger")
    start = ("--policy", "clone/policy", "--dataset", "d.hdf5", *TASK, *EXPERT)
    killed_at = kill(run("dagger", *start, *rounds, cwd=tmp_path), log, 2.5)
    path = tmp_path / "dagger/rounds/01/episodes.hdf5"
    repair(path)
    assert validate(path) == []
    with Dataset(path) as dataset:
        found = {info.seed % 1000: (length, info.round) for info, length in zip(dataset.info, dataset.lengths)}
    expected = durable_steps(log, killed_at)
    assert len(expected) == 2
    for seed, steps in expected.items():
        assert found[seed][0] >= steps - 1
        assert found[seed][1] == 1
