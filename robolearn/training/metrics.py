"""Metrics of a run: metrics.jsonl, TensorBoard, and Weights & Biases where asked for."""

from __future__ import annotations

import json
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from robolearn.errors import TrainingError
from robolearn.storage import write_text
from robolearn.training import distributed

METRICS_FILE = "metrics.jsonl"
Metrics = Mapping[str, Tensor | float]


class MetricsLog:
    """Collects each step's metrics as they are and makes numbers of them only when a line is due.

    Every line of metrics.jsonl is an object with `step`, `time_s` and the metrics by name. Where several processes
    train together a line holds the mean over them, and the first one writes it.
    """

    def __init__(self, run_dir: Path, *, start_step: int = 0, tensorboard: bool = True, wandb: str = "") -> None:
        """
        Args:
            start_step: the step a resumed run goes on from; later lines of the file are dropped.
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        main = distributed.is_main()
        self.path = run_dir / METRICS_FILE if main else Path(os.devnull)
        if main:
            keep_rows(self.path, start_step, _is_number)
        self._pending: list[Metrics] = []
        self._file = self.path.open("a", encoding="utf-8")
        self._writer = _EventFile(run_dir / "tensorboard", start_step) if main and tensorboard else None
        self._wandb = _wandb_run(wandb, run_dir) if main and wandb else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()

    def add(self, metrics: Metrics) -> None:
        """Remember one step's metrics; nothing is read back from a device."""
        self._pending.append(metrics)

    def flush(self, step: int, time_s: float) -> dict[str, float]:
        """Write the means since the last flush; returns them."""
        values = _means(distributed.gather(_means(self._pending)))
        self._pending.clear()
        if values:
            self.write(step, time_s, values)
        return values

    def write(self, step: int, time_s: float, values: Mapping[str, float]) -> None:
        """Write one line now."""
        row = {"step": step, "time_s": round(time_s, 3), **{k: _json_number(v) for k, v in values.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            self._writer.add_scalars(values, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl as `read_rows`; a line holds numbers by name."""
    return read_rows(Path(run_dir) / METRICS_FILE, _is_number)


def read_rows(path: Path, is_value: Callable[[object], bool]) -> list[dict[str, Any]]:
    """Return the lines of a file that grows with a run, without a last one that was cut off; none without a file.

    Args:
        is_value: tells what may stand by a name in a line, `step` among them.

    Raises TrainingError where an earlier line is damaged, or one holds something else.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no text at all
            if number < len(lines):
                raise TrainingError(_damaged(path, number)) from None
            break
        if not (isinstance(row, dict) and "step" in row and all(map(is_value, row.values()))):
            raise TrainingError(_damaged(path, number))
        rows.append(row)
    return rows


def _damaged(path: Path, number: int) -> str:
    return f"line {number} of {path} is damaged; delete that line to read the others"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def keep_rows(path: Path, last_step: int, is_value: Callable[[object], bool]) -> None:
    """Drop what lies beyond the checkpoint a run goes on from, so that no step appears twice; as `read_rows`."""
    rows = [row for row in read_rows(path, is_value) if row["step"] <= last_step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _means(rows: Sequence[Metrics]) -> dict[str, float]:
    """Return the mean of each metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _mean([row[name] for row in rows if name in row]) for name in names}


def _mean(values: list[Tensor | float]) -> float:
    if all(isinstance(value, Tensor) for value in values):
        return float(torch.stack([v.detach().float() for v in values if isinstance(v, Tensor)]).mean())
    return math.fsum(float(value) for value in values) / len(values)


def _json_number(value: float) -> float | None:
    """Return None for what is not finite: JSON knows no NaN, and null says the same to every reader."""
    return value if math.isfinite(value) else None


class _EventFile:
    """TensorBoard's file of scalars, written as they come: the writer of the package has a thread that dies of a full
    disk without telling anyone, after which logging waits for it for ever."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        events: Any = event_pb2  # generated modules, whose members no checker sees
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("ab")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if start_step:  # what an interrupted run logged beyond its checkpoint is to be left out
            log = events.SessionLog
            self._write(step=start_step + 1, session_log=log(status=log.START))

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        scalars = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


def _wandb_run(project: str, run_dir: Path) -> Any:
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError:
        raise TrainingError("logging to Weights & Biases needs its package: pip install wandb") from None
    identity = run_dir / "wandb_id"  # of a run that goes on; another one may lie in a folder of the same name
    if not identity.exists():
        write_text(identity, uuid.uuid4().hex)
    name = identity.read_text(encoding="utf-8")
    return wandb.init(project=project, name=run_dir.name, dir=str(run_dir), id=name, resume="allow")
