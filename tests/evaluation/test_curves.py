"""The command on written runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from robolearn.cli.main import main
from robolearn.evaluation.curves import Curve, group_runs
from robolearn.evaluation.statistics import interquartile_mean


def write_run(folder: Path, seed: int, offset: float = 0.0, lr: float = 0.1, points: int = 10) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "output": str(folder), "lr": lr}))
    rows = [{"step": i, "time_s": i, "env_steps": 100 * i, "eval_return": i + seed + offset} for i in range(points)]
    rows.insert(3, {"step": 2, "time_s": 2, "loss": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_methods_are_summed_up_over_their_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"Reach": [0.8, 0.9, 1.0], "Lift": [0.2, 0.4, 0.6]}
    runs = []
    for task, values in rates.items():
        for seed, value in enumerate(values):
            folder = tmp_path / f"ppo_{task}_{seed}"
            folder.mkdir()
            (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "task": {"id": task}, "lr": 0.1}))
            (folder / "metrics.jsonl").write_text(
                "".join(json.dumps({"step": i, "eval_success": value * i, "eval_return": 0.0}) + "\n" for i in (0, 1))
            )
            runs.append(str(folder))
    assert main(["plot", *runs, "--output", str(tmp_path / "c.png")]) == 0
    last = capsys.readouterr().out.splitlines()[-2]
    everything = interquartile_mean(np.concatenate(list(rates.values())))
    assert last.startswith("ppo, 2 tasks")
    assert last.split()[3:6] == ["6", f"{0.65:.4g}", f"{everything:.4g}"]
    assert main(["plot", *runs, "--metric", "eval_return", "--output", str(tmp_path / "c.png")]) == 0
    assert "2 tasks" not in capsys.readouterr().out, "returns of different tasks have no common scale"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / f"sac_task_{seed}", seed) for seed in range(4)]
    runs.append(write_run(tmp_path / "other_0", 0, offset=50.0, lr=0.2))
    output = tmp_path / "c.png"
    assert main(["plot", "curves", *map(str, runs), "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split()[:3] == ["sac_task", "4", "10.5"]
    assert printed[2].split()[:3] == ["other_0", "1", "59"]
    assert output.stat().st_size > 5000


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["ppo_HalfCheetah-v5_1000000_0", "ppo_HalfCheetah-v5_1000000_1"], "ppo_HalfCheetah-v5_1000000"),
        (["lift_seed8", "lift_seed11"], "lift"),
        (["lift_10", "lift_11"], "lift"),
        (["7", "8"], "7"),
        (["lift-v5"], "lift-v5"),
    ],
)
def test_a_group_is_named_by_what_its_runs_share_but_a_seed(names: list[str], name: str, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / folder, seed) for seed, folder in enumerate(names)]
    (group,) = group_runs({run: Curve(run, np.arange(2.0), np.zeros(2)) for run in runs})
    assert group.name == name


def test_run_folders_alone_mean_their_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(write_run(tmp_path / f"ppo_{seed}", seed)) for seed in range(2)]
    assert main(["plot", *runs]) == 0
    plain = capsys.readouterr().out
    assert main(["plot", "--metric", "eval_return", "--runs", *runs]) == 0
    assert capsys.readouterr().out == plain
    assert main(["plot", "curves", *runs]) == 0
    assert capsys.readouterr().out == plain
    assert main(["plot", "curvse", *runs]) == 2
    assert "none of robolearn plot's verbs: curves, critic, density" in capsys.readouterr().err
    assert main(["plot", "--help"]) == 0
    assert "robolearn plot density" in capsys.readouterr().out


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a", 0)
    assert main(["plot", "curves", str(run), "--metric", "sucess"]) == 2
    assert "all runs have env_steps, eval_return, loss" in capsys.readouterr().err
    assert main(["plot", "curves", str(tmp_path)]) == 2
    assert "no metrics.jsonl" in capsys.readouterr().err
