"""A loss and the Adam that minimises it: one gradient step as one function, which a compiled graph may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.rl.engine.adam import FlatAdam
from robolearn.rl.engine.compiling import compiled
from robolearn.rl.engine.minibatches import MinibatchGroup, Rows

Metrics = dict[str, Tensor]


class LossOptimiser:
    """Minimises a loss over some of its parameters by Adam with clipped gradients."""

    def __init__(
        self,
        loss: nn.Module,
        parameters: Sequence[nn.Parameter],
        *,
        learning_rate: float,
        eps: float = 1e-8,
        max_grad_norm: float = 0.0,
        norm_name: str | None = "grad_norm",
        compile: bool = False,
    ) -> None:
        """
        Args:
            loss: its forward returns a scalar and a dictionary of detached metrics.
            parameters: those of `loss` to train; all others are left alone, and their gradients are not computed.
            norm_name: the metric that tells the gradient's norm before clipping; None leaves it out.
            compile: make graphs of `steps`. A caller who compiles a whole update around `step` leaves this false.
        """
        names = {id(p): name for name, p in loss.named_parameters()}
        self.loss, self.norm_name = loss, norm_name
        self.adam = FlatAdam(parameters, learning_rate=learning_rate, eps=eps, max_grad_norm=max_grad_norm)
        self.names = [names[id(p)] for p in self.adam.parameters]
        self._group_steps = compiled(self._eager_group_steps) if compile else self._eager_group_steps

    def steps(self, minibatches: Sequence[MinibatchGroup[Any]]) -> Metrics:
        """Take one gradient step from each minibatch in turn; return the metrics of all of them, (steps,) each."""
        records = [self._group_steps(group.rows, group.count, group.size) for group in minibatches]
        return {name: torch.cat([record[name] for record in records]) for name in records[0]}

    def step(self, *arguments: Any) -> Metrics:
        """Take one gradient step of the loss at `arguments`; return its metrics, scalars."""
        if torch.compiler.is_compiling():
            gradients, metrics = self._traced_gradients(arguments)
        else:
            loss, metrics = self.loss(*arguments)
            found = torch.autograd.grad(loss, self.adam.parameters, allow_unused=True)
            gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.adam.parameters)]
        norm = self.adam.step(gradients)
        return metrics if self.norm_name is None else metrics | {self.norm_name: norm}

    def state_dict(self) -> dict[str, Any]:
        """Return Adam's state; the parameters belong to their module's."""
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)

    def _eager_group_steps(self, rows: Rows, count: int, size: int) -> Metrics:
        """Take a step from each of the `count` minibatches in `rows`; return metrics (count,)."""
        records = [
            self.step(
                rows.map(lambda field, i=i: field[i * size : (i + 1) * size])
            )  # (count * size, ...) -> (size, ...)
            for i in range(count)
        ]
        return {name: torch.stack([record[name] for record in records]) for name in records[0]}

    def _traced_gradients(self, arguments: tuple[Any, ...]) -> tuple[list[Tensor], Metrics]:
        """Compute gradients (in Adam's order) and metrics by functions that trace as one graph."""

        def value(parameters: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
            return torch.func.functional_call(self.loss, parameters, arguments)

        # Cut from the vector, so that a graph that changes it is not given the parameters as well: keeping track of
        # what shares memory with what would cost it more than the arithmetic.
        parameters = dict(zip(self.names, self.adam.split()))
        gradients, metrics = torch.func.grad(value, has_aux=True)(parameters)
        return [gradients[name] for name in self.names], metrics


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, in the module's order."""
    return [p for p in module.parameters() if p.requires_grad]
