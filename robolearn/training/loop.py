"""The one training loop: behaviour cloning, PPO and SAC are algorithms in it.

run/config.yaml               the resolved configuration (the caller writes it)
run/metrics.jsonl             one line of metrics every `log_every` steps
run/tensorboard/
run/checkpoints/latest, best  everything a run goes on from, bit for bit
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file

from robolearn.errors import TrainingError
from robolearn.training.checkpoint import load_checkpoint, save_checkpoint
from robolearn.training.config import LoopConfig
from robolearn.training.guard import FiniteGuard, NonFinite, named_tensors
from robolearn.training.interrupt import Interrupt
from robolearn.training.metrics import Metrics, MetricsLog
from robolearn.training.progress import Progress
from robolearn.training.seeding import rng_state, set_rng_state, untouched_rng

LATEST, BEST = Path("checkpoints/latest"), Path("checkpoints/best")
SCORE = "score"
"""The evaluation metric that decides which checkpoint is the best one; higher is better."""

Evaluate = Callable[[int], Mapping[str, float]]


class Algorithm(Protocol):
    """Learns from batches. State dictionaries hold tensors and plain values in dicts, lists and tuples."""

    def update(self, batch: Any) -> Metrics:
        """Learn from one batch; scalar metrics by name, tensors left on their device. `loss`, `*_loss` and
        `grad_norm` must be finite."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Source(Protocol):
    """Where batches come from: windows of a dataset, rollouts, a replay buffer."""

    def next(self) -> Any: ...

    def describe(self, batch: Any) -> str:
        """Which data the batch holds, as far as it helps to find a fault: episode and step of the oddest row."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class RunState:
    """What the loop itself remembers from checkpoint to checkpoint."""

    step: int = 0
    time_s: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    evaluation: dict[str, float] = field(default_factory=dict)
    """Metrics of the last evaluation."""


def run_loop(
    algorithm: Algorithm,
    source: Source,
    *,
    config: LoopConfig,
    run_dir: str | Path,
    evaluate: Evaluate | None = None,
    resume: bool = False,
    label: str = "train",
    resume_hint: str = "run the same again with resume",
) -> RunState:
    """Train until `config.total_steps`; log, evaluate and save on the way.

    Args:
        evaluate: called with the step; its metrics are logged, and its `score` picks the best checkpoint. Whatever
            it draws leaves the run's random numbers alone.
        resume: go on from the latest checkpoint, where there is one. Without it, a folder that holds one is refused.
        resume_hint: what to tell someone who interrupts the run.

    Raises TrainingError where the loss stops being finite (the batch is saved, the last checkpoint is finite), and
    KeyboardInterrupt once an interrupted run is saved.
    """
    run_dir = Path(run_dir)
    state = _restore(algorithm, source, run_dir, resume)
    guard, began = FiniteGuard(), time.monotonic() - state.time_s
    with (
        MetricsLog(run_dir, start_step=state.step, tensorboard=config.tensorboard, wandb=config.wandb) as log,
        Progress(label, config.total_steps, start=state.step) as progress,
        Interrupt() as interrupt,
    ):
        try:
            for step in range(state.step + 1, config.total_steps + 1):
                batch = source.next()
                metrics = algorithm.update(batch)
                guard.watch(step, batch, metrics)
                log.add(metrics)
                progress.update(step)
                state.step, state.time_s = step, time.monotonic() - began
                last = step == config.total_steps
                if last or step % config.log_every == 0:
                    progress.note = _note(log.flush(step, state.time_s) | state.evaluation)
                if evaluate is not None and (last or (config.evaluate_every and step % config.evaluate_every == 0)):
                    guard.flush()
                    _evaluate(algorithm, source, evaluate, state, log, run_dir)
                if last or interrupt.requested or (config.checkpoint_every and step % config.checkpoint_every == 0):
                    guard.flush()
                    log.flush(step, state.time_s)
                    _save(algorithm, source, state, run_dir / LATEST)
                if interrupt.requested:
                    break
        except NonFinite as bad:
            raise _report(bad, source, run_dir) from None
    if interrupt.requested:
        print(f"saved {run_dir} at step {state.step} of {config.total_steps}; to go on: {resume_hint}", file=sys.stderr)
        raise KeyboardInterrupt
    return state


def has_checkpoint(run_dir: str | Path) -> bool:
    """Whether a run can be resumed."""
    return (Path(run_dir) / LATEST).is_dir()


def check_run_dir(run_dir: str | Path, resume: bool) -> None:
    """Raises TrainingError where a new run would write over an old one."""
    if has_checkpoint(run_dir) and not resume:
        raise TrainingError(f"{run_dir} holds a training run already; resume it, or choose another output folder")


def _restore(algorithm: Algorithm, source: Source, run_dir: Path, resume: bool) -> RunState:
    check_run_dir(run_dir, resume)
    if not has_checkpoint(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        return RunState()
    saved = load_checkpoint(run_dir / LATEST)
    try:
        algorithm.load_state_dict(saved["algorithm"])
        source.load_state_dict(saved["source"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{run_dir / LATEST} does not fit this configuration: {error}") from None
    set_rng_state(saved["rng"])
    return RunState(**saved["loop"])


def _save(algorithm: Algorithm, source: Source, state: RunState, folder: Path) -> None:
    parts = {"algorithm": algorithm.state_dict(), "source": source.state_dict(), "rng": rng_state()}
    summary = {"step": state.step, "time_s": round(state.time_s, 1), **state.evaluation}
    save_checkpoint(folder, {**parts, "loop": {**vars(state)}}, summary)


def _evaluate(
    algorithm: Algorithm, source: Source, evaluate: Evaluate, state: RunState, log: MetricsLog, run_dir: Path
) -> None:
    with untouched_rng():
        found = {name: float(value) for name, value in evaluate(state.step).items()}
    state.evaluation = found
    if found:
        log.write(state.step, state.time_s, found)
    score = found.get(SCORE)
    if score is not None and (state.best_score is None or score > state.best_score):
        state.best_score, state.best_step = score, state.step
        _save(algorithm, source, state, run_dir / BEST)


def _report(bad: NonFinite, source: Source, run_dir: Path) -> TrainingError:
    """Save what did it and say where it comes from."""
    folder = run_dir / "nonfinite"
    folder.mkdir(exist_ok=True)
    path = folder / f"step_{bad.step}.safetensors"
    save_file(named_tensors(bad.batch), path)
    figures = ", ".join(f"{name} {value:g}" for name, value in bad.metrics.items())
    kept = f"the last checkpoint, {run_dir / LATEST}, is finite" if has_checkpoint(run_dir) else "nothing was saved yet"
    return TrainingError(
        f"training stopped at step {bad.step}: {figures}. {source.describe(bad.batch)}. The batch is in {path}; "
        f"{kept}. Look at that data, lower the learning rate, or clip gradients"
    )


def _note(metrics: Mapping[str, float]) -> str:
    result = "eval_success" if "eval_success" in metrics else "eval_return"
    shown = [name for name in ("loss", "valid_loss", result) if name in metrics]
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in shown)
