"""The one training loop: behaviour cloning, PPO and SAC are algorithms in it.

run/config.yaml               the resolved configuration (the caller writes it)
run/metrics.jsonl             one line of metrics every `log_every` steps
run/tensorboard/
run/checkpoints/latest, best  everything a run goes on from, bit for bit
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import save_file

from robolearn.configuration.parts.loop import LoopConfig
from robolearn.errors import TrainingError
from robolearn.training import distributed
from robolearn.training.checkpoint import SUMMARY_FILE, load_checkpoint, part_file, save_checkpoint, save_part
from robolearn.training.finite_guard import FiniteGuard, NonFinite, named_tensors
from robolearn.training.interrupt import Interrupt
from robolearn.training.metrics import Metrics, MetricsLog
from robolearn.training.progress import Progress
from robolearn.training.seeding import rng_state, set_rng_state, untouched_rng
from robolearn.training.threads import refit_threads

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


@runtime_checkable
class Ranked(Protocol):
    """An algorithm with state that differs between the processes of a run, besides that of `state_dict`."""

    def rank_state_dict(self) -> dict[str, Any]: ...

    def load_rank_state_dict(self, state: dict[str, Any]) -> None: ...


class Source(Protocol):
    """Gives batches: windows of a dataset, rollouts, rows of a replay buffer."""

    def next(self) -> Any: ...

    def describe(self, batch: Any) -> str:
        """Say which data the batch holds, as far as that helps to find a fault: episode and step of the oddest row."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class RunState:
    """The loop's own memory from checkpoint to checkpoint."""

    step: int = 0
    time_s: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    scored_by: list[str] = field(default_factory=list)
    """Metrics of the evaluations that the best score is one of."""
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

    Where several processes train together (`robolearn.training.distributed`), all of them call this with the same
    arguments; the first one evaluates and writes, and each restores what is its own.

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
    guard, began, stop = FiniteGuard(), time.monotonic() - state.time_s, False
    with (
        MetricsLog(run_dir, start_step=state.step, tensorboard=config.tensorboard, wandb=config.wandb) as log,
        Progress(label, config.total_steps, start=state.step, quiet=not distributed.is_main()) as progress,
        Interrupt() as interrupt,
    ):
        try:
            for step in range(state.step + 1, config.total_steps + 1):
                batch = source.next()
                metrics = algorithm.update(batch)
                stop = _watch(guard, interrupt, step, batch, metrics)
                log.add(metrics)
                progress.update(step)
                state.step, state.time_s = step, time.monotonic() - began
                last = step == config.total_steps
                if last or step % config.log_every == 0:
                    refit_threads()
                    progress.note = _note(log.flush(step, state.time_s) | state.evaluation)
                if evaluate is not None and (last or (config.evaluate_every and step % config.evaluate_every == 0)):
                    guard.flush()
                    _evaluate(algorithm, source, evaluate, state, log, run_dir)
                if last or stop or (config.checkpoint_every and step % config.checkpoint_every == 0):
                    guard.flush()
                    log.flush(step, state.time_s)
                    _save(algorithm, source, state, run_dir / LATEST)
                if stop:
                    break
        except NonFinite as bad:
            raise _report(bad, source, run_dir) from None
    if stop:
        if distributed.is_main():
            processes = distributed.world_size()
            how = f"{resume_hint} (with torchrun --nproc_per_node {processes})" if processes > 1 else resume_hint
            where = f"saved {run_dir} at step {state.step} of {config.total_steps}"
            print(f"{where}; to go on: {how}", file=sys.stderr)
        raise KeyboardInterrupt
    return state


def has_checkpoint(run_dir: str | Path) -> bool:
    """Return True where a run can be resumed."""
    return (Path(run_dir) / LATEST).is_dir()


def check_run_dir(run_dir: str | Path, resume: bool) -> None:
    """Raise TrainingError where a new run would write over an old one."""
    if has_checkpoint(run_dir) and not resume:
        raise TrainingError(f"{run_dir} holds a training run already; resume it, or choose another output folder")


