"""The recorder as a whole: killed in every state, on a full disk, beside another one on the same file."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from tests.teleop.recorder import Client, client, recorder

REACH = ("--task", "Reach", "--output", "d.hdf5", "--episodes", "5", "--task.max_steps", "60")


def keep_one(operator: Client) -> None:
    kept = operator.status["kept"]
    operator.press("start")
    operator.wait_for_step(5)
    operator.press("success")
    operator.wait(kept=kept + 1, state="ready")


def bring(operator: Client, state: str) -> None:
    operator.press("start")
    if state in ("recording", "paused"):
        operator.wait(state="recording")
        operator.wait_for_step(25)
    if state == "paused":
        operator.press("pause")
    operator.wait(state=state)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["ready", "countdown", "recording", "paused", "review"])
def test_killed_in_every_state_what_was_kept_is_there_and_resume_goes_on(tmp_path: Path, state: str) -> None:
    countdown = ("--session.countdown_s", "3600" if state == "countdown" else "0")
    with recorder(tmp_path, *REACH, pictures=False) as first, client(first.link) as operator:
        keep_one(operator)
        keep_one(operator)
        operator.press("quit")
        assert first.wait() == 0
    with recorder(tmp_path, *REACH, "--resume", *countdown, pictures=False) as killed, client(killed.link) as operator:
        assert operator.wait(state="ready")["kept"] == 2
        if state != "countdown":
            keep_one(operator)
        if state != "ready":
            bring(operator, state)
        killed.process.kill()
        killed.process.wait()
    complete = 2 if state == "countdown" else 3
    with recorder(tmp_path, *REACH, "--resume", pictures=False) as again, client(again.link) as operator:
        assert operator.wait(state="ready")["kept"] == complete
        keep_one(operator)
        operator.press("quit")
        assert again.wait() == 0
        assert f"holds {complete + 1} complete episodes" in again.text
    assert validate(tmp_path / "d.hdf5") == []
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert sum(not cut for cut in dataset.interrupted) == complete + 1
        in_progress = [length for length, cut in zip(dataset.lengths, dataset.interrupted) if cut]
        assert len(in_progress) == (state in ("recording", "paused", "review"))
        # A second of steps may be lost, no more.
        assert not in_progress or in_progress[0] >= 25 - 21
        seeds = [info.seed for info in dataset.info]
        assert len(set(seeds)) == len(seeds)


def test_a_second_recorder_on_the_same_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with recorder(tmp_path, *REACH, pictures=False) as first, client(first.link) as operator:
        keep_one(operator)
        with recorder(tmp_path, *REACH, "--resume", pictures=False) as second:
            assert second.wait() == 2
            assert "Traceback" not in second.text
            assert "d.hdf5" in second.text
        keep_one(operator)
        operator.press("quit")
        assert first.wait() == 0
    assert validate(tmp_path / "d.hdf5") == []
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert len(dataset) == 2


@pytest.mark.long
def test_a_full_disk_ends_the_session_says_so_and_loses_no_complete_step(tmp_path: Path) -> None:
    """Full for files beyond what the journal has reached: a limit on their size fails as a full disk does."""
    long = ("--task", "Reach", "--output", "d.hdf5", "--task.max_steps", "5000")
    with recorder(tmp_path, *long, pictures=False) as full, client(full.link) as operator:
        operator.press("start")
        operator.wait_for_step(60)
        resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        status = operator.wait(state="done")
        step = status["step"]
        assert "d.hdf5" in status["error"]
        assert full.wait() == 2
        assert "Traceback" not in full.text
        assert status["error"][:60] in full.text.replace("\n", " ")
    assert step >= 60
    with recorder(tmp_path, *long, "--resume", pictures=False) as again, client(again.link) as operator:
        operator.wait(state="ready", kept=0)
        operator.press("quit")
        assert again.wait() == 0
    assert validate(tmp_path / "d.hdf5") == []
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert dataset.interrupted == (True,)
        assert step - 30 <= dataset.lengths[0] <= step


def test_control_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path) -> None:
    with recorder(tmp_path, *REACH, pictures=False) as running, client(running.link) as operator:
        keep_one(operator)
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert "kept 1 of this session, 1 in all, in d.hdf5; to go on, add --resume" in running.text
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert [info.success for info in dataset.info] == [True]


def test_a_resumed_session_goes_on_with_the_next_scene(tmp_path: Path) -> None:
    for kept in (1, 2):
        with recorder(tmp_path, *REACH, "--resume", pictures=False) as running, client(running.link) as operator:
            assert operator.status["kept"] == kept - 1
            keep_one(operator)
            operator.press("quit")
            assert running.wait() == 0
            assert "to go on: robolearn record" in running.text
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert [info.seed for info in dataset.info] == [0, 1]
