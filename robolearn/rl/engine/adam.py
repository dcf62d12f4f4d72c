"""Adam on parameters laid out in one vector: clipping, moments and step are a handful of operations of any network.

For networks of a few thousand weights an optimiser's cost is its number of operations, not their size. Inside a
compiled update the whole of it becomes one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robolearn.training import distributed


class FlatAdam:
    """Adam (Kingma and Ba 2015) with clipping by the global norm.

    The parameters keep their identity but from now on are views of `vector`; `load_state_dict` of their module copies
    into it. Do not move the module to another device afterwards. Where several processes train together, every step is
    from the mean of their gradients.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_grad_norm: float = 0.0,
    ) -> None:
        """
        Args:
            max_grad_norm: gradients of a larger norm are scaled down to it; 0 leaves them alone.
        """
        self.processes = distributed.world_size()
        self.parameters = list(parameters)
        self.vector = flatten_(self.parameters)
        self.shapes = [p.shape for p in self.parameters]
        self.mean, self.square = torch.zeros_like(self.vector), torch.zeros_like(self.vector)
        self.betas, self.eps, self.max_grad_norm = betas, eps, max_grad_norm
        # Tensors, so that compiled and captured updates see them change.
        self.learning_rate = torch.tensor(learning_rate, device=self.vector.device)
        self.count = torch.zeros((), device=self.vector.device)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> Tensor:
        """Take one step from gradients in the order of the parameters; return their norm before clipping."""
        gradient = torch.cat([g.reshape(-1) for g in gradients])
        if self.processes > 1:
            dist.all_reduce(gradient)
            gradient = gradient / self.processes
        norm = torch.linalg.vector_norm(gradient)
        if self.max_grad_norm:
            gradient = gradient * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        b1, b2 = self.betas
        self.count += 1.0
        self.mean.lerp_(gradient, 1.0 - b1)
        self.square.mul_(b2).addcmul_(gradient, gradient, value=1.0 - b2)
        step_size = self.learning_rate / (1.0 - b1**self.count)
        correction = (1.0 - b2**self.count).sqrt()
        self.vector.sub_(step_size * self.mean / (self.square.sqrt() / correction + self.eps))
        return norm

    def split(self) -> list[Tensor]:
        """Return the parameters as views of `vector`, without gradients."""
        parts = self.vector.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes)]

    def state_dict(self) -> dict[str, Any]:
        names = ("mean", "square", "learning_rate", "count")
        return {name: getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)


def flatten_(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Move parameters into one vector, of which they become views; return the vector."""
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, part in zip(parameters, vector.split([p.numel() for p in parameters])):
        parameter.data = part.view_as(parameter)
    return vector
