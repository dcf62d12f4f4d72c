"""Through the command line: odd files and environments that came after all others; see docs/foreign.md."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robolearn.datasets.dataset import Dataset
from tests.datasets.foreign_files import robomimic

pytestmark = pytest.mark.usefixtures("elsewhere")
TINY = ("--policy.backbone.hidden_sizes", "8", "--batch_size", "8", "--loop.total_steps", "2", "--output", "run")
GENTLE = ("--expert", "tests.envs.odd:gentle", "--episodes", 2, "--num_envs", 1)


def task(name: str, kind: str = "sync") -> tuple[str, ...]:
    return ("--task", f"gym:tests.envs.odd:odd/{name}-v0", "--task.worker_kind", kind)


def test_an_action_without_a_dimension(said: Any) -> None:
    said("record", "d.hdf5", *task("Scalar"), *GENTLE)
    with Dataset("d.hdf5") as dataset:
        assert dataset.action_spec.size == 1
        assert all(info.success for info in dataset.info)


def test_an_environment_without_actions_is_refused(said: Any) -> None:
    assert "has no dimension: there is nothing to control" in said("record", "d.hdf5", *task("Idle"), *GENTLE, code=2)
    assert not Path("d.hdf5").exists()


@pytest.mark.parametrize("kind", ["sync", "process"])
def test_an_environment_that_fails_to_close_spoils_nothing(kind: str, said: Any) -> None:
    out = said("record", "d.hdf5", *task("Breaking", kind), "--task.kwargs.where", "close", *GENTLE)
    assert "recorded 2 episodes" in out
    if kind == "sync":
        assert "close failed (RuntimeError: the window is gone)" in out


def test_an_environment_that_ends_the_process_is_named(said: Any) -> None:
    out = said("record", "d.hdf5", *task("Breaking"), "--task.kwargs.where", "step", *GENTLE, code=2)
    assert "odd/Breaking-v0" in out
    assert "SystemExit: emergency stop" in out


def test_a_file_without_episodes_is_called_that(said: Any) -> None:
    away = ("--expert", "tests.envs.test_odd:away", "--episodes", 1, "--max_attempts", 1, "--task.max_steps", 5)
    assert "solved 0 of 1 attempts" in said("record", "d.hdf5", *task("Plain"), *away, code=2)
    out = said("train", "--dataset", "d.hdf5", *TINY, code=2)
    assert "d.hdf5 holds no episodes to learn from" in out
    assert "mask" not in out


def test_a_file_named_twice_is_not_learned_from_twice(said: Any) -> None:
    robomimic(Path("d.hdf5"))
    Path("link.hdf5").symlink_to("d.hdf5")
    for second in ("d.hdf5", "./d.hdf5", "link.hdf5"):
        out = said("train", "--dataset", "d.hdf5", second, *TINY, code=2)
        assert "is the same file as d.hdf5: its episodes would count twice; name it once" in out
    shutil.copy("d.hdf5", "copy.hdf5")
    said("train", "--dataset", "d.hdf5", "copy.hdf5", *TINY)


def test_actions_that_nobody_wrote_are_odd(said: Any) -> None:
    robomimic(Path("d.hdf5"), action=lambda rng, steps: np.zeros((steps, 4)))
    words = "actions are the same at every step of all episodes (0, 0, 0, 0): did the recorder write them?"
    for command in (
        ("dataset", "info", "d.hdf5"),
        ("dataset", "validate", "d.hdf5"),
        ("train", "--dataset", "d.hdf5", *TINY),
    ):
        assert words in said(*command)
    with h5py.File("d.hdf5", "r+") as file:
        file["data/demo_2/actions"][-1, 3] = 0.5
    assert "did the recorder" not in said("dataset", "validate", "d.hdf5")


@pytest.mark.parametrize("rate", [-20, 0, "20 Hz", True, None])
def test_a_rate_that_is_none_is_shown_and_can_be_given(rate: Any, said: Any) -> None:
    robomimic(Path("d.hdf5"), env_args={"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": rate}})
    out = said("dataset", "info", "d.hdf5", code=2)
    assert (f"{rate!r} is none" in out) == (rate is not None)
    said("dataset", "info", "d.hdf5", "--control_hz", 20)


def test_where_every_episode_has_the_fault_nobody_is_told_to_delete_all(said: Any) -> None:
    robomimic(Path("d.hdf5"))
    with h5py.File("d.hdf5", "r+") as file:
        for demo in file["data"].values():
            rewards = demo["rewards"][:]
            del demo["rewards"]
            demo["rewards"] = np.stack([rewards, rewards], 1)
    out = said("dataset", "validate", "d.hdf5", code=2)
    assert "rewards must have 1 dimension, found shape (12, 2)" in out
    assert "no episode is without a fault: restore the file from a copy, or mend what wrote it" in out
    assert "dataset delete" not in out
    with h5py.File("d.hdf5", "r+") as file:
        file["data/demo_1/rewards"][...] = 0.0
        good = file["data/demo_1/rewards"][:, 0]
        del file["data/demo_1/rewards"]
        file["data/demo_1/rewards"] = good
    (command,) = set(re.findall("`(.*)`", said("dataset", "validate", "d.hdf5", code=2)))
    said(*shlex.split(command)[1:])
    with Dataset("d_mended.hdf5") as mended:
        assert mended.episodes == ("demo_1",)
