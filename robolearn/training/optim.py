"""Optimiser, schedule, gradient clipping and the moving average of weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.loop import OptimiserConfig
from robolearn.training import distributed

M = TypeVar("M", bound=nn.Module)

NORM_EVERY = 10


class Optimiser:
    """AdamW on a module's parameters, one fused pass over them, its step size a function of the step."""

    def __init__(self, module: nn.Module, config: OptimiserConfig, total_steps: int) -> None:
        self.config, self.total_steps, self.steps = config, total_steps, 0
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.adam = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Step down the gradient of a scalar loss; returns `grad_norm` (before clipping) at steps that compute it.

        Where several processes train together, the loss is this one's share of a sum over all of them. Where nothing
        is clipped the norm is only a metric, and one in `NORM_EVERY` steps is enough of it.
        """
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        distributed.sum_gradients(self.parameters)
        metrics: dict[str, Tensor] = {}
        if self.config.max_grad_norm or self.steps % NORM_EVERY == 0:
            metrics["grad_norm"] = clip_gradients(self.parameters, self.config.max_grad_norm)
        self.adam.param_groups[0]["lr"] = self.config.learning_rate * schedule(
            self.steps, self.total_steps, self.config.warmup_steps, self.config.schedule
        )
        self.adam.step()
        self.steps += 1
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.steps = int(state["steps"])


def schedule(step: int, total_steps: int, warmup_steps: int, kind: str) -> float:
    """Return the factor of the step size at update `step` (from 0): linear warm-up, then down to 0 at `total_steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that their joint norm is at most `max_norm` (0: never); returns the norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # pyright: ignore[reportPrivateImportUsage]
    if not max_norm:
        return norm
    # On the host the comparison is free and usually spares a pass over the gradients; on a device it would wait.
    if norm.device.type == "cpu" and norm <= max_norm:
        return norm
    factor = (max_norm / (norm + 1e-6)).clamp_max(1.0)
    torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]
    return norm


class MovingAverage(Generic[M]):
    """Exponential moving average of a module's weights with a power schedule (as diffusers' EMAModel).

    Averaging every `every` updates with the decay of all of them costs a tenth and gives nearly the same average.
    """

    def __init__(self, module: M, config: OptimiserConfig) -> None:
        self.config, self.updates = config, 0
        self.source = module
        self.module: M = copy.deepcopy(module).requires_grad_(False).eval()
        self._from = [p.detach() for p in module.parameters()]
        self._to: list[Tensor] = list(self.module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Follow the weights by one step; to be called after every optimiser step."""
        self.updates += 1
        if self.updates % self.config.ema_every == 0:
            decay = ema_decay(self.updates, self.config.ema_power, self.config.ema_max_decay)
            weight = 1.0 - decay**self.config.ema_every
            torch._foreach_lerp_(self._to, self._from, weight)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def average(self) -> M:
        """Return the averaged module, with the source's current buffers; at first, before any average, its copy."""
        if self.updates < self.config.ema_every:
            return copy.deepcopy(self.source).requires_grad_(False).eval()
        for mine, theirs in zip(self.module.buffers(), self.source.buffers()):
            mine.copy_(theirs)
        return self.module

    def state_dict(self) -> dict[str, Any]:
        return {"weights": [p.detach() for p in self._to], "updates": self.updates}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self._to, state["weights"], strict=True):
            mine.copy_(saved)
        self.updates = int(state["updates"])


def ema_decay(updates: int, power: float, max_decay: float) -> float:
    """Return 1 - (1 + n)^-power, at most `max_decay`."""
    return min(max_decay, 1.0 - (1.0 + updates) ** -power)