def steps_made(run_dir: str | Path) -> int:
    """Return the step that a run goes on from, 0 without a checkpoint. Raises TrainingError where that is damaged."""
    path = Path(run_dir) / LATEST / SUMMARY_FILE
    if not path.is_file():
        return 0
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["step"])
    except (ValueError, TypeError, KeyError):
        raise TrainingError(f"{path} is damaged; copy the checkpoint again") from None


def check_steps_left(run_dir: str | Path, total_steps: int) -> None:
    """Raise TrainingError where a run has made more steps than it is to make: its record would be false."""
    if (step := steps_made(run_dir)) > total_steps:
        raise TrainingError(
            f"{run_dir} has made {step} steps, more than the {total_steps} asked for; steps are not taken back: ask "
            "for more, or train anew in another output folder"
        )


def _restore(algorithm: Algorithm, source: Source, run_dir: Path, resume: bool) -> RunState:
    check_run_dir(run_dir, resume)
    if not has_checkpoint(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        return RunState()
    saved = load_checkpoint(run_dir / LATEST)
    if (processes := saved.get("processes", 1)) != distributed.world_size():
        raise TrainingError(
            f"{run_dir / LATEST} is of a run of {processes} processes, this one has {distributed.world_size()}; "
            f"resume it with torchrun --nproc_per_node {processes}"
        )
    own = saved if distributed.is_main() else load_checkpoint(run_dir / LATEST, part_file(distributed.rank()))
    try:
        algorithm.load_state_dict(saved["algorithm"])
        if isinstance(algorithm, Ranked):
            algorithm.load_rank_state_dict(own["ranked"])
        source.load_state_dict(own["source"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{run_dir / LATEST} does not fit this configuration: {error}") from None
    set_rng_state(own["rng"])
    return RunState(**saved["loop"])


def _save(algorithm: Algorithm, source: Source, state: RunState, folder: Path) -> None:
    own: dict[str, Any] = {"source": source.state_dict(), "rng": rng_state()}
    if isinstance(algorithm, Ranked):
        own["ranked"] = algorithm.rank_state_dict()
    ranks = range(1, distributed.world_size())
    if not distributed.is_main():
        save_part(folder, distributed.rank(), own)
    distributed.barrier()
    if distributed.is_main():
        shared = {"algorithm": algorithm.state_dict(), "loop": {**vars(state)}, "processes": len(ranks) + 1}
        summary = {"step": state.step, "time_s": round(state.time_s, 1), **state.evaluation}
        save_checkpoint(folder, own | shared, summary, [folder.parent / part_file(rank) for rank in ranks])
    distributed.barrier()


def _evaluate(
    algorithm: Algorithm, source: Source, evaluate: Evaluate, state: RunState, log: MetricsLog, run_dir: Path
) -> None:
    with untouched_rng():
        found = distributed.from_main(lambda: {name: float(value) for name, value in evaluate(state.step).items()})
    state.evaluation = found
    if found:
        log.write(state.step, state.time_s, found)
    score = found.get(SCORE)
    if score is not None and state.scored_by != (kind := sorted(found)):
        state.scored_by, state.best_score = kind, None  # a likelihood says nothing beside a rate of success
    if score is not None and (state.best_score is None or score > state.best_score):
        state.best_score, state.best_step = score, state.step
        _save(algorithm, source, state, run_dir / BEST)


def _watch(guard: FiniteGuard, interrupt: Interrupt, step: int, batch: Any, metrics: Metrics) -> bool:
    """Return True where any process was asked to stop; raises NonFinite, or TrainingError where another one does."""
    bad: NonFinite | None = None
    try:
        guard.watch(step, batch, metrics)
    except NonFinite as found:
        bad = found
    stop, failed = distributed.any_of(interrupt.requested, bad is not None)
    if bad is not None:
        raise bad
    if failed:
        raise TrainingError(f"training stopped at step {step} because of another process, whose message says why")
    return stop


def _report(bad: NonFinite, source: Source, run_dir: Path) -> TrainingError:
    """Save what did it and say where it comes from."""
    folder = run_dir / "nonfinite"
    folder.mkdir(exist_ok=True)
    name = f"step_{bad.step}" if distributed.is_main() else f"step_{bad.step}_rank_{distributed.rank()}"
    path = folder / f"{name}.safetensors"
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
