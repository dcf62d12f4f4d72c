"""Two real processes under torchrun against one process: the same steps, the same weights everywhere, exact resume."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from robolearn.cli.main import main
from robolearn.configuration.tree import to_dict
from robolearn.errors import ConfigError, TrainingError
from robolearn.imitation.bc import train_bc
from robolearn.rl.from_scratch import train_rl
from robolearn.training import distributed
from robolearn.training.metrics import read_metrics
from tests.imitation.toy import make_episode, write_dataset
from tests.training.distributed_runs import ALGORITHMS, bc_config, dqn_steps, ppo_steps, rl_config
from tests.waiting import wait_until

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


@pytest.fixture(scope="module")
def found(runs: Path) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each process computed."""
    return [torch.load(runs / f"found_{rank}.pt", weights_only=True) for rank in range(2)]


def policy_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "policy" / "policy.safetensors")


@pytest.mark.long
def test_cloning_takes_the_steps_of_one_process(runs: Path, data: Path, tmp_path: Path) -> None:
    train_bc(bc_config(data), tmp_path)
    alone, together = policy_weights(tmp_path), policy_weights(runs / "bc" / "whole")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=2e-5, msg=name)
    losses = [[row["loss"] for row in read_metrics(run) if "loss" in row] for run in (tmp_path, runs / "bc" / "whole")]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4), "what is logged is the loss of the whole batch"


@pytest.mark.long
def test_cloning_resumes_bit_for_bit(runs: Path) -> None:
    whole, parts = policy_weights(runs / "bc" / "whole"), policy_weights(runs / "bc" / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.long
def test_another_number_of_processes_cannot_resume(runs: Path, data: Path) -> None:
    with pytest.raises(TrainingError, match=r"is of a run of 2 processes, this one has 1; .*--nproc_per_node 2"):
        train_bc(bc_config(data, 30), runs / "bc" / "whole", resume=True)


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_shares_of_the_data_give_the_steps_of_the_whole(algorithm: str, found: list) -> None:
    """Advantages, statistics of observations and returns and clipped gradients are of all environments."""
    alone = {"ppo": ppo_steps, "dqn": dqn_steps}[algorithm]()
    for rank in range(2):
        for name, value in alone.items():
            torch.testing.assert_close(found[rank][f"{algorithm}_steps"][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.long
def test_ppo_learns_and_all_weights_stay_the_same(found: list) -> None:
    first, second = (ranks["ppo_learns"] for ranks in found)
    assert torch.equal(first["actor"], second["actor"])
    assert torch.equal(first["critic"], second["critic"])
    assert not torch.equal(first["rewards"], second["rewards"]), "each has environments of its own"
    assert not set(first["seeds"].tolist()) & set(second["seeds"].tolist())
    for ranks in (first, second):
        assert ranks["rewards"][-5:].mean() > ranks["rewards"][:3].mean() + 0.4


@pytest.mark.long
def test_fine_tuning_counts_all_environments_and_resumes_bit_for_bit(runs: Path) -> None:
    whole, parts = (policy_weights(runs / "finetune" / name) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    start = load_file(runs / "finetune" / "start" / "policy.safetensors")
    assert any(not torch.equal(whole[name], start[name]) for name in whole)
    rows = [row for row in read_metrics(runs / "finetune" / "whole") if "value_loss" in row]
    assert [row["env_steps"] for row in rows] == [8 * 64 * update for update in range(1, 5)]


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reinforcement_learning_resumes_bit_for_bit(algorithm: str, runs: Path) -> None:
    """Environments, replays and generators of both processes included."""
    whole, parts = (policy_weights(runs / algorithm / name) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_counts_are_those_of_one_process(algorithm: str, runs: Path, tmp_path: Path) -> None:
    alone = train_rl(rl_config(algorithm, tmp_path))
    rows = [
        [(row["step"], row["env_steps"]) for row in read_metrics(run) if "env_steps" in row]
        for run in (alone.run_dir, runs / algorithm / "whole")
    ]
    assert rows[0] == rows[1]


def test_what_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(ConfigError, match="num_envs must be a multiple of the 3 processes, received 8"):
        distributed.share_of(8, "num_envs")
    assert distributed.share_of(9, "num_envs") == 3


@pytest.mark.long
def test_ctrl_c_saves_everywhere_and_says_how_to_go_on(tmp_path: Path) -> None:
    """Through the command line; torchrun passes the signal on to both processes, and they agree on the step."""
    run = tmp_path / "run"
    settings = to_dict(replace(rl_config("ppo", run, 10**8), eval_episodes=0, checkpoint_every=640))
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump(settings))
    command = [*TORCHRUN, "-m", "robolearn", "rl", "--config", str(tmp_path / "rl.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    summary = run / "checkpoints" / "latest" / "checkpoint.json"
    wait_until(lambda: summary.exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    step = json.loads(summary.read_text())["step"]
    assert errors.count(f"saved {run} at step {step} of") == 1
    assert "--resume (with torchrun --nproc_per_node 2)" in errors
    assert (summary.parent / "rank_1.pt").exists()


def test_other_verbs_are_refused_under_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["eval", "nowhere"]) == 2
    assert "eval runs in one process, torchrun started 2; call robolearn eval by itself" in capsys.readouterr().err
