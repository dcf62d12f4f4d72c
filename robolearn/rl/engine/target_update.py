"""Target networks: copies that follow the trained weights slowly, so that values do not chase themselves."""

from __future__ import annotations

import torch
from torch import nn

from robolearn.rl.engine.adam import FlatAdam, flatten_


class TargetUpdate:
    """Moves a copy's weights a share of the way to those of the network that it was made from."""

    def __init__(self, target: nn.Module, network: nn.Module, adam: FlatAdam, tau: float) -> None:
        """
        Args:
            target: a copy of `network`; its parameters become views of one vector.
            adam: of the parameters of `network` that are trained; only their twins move.
            tau: the share.
        """
        twins = dict(zip(map(id, network.parameters()), target.parameters(), strict=True))
        self.vector = flatten_([twins[id(p)] for p in adam.parameters])
        self.trained, self.tau = adam.vector, tau

    @torch.no_grad()
    def step(self) -> None:
        self.vector.lerp_(self.trained, self.tau)  # theta' <- theta' + tau (theta - theta')
