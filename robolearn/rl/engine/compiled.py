"""Gradients that trace as one graph, and the compilation of whole updates.

An eager minibatch step of a small network is some two hundred operations of a microsecond's arithmetic each. Traced
together with its gradients and the optimiser, it is one call.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.rl.engine.adam import FlatAdam

CHANGING = ("is_identity", "training")
"""Attributes of modules that a graph is made for and that may be others at its next call."""


class Gradients:
    """(loss module, optimiser) -> a function of the loss's arguments that returns gradients and metrics."""

    def __init__(self, loss: nn.Module, adam: FlatAdam) -> None:
        """
        Args:
            loss: its forward returns a scalar and a dictionary of detached metrics.
            adam: of the parameters whose gradients are wanted, in its order.
        """
        names = {id(p): name for name, p in loss.named_parameters()}
        self.loss, self.adam, self.parameters = loss, adam, adam.parameters
        self.names = [names[id(p)] for p in self.parameters]

    def __call__(self, *arguments: Any) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        if not torch.compiler.is_compiling():
            loss, metrics = self.loss(*arguments)
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, self.parameters)], metrics

        def value(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.func.functional_call(self.loss, parameters, arguments)

        # Cut from the vector, so that a graph that changes it is not given the parameters as well: keeping track of
        # what shares memory with what would cost it more than the arithmetic.
        parameters = dict(zip(self.names, self.adam.split()))
        gradients, metrics = torch.func.grad(value, has_aux=True)(parameters)
        return [gradients[name] for name in self.names], metrics


def compiled(method: MethodType) -> Callable[..., Any]:
    """`method` as one graph. What it reads of its object and of modules must be settled, or a tensor that is changed in
    place: but for the few things of `CHANGING`, only the arguments are looked at again from call to call.

    Raises ConfigError where this machine has no compiler for it.
    """
    if not torch.cuda.is_available() and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError("compiling updates needs a C++ compiler (g++ or clang++); install one or set compile false")
    # On the CPU the calls between the kernels are the larger part of a small network's step: let C++ make them. And
    # tanh to the last bit costs as much as the products around it; by way of exp it is right to 1e-7.
    options: dict[str, Any] = {} if torch.cuda.is_available() else {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}
    options["guard_filter_fn"] = _worth_a_look
    # Graphs are kept with the code that they were made from, and this object's must not be taken for another's.
    function = method.__func__
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    return torch.compile(MethodType(own, method.__self__), fullgraph=True, dynamic=False, options=options)


def _worth_a_look(guards: Sequence[Any]) -> list[bool]:
    """Over a thousand guards on modules, optimisers and globals that never change would be looked at in every step."""

    def settled(guard: Any) -> bool:
        return guard.is_global or "self" in guard.name or guard.name.startswith("__import__")

    return [guard.name.endswith(CHANGING) or not settled(guard) for guard in guards]
