"""Resuming is bit-exact, interrupting saves, divergence is caught with its batch, evaluation disturbs nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robolearn.configuration.parts.loop import LoopConfig
from robolearn.errors import TrainingError
from robolearn.training.checkpoint import load_checkpoint
from robolearn.training.loop import BEST, LATEST, run_loop
from robolearn.training.metrics import read_metrics
from tests.commands import Fork
from tests.training.toy import Counting, Regression
from tests.waiting import wait_until

ENDLESS = 1_000_000


def config(total: int, **changes: object) -> LoopConfig:
    values = {"log_every": 5, "evaluate_every": 0, "checkpoint_every": 0, "tensorboard": False} | changes
    return LoopConfig(total_steps=total, **values)  # type: ignore[arg-type]


def train(run_dir: Path, total: int, *, resume: bool = False, evaluate: object = None, **changes: object) -> Regression:
    algorithm = Regression()
    run_loop(algorithm, Counting(), config=config(total, **changes), run_dir=run_dir, resume=resume, evaluate=evaluate)  # type: ignore[arg-type]
    return algorithm


@pytest.mark.parametrize("first", [1, 4, 7, 10])
def test_resuming_equals_no_interruption_bit_for_bit(first: int, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 17)
    train(tmp_path / "parts", first)
    torch.manual_seed(123)  # the new process would be in another state, too
    resumed = train(tmp_path / "parts", 17, resume=True)
    assert torch.equal(whole.weights(), resumed.weights())
    states = [load_checkpoint(tmp_path / name / LATEST) for name in ("whole", "parts")]
    assert torch.equal(states[0]["rng"]["torch"], states[1]["rng"]["torch"])
    assert [s["source"] for s in states] == [{"count": 17}] * 2
    steps = [row["step"] for row in read_metrics(tmp_path / "parts")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 17


def test_metrics_are_means_over_their_steps(tmp_path: Path) -> None:
    seen: list[float] = []

    class Spy(Regression):
        def update(self, batch):  # type: ignore[no-untyped-def]
            metrics = super().update(batch)
            seen.append(float(metrics["loss"]))
            return metrics

    run_loop(Spy(), Counting(), config=config(12), run_dir=tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 12]
    for row, part in zip(rows, (seen[:5], seen[5:10], seen[10:])):
        assert row["loss"] == pytest.approx(sum(part) / len(part))
        assert row["constant"] == 2.0
        assert row["time_s"] > 0


def test_evaluation_leaves_training_alone_and_picks_the_best(tmp_path: Path) -> None:
    scores = {4: 0.1, 8: 0.7, 12: 0.3}

    def evaluate(step: int) -> dict[str, float]:
        torch.rand(step)
        return {"score": scores[step], "success": scores[step]}

    plain = train(tmp_path / "plain", 12)
    evaluated = train(tmp_path / "evaluated", 12, evaluate=evaluate, evaluate_every=4)
    assert torch.equal(plain.weights(), evaluated.weights())
    assert load_checkpoint(tmp_path / "evaluated" / BEST)["loop"]["step"] == 8
    assert load_checkpoint(tmp_path / "evaluated" / LATEST)["loop"]["best_step"] == 8
    found = {row["step"]: row["success"] for row in read_metrics(tmp_path / "evaluated") if "success" in row}
    assert found == scores


def test_a_finished_or_started_run_is_not_overwritten(tmp_path: Path) -> None:
    first = train(tmp_path, 6)
    with pytest.raises(TrainingError, match="holds a training run already; resume it"):
        train(tmp_path, 6)
    again = train(tmp_path, 6, resume=True)
    assert torch.equal(first.weights(), again.weights())


def test_divergence_stops_with_the_batch_and_keeps_a_finite_checkpoint(tmp_path: Path) -> None:
    algorithm = Regression()
    source = Counting(poison_at=9)
    with pytest.raises(TrainingError, match=r"stopped at step 9: loss (nan|inf).*Row 5 is odd.*latest, is finite"):
        run_loop(algorithm, source, config=config(20, checkpoint_every=4), run_dir=tmp_path)
    saved = load_file(tmp_path / "nonfinite" / "step_9.safetensors")
    assert set(saved) == {"x", "y"}
    assert saved["x"][5, 1] == float("inf")
    state = load_checkpoint(tmp_path / LATEST)
    assert state["loop"]["step"] == 8
    assert all(v.isfinite().all() for v in state["algorithm"]["network"].values())
    resumed = train(tmp_path, 20, resume=True)
    assert torch.equal(resumed.weights(), train(tmp_path / "clean", 20).weights())


def test_state_that_could_not_be_read_back_is_refused_when_saving(tmp_path: Path) -> None:
    class Odd(Counting):
        def state_dict(self) -> dict[str, object]:
            return {"generator": object()}

    with pytest.raises(AssertionError, match=r"state\.source\.generator is a object"):
        run_loop(Regression(), Odd(), config=config(2), run_dir=tmp_path)


def test_damaged_and_foreign_checkpoints_give_one_clear_error(tmp_path: Path) -> None:
    train(tmp_path, 3)
    path = tmp_path / LATEST / "state.pt"
    good = path.read_bytes()
    for damaged in (good[:100], good[: len(good) // 2], b"", b"junk" * 100):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match="damaged or not a checkpoint"):
            train(tmp_path, 5, resume=True)

    class Bomb:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"algorithm": Bomb()}, path)
    with pytest.raises(TrainingError, match="damaged or not a checkpoint"):
        train(tmp_path, 5, resume=True)
    assert not (tmp_path / "exploded").exists()
    path.write_bytes(good)
    other = Regression()
    other.network = torch.nn.Sequential(torch.nn.Linear(3, 4))
    with pytest.raises(TrainingError, match="does not fit this configuration"):
        run_loop(other, Counting(), config=config(5), run_dir=tmp_path, resume=True)


def train_slowly(run_dir: Path) -> None:
    """Train for longer than any machine needs to interrupt it."""
    run_loop(
        Regression(),
        Counting(delay_s=0.02),
        config=config(ENDLESS, checkpoint_every=3),
        run_dir=run_dir,
        resume_hint="repeat after me",
    )


def wait_for_step(run_dir: Path, step: int) -> None:
    path = run_dir / LATEST / "checkpoint.json"
    wait_until(lambda: path.exists() and json.loads(path.read_text())["step"] >= step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_goes_on_to_the_same_weights(number: signal.Signals, tmp_path: Path) -> None:
    process = Fork(train_slowly, tmp_path / "run")
    wait_for_step(tmp_path / "run", 12)
    process.send_signal(number)
    assert process.wait(60) != 0
    stopped = load_checkpoint(tmp_path / "run" / LATEST)["loop"]["step"]
    assert stopped >= 12
    if number != signal.SIGKILL:
        assert "to go on: repeat after me" in process.err
        assert f"at step {stopped} of {ENDLESS}" in process.err.replace(",", "")
    total = stopped + 20
    resumed = train(tmp_path / "run", total, resume=True)
    whole = train(tmp_path / "whole", total)
    assert torch.equal(resumed.weights(), whole.weights())
    steps = [row["step"] for row in read_metrics(tmp_path / "run")]
    assert steps == sorted(set(steps))
