"""Compilation of whole updates.

An eager minibatch step of a small network is some two hundred operations of a microsecond's arithmetic each. Traced
together with its gradients and the optimiser, it is one call; on a card that call is a CUDA graph.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch

from robolearn.errors import ConfigError
from robolearn.rl.engine.graphs import GraphedCalls
from robolearn.training import distributed

CHANGING = ("is_identity", "training")
"""Attributes of modules that a graph is made for and that may have other values at its next call."""


def compiled(method: MethodType) -> Callable[..., Any]:
    """Return `method` as one graph, which is made at its first call.

    What it reads of its object and of modules must be settled, or a tensor that is changed in place: but for the few
    things of `CHANGING`, only the arguments are looked at again from call to call.

    Raises ConfigError where this machine has no compiler for it.
    """
    if not torch.cuda.is_available() and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError("compiling updates needs a C++ compiler (g++ or clang++); install one or set compile false")
    # On the CPU the calls between the kernels are the larger part of a small network's step: let C++ make them. And
    # tanh to the last bit costs as much as the products around it; by way of exp it is right to 1e-7.
    options: dict[str, Any] = {} if torch.cuda.is_available() else {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}
    options["guard_filter_fn"] = _guards_to_check
    # Graphs are kept with the code that they were made from, and this object's must not be taken for another's.
    function = method.__func__
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    graph = torch.compile(MethodType(own, method.__self__), fullgraph=True, dynamic=False, options=options)
    # Several processes reduce gradients within an update, which is not recorded.
    recorded = torch.cuda.is_available() and distributed.world_size() == 1
    return GraphedCalls(graph, method.__self__, CHANGING) if recorded else graph


def _guards_to_check(guards: Sequence[Any]) -> list[bool]:
    """Pick the guards to check in every step; a thousand more are on modules and globals that never change."""

    def settled(guard: Any) -> bool:
        return guard.is_global or "self" in guard.name or guard.name.startswith("__import__")

    return [guard.name.endswith(CHANGING) or not settled(guard) for guard in guards]
