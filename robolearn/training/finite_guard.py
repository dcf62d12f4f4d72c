"""Stops a run at the step whose loss is not finite, while the batch that did it is still at hand."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

DEVICE_LAG = 4
"""Steps after which a device's loss is looked at: by then it is there, and nobody waits."""


class NonFinite(Exception):
    """A watched metric is not finite."""

    def __init__(self, step: int, batch: Any, metrics: dict[str, float]) -> None:
        super().__init__(step)
        self.step, self.batch, self.metrics = step, batch, metrics


class FiniteGuard:
    """Watches `loss`, `*_loss` and `grad_norm` of every step. On the CPU at once, on a device a few steps later."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Any, dict[str, Any], Any]] = deque()

    def watch(self, step: int, batch: Any, metrics: Mapping[str, Tensor | float]) -> None:
        """Look at a step's metrics; raises NonFinite for the earliest step that is known to be bad."""
        watched: dict[str, Any] = {
            name: value
            for name, value in metrics.items()
            if name == "loss" or name.endswith("_loss") or name == "grad_norm"
        }
        on_device = any(isinstance(value, Tensor) and value.is_cuda for value in watched.values())
        if not on_device:
            _check(step, batch, watched)
            return
        copied = {k: v.to("cpu", non_blocking=True) if isinstance(v, Tensor) else v for k, v in watched.items()}
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, batch, copied, event))
        if len(self._waiting) > DEVICE_LAG:
            self._look()

    def flush(self) -> None:
        """Look at every step so far: before a checkpoint, which must be finite."""
        while self._waiting:
            self._look()

    def _look(self) -> None:
        step, batch, metrics, event = self._waiting.popleft()
        event.synchronize()
        _check(step, batch, metrics)


def _check(step: int, batch: Any, metrics: Mapping[str, Any]) -> None:
    if not all(map(math.isfinite, metrics.values())):
        raise NonFinite(step, batch, {name: float(value) for name, value in metrics.items()})


def named_tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Return copies of the tensors in nested dataclasses, named tuples, mappings and sequences, by dotted name."""
    if isinstance(value, Tensor):
        return {name: value.detach().cpu().contiguous().clone()}
    if is_dataclass(value) and not isinstance(value, type):
        items: Any = ((f.name, getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        items = value._asdict().items()  # type: ignore[attr-defined]
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {}
    found: dict[str, Tensor] = {}
    for key, item in items:
        found |= named_tensors(item, f"{name}.{key}" if name else str(key))
    return found
