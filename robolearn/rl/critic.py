"""Value networks on the observations that a policy sees, through encoders of the same build and statistics."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn

from robolearn.envs.base import Observation
from robolearn.policies.policy import Policy
from robolearn.rl.config import CriticConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU}


def mlp(sizes: list[int], activation: str, *, layer_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Fully connected layers, linear at the end; normalisation and dropout come before each activation (DroQ)."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(inputs, outputs))
        if i < len(sizes) - 2:
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [nn.LayerNorm(outputs)] if layer_norm else []
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def orthogonal_init(network: nn.Sequential, *, last_gain: float = 1.0, gain: float = 2.0**0.5) -> None:
    """Orthogonal weights and zero biases, the usual start of on-policy value networks (Andrychowicz et al. 2021)."""
    linear = [m for m in network if isinstance(m, nn.Linear)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, last_gain if layer is linear[-1] else gain)
        nn.init.zeros_(layer.bias)


class ValueNetwork(nn.Module):
    """V of an observation window."""

    def __init__(self, encoder: nn.Module, input_size: int, config: CriticConfig) -> None:
        """
        Args:
            encoder: dict of (B, To, ...) -> (B, To, E), normalising its inputs itself.
            input_size: To * E.
        """
        super().__init__()
        self.encoder = encoder
        self.network = mlp([input_size, *config.hidden_sizes, 1], config.activation, layer_norm=config.layer_norm)
        orthogonal_init(self.network)

    @classmethod
    def beside(cls, policy: Policy, config: CriticConfig) -> ValueNetwork:
        """A critic with its own copy of the policy's encoder: same keys, same statistics, its own weights."""
        encoder = copy.deepcopy(policy.encoder)
        return cls(encoder, encoded_size(policy), config)

    def forward(self, obs: Observation) -> Tensor:
        """(B, To, ...) -> (B,)."""
        return self.network(self.encoder(obs).flatten(1))[:, 0]


@torch.no_grad()
def encoded_size(policy: Policy) -> int:
    """To * E: what the policy's encoder makes of one window."""
    device = next(policy.parameters()).device
    window = {
        key: torch.zeros(1, policy.config.obs_steps, *spec.shape, dtype=getattr(torch, spec.dtype), device=device)
        for key, spec in policy.observation_spec.items()
    }
    return policy.encoder(window).flatten(1).shape[1]
