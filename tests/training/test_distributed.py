"""Two real processes under torchrun against one process: the same steps, the same weights everywhere, exact resume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robolearn.errors import TrainingError
from robolearn.imitation.bc import train_bc
from robolearn.training.metrics import read_metrics
from tests.imitation.toy import make_episode, write_dataset
from tests.training.distributed_runs import bc_config

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.hdf5"
    return write_dataset(path, [make_episode(i, steps=13 + i) for i in range(8)], masks={"valid": [3]})


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    command = [*TORCHRUN, "-m", "tests.training.distributed_runs", str(folder), str(data)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def policy_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "policy" / "policy.safetensors")


def test_cloning_takes_the_steps_of_one_process(runs: Path, data: Path, tmp_path: Path) -> None:
    train_bc(bc_config(data), tmp_path)
    alone, together = policy_weights(tmp_path), policy_weights(runs / "bc" / "whole")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=2e-5, msg=name)
    losses = [[row["loss"] for row in read_metrics(run) if "loss" in row] for run in (tmp_path, runs / "bc" / "whole")]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4), "what is logged is the loss of the whole batch"


def test_cloning_resumes_bit_for_bit(runs: Path) -> None:
    whole, parts = policy_weights(runs / "bc" / "whole"), policy_weights(runs / "bc" / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_another_number_of_processes_cannot_resume(runs: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match=r"is of a run of 2 processes, this one has 1; .*--nproc_per_node 2"):
        train_bc(bc_config(data, 30), runs / "bc" / "whole", resume=True)
