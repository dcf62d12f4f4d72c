"""Gradients that trace as one graph, and the compilation of whole updates.

An eager minibatch step of a small network is some two hundred operations of a microsecond's arithmetic each. Traced
together with its gradients and the optimiser, it is one call.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError


class Gradients:
    """(loss module, parameters) -> a function of the loss's arguments that returns gradients and metrics."""

    def __init__(self, loss: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        """
        Args:
            loss: its forward returns a scalar and a dictionary of detached metrics.
            parameters: in the order of the gradients wanted.
        """
        names = {id(p): name for name, p in loss.named_parameters()}
        self.loss, self.parameters = loss, list(parameters)
        self.names = [names[id(p)] for p in parameters]

    def __call__(self, *arguments: Any) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        if not torch.compiler.is_compiling():
            loss, metrics = self.loss(*arguments)
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, self.parameters)], metrics

        def value(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.func.functional_call(self.loss, parameters, arguments)

        detached = {name: p.detach() for name, p in zip(self.names, self.parameters)}
        gradients, metrics = torch.func.grad(value, has_aux=True)(detached)
        return [gradients[name] for name in self.names], metrics


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as one graph. Raises ConfigError where this machine has no compiler for it."""
    if not torch.cuda.is_available() and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError("compiling updates needs a C++ compiler (g++ or clang++); install one or set compile false")
    # On the CPU the calls between the kernels are the larger part of a small network's step: let C++ make them.
    options: dict[str, Any] | None = None if torch.cuda.is_available() else {"cpp_wrapper": True}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)
