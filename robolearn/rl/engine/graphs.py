"""CUDA graphs: on a card an update of small networks is hundreds of launches, each longer than the kernel it begins.

first call of a kind    runs as it is, which compiles kernels and fills caches
second                  is recorded without running, then launched
later ones              arguments are copied in, the graph is launched, results are copied out
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

CARD = "cuda"
"""Type of the devices that record."""


class GraphedCalls:
    """A function of tensors, launched as CUDA graphs where its arguments are on a card.

    It may change tensors in place (weights, moments) as long as they stay where they are in memory. It must not wait
    for the card, and draws from torch's global generator or not at all. For each kind of arguments there is a graph:
    shapes, whatever is no tensor, the mode of gradients, and what modules are set to.
    """

    def __init__(self, function: Callable[..., Any], owner: object = None, changing: tuple[str, ...] = ()) -> None:
        """
        Args:
            owner: the modules among its attributes are those that the function reads.
            changing: attributes of modules that may have other values at the next call.
        """
        self.function, self.owner, self.changing = function, owner, changing
        self.recordings: dict[Any, Recording] = {}

    def __call__(self, *arguments: Any) -> Any:
        leaves, structure = tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or any(tensor.device.type != CARD for tensor in tensors):
            return self.function(*arguments)
        kinds = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        settings = tuple(getattr(module, name, None) for module in self._modules for name in self.changing)
        kind = (structure, kinds, settings, torch.is_grad_enabled())
        if kind in self.recordings:
            return self.recordings[kind].launch(tensors)
        # From the memory that all later calls read, so that nothing is compiled for other strides while recording.
        leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.recordings[kind] = Recording(self.function, tree_unflatten(leaves, structure))
        return self.function(*self.recordings[kind].arguments)

    @cached_property
    def _modules(self) -> list[nn.Module]:
        owned = vars(self.owner).values() if self.owner is not None else ()
        return [module for part in owned if isinstance(part, nn.Module) for module in part.modules()]


class Recording:
    """A call of one kind."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """
        Args:
            arguments: their tensors become the memory that every launch reads.
        """
        self.function, self.arguments = function, arguments
        self.inputs = [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Tensor)]
        self.graph: Any = None
        self.outputs: Any = None

    def launch(self, tensors: list[Tensor]) -> Any:
        """Return what the function returns for these tensors in the place of those in `arguments`."""
        for own, given in zip(self.inputs, tensors):
            own.copy_(given)
        if self.graph is None:
            self.record()
        self.replay()
        return tree_map_only(Tensor, torch.clone, self.outputs)  # the next launch writes where this one did

    def record(self) -> None:
        """Take down what the function does, without doing it, and where its results will be."""
        self.graph = torch.cuda.CUDAGraph()
        # Other threads, which collect beside an update, go on meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = self.function(*self.arguments)

    def replay(self) -> None:
        self.graph.replay()
