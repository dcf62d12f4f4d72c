"""metrics.jsonl, TensorBoard and Weights & Biases say the same, also after a resume or a cut."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import pytest
import torch

from robolearn.errors import TrainingError
from robolearn.training.metrics import METRICS_FILE, MetricsLog, read_metrics


def test_lines_are_means_of_tensors_and_numbers(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.add({"loss": torch.tensor(1.0), "lr": 0.5})
        log.add({"loss": torch.tensor(4.0), "lr": 0.5, "rare": 3.0})
        log.add({"loss": 1.0})
        assert log.flush(3, 1.25) == {"loss": 2.0, "lr": 0.5, "rare": 3.0}
        assert log.flush(4, 1.5) == {}
        log.write(5, 2.0, {"return": math.nan, "success": 0.5})
    assert read_metrics(tmp_path) == [
        {"step": 3, "time_s": 1.25, "loss": 2.0, "lr": 0.5, "rare": 3.0},
        {"step": 5, "time_s": 2.0, "return": None, "success": 0.5},
    ]


def test_a_resumed_run_drops_what_lies_beyond_its_checkpoint(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step in (10, 20, 30):
            log.write(step, 0.1 * step, {"loss": float(step)})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "ti')  # killed in the middle of a line
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
    with MetricsLog(tmp_path, start_step=20, tensorboard=False) as log:
        log.write(25, 3.0, {"loss": 0.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 25]


def test_a_damaged_line_hides_no_later_ones(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(TrainingError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        read_metrics(tmp_path)


def test_tensorboard_reads_the_same_values(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path) as log:
        for step in range(1, 4):
            log.add({"loss": torch.tensor(step / 4)})
            log.flush(step, float(step))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_weights_and_biases_is_asked_for_by_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match="pip install wandb"):
        MetricsLog(tmp_path, tensorboard=False, wandb="project")
    logged: list[tuple[object, ...]] = []
    run = types.SimpleNamespace(
        log=lambda values, step: logged.append((values, step)), finish=lambda: logged.append(("finished",))
    )
    fake = types.SimpleNamespace(init=lambda **options: logged.append((options["project"],)) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with MetricsLog(tmp_path, tensorboard=False, wandb="project") as log:
        log.write(7, 1.0, {"loss": 0.5})
    assert logged == [("project",), ({"loss": 0.5}, 7), ("finished",)]
    ids: list[str] = []
    fake.init = lambda **options: ids.append(options["id"]) or run
    for folder in ("a/run", "b/run", "a/run"):  # the last one goes on with the first
        MetricsLog(tmp_path / folder, tensorboard=False, wandb="project").__exit__(None, None, None)
    assert ids[0] == ids[2] != ids[1]
