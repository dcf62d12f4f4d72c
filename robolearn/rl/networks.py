"""Value networks V and ensembles Q on what a policy sees, through encoders of the same build and statistics."""

from __future__ import annotations

import copy
import itertools
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.algorithms import CriticConfig, QConfig
from robolearn.envs.interface import Observation
from robolearn.errors import PolicyError
from robolearn.policies.encoders import ObservationEncoder, TokenEncoder
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU}


def mlp(sizes: list[int], activation: str, *, layer_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers with dropout and normalisation before each activation (DroQ); none after the last."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(inputs, outputs))
        if i < len(sizes) - 2:
            layers += [nn.Dropout(dropout)] if dropout else []
            layers += [nn.LayerNorm(outputs)] if layer_norm else []
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def orthogonal_init(network: nn.Sequential, *, last_gain: float = 1.0, gain: float = 2.0**0.5) -> None:
    """Draw orthogonal weights and zero the biases: on-policy value networks' usual start (Andrychowicz et al. 2021)."""
    linear = [m for m in network if isinstance(m, nn.Linear)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, last_gain if layer is linear[-1] else gain)
        nn.init.zeros_(layer.bias)


def orthogonal_start(policy: Policy) -> None:
    """Give an actor PPO's usual start: orthogonal hidden layers, and a mode near zero whatever is seen."""
    for module in policy.backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, 2.0**0.5)
            nn.init.zeros_(module.bias)
    policy.head.start_near_zero()


class ValueNetwork(nn.Module):
    """Estimates the value V of an observation window."""

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
        """Return a critic with its own copy of the policy's encoder: same keys, same statistics, its own weights."""
        encoder = copy.deepcopy(policy.encoder)
        return cls(encoder, encoded_size(policy), config)

    def forward(self, obs: Observation) -> Tensor:
        """Return values (B,) of windows (B, To, ...)."""
        return self.network(self.encoder(obs).flatten(1))[:, 0]


class EnsembleLinear(nn.Module):
    """M linear layers at once, with an optional layer normalisation of their own behind each."""

    def __init__(self, members: int, inputs: int, outputs: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))
        self.gain = nn.Parameter(torch.ones(members, 1, outputs)) if layer_norm else None
        self.shift = nn.Parameter(torch.zeros(members, 1, outputs)) if layer_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, inputs) -> (M, B, outputs)."""
        y = torch.baddbmm(self.bias, x, self.weight)
        if self.gain is None or self.shift is None:
            return y
        return F.layer_norm(y.float(), y.shape[-1:]) * self.gain + self.shift


class QEnsemble(nn.Module):
    """M critics of observation windows and action chunks, evaluated together."""

    def __init__(self, encoder: nn.Module, input_size: int, config: QConfig) -> None:
        """
        Args:
            encoder: dict of (B, To, ...) -> (B, To, E).
            input_size: To * E plus the size of a flat action chunk.
        """
        super().__init__()
        self.encoder, self.members = encoder, config.members
        sizes = [input_size, *config.hidden_sizes]
        self.hidden = nn.ModuleList(
            EnsembleLinear(config.members, i, o, layer_norm=config.layer_norm) for i, o in itertools.pairwise(sizes)
        )
        self.last = EnsembleLinear(config.members, sizes[-1], 1)
        self.dropout, self.activation = config.dropout, ACTIVATIONS[config.activation]()

    @classmethod
    def beside(cls, policy: Policy, config: QConfig) -> Self:
        """Return critics with their own copy of the policy's encoder."""
        chunk = policy.config.pred_steps * policy.action_spec.size
        return cls(copy.deepcopy(policy.encoder), encoded_size(policy) + chunk, config)

    def forward(self, obs: Observation, actions: Tensor) -> Tensor:
        """Return values (M, B) of chunks (B, Tp, A) in windows (B, To, ...)."""
        x = torch.cat([self.encoder(obs).flatten(1), actions.flatten(1)], -1).expand(self.members, -1, -1)
        for layer in self.hidden:
            x = layer(x)
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            x = self.activation(x)
        # Beyond 256 bfloat16 knows every second number only, and values of hundreds differ by less.
        with torch.autocast(x.device.type, enabled=False):
            return self.last(x.float())[..., 0]


class ExecutedActionValues(QEnsemble):
    """Critics of what a corrected action comes to, whoever proposed it: they do not see the base's action, and value
    what lies beyond [-1, 1] as the limit that is executed. So demonstrations and practice are of one kind."""

    @classmethod
    def beside(cls, policy: Policy, config: QConfig) -> Self:
        """Return critics with their own copy of a correction's encoder, the base's action left out."""
        encoder = copy.deepcopy(policy.encoder)
        assert isinstance(encoder, ObservationEncoder)
        if isinstance(encoder, TokenEncoder):
            raise PolicyError(
                "critics of corrections see no tokens of pictures; give the correction policy.vision.tokens 0, or "
                "learn it by residual_ppo"
            )
        pairs = zip(encoder.keys, encoder.encoders.values())
        seen = ObservationEncoder({key: module for key, module in pairs if key != BASE_ACTION})
        return cls(seen, policy.config.obs_steps * seen.output_size + policy.action_spec.size, config)

    def forward(self, obs: Observation, actions: Tensor) -> Tensor:
        """Return values (M, B) of actions (B, 1, A) in windows (B, 1, ...)."""
        return super().forward(obs, actions.clamp(-1.0, 1.0))


class ExecutedChunkValues(QEnsemble):
    """Critics of the steps of a chunk that are executed: what else was planned changes nothing."""

    exec_steps: int

    @classmethod
    def beside(cls, policy: Policy, config: QConfig) -> Self:
        """Return critics with their own copy of the policy's encoder."""
        executed = policy.config.exec_steps * policy.action_spec.size
        critic = cls(copy.deepcopy(policy.encoder), encoded_size(policy) + executed, config)
        critic.exec_steps = policy.config.exec_steps
        return critic

    def forward(self, obs: Observation, actions: Tensor) -> Tensor:
        """Return values (M, B) of chunks (B, Tp, A) in windows (B, To, ...)."""
        return super().forward(obs, actions[:, : self.exec_steps])


@torch.no_grad()
def encoded_size(policy: Policy) -> int:
    """Return To * E, the number of features that the policy's encoder makes of one window."""
    device = next(policy.parameters()).device
    window = {
        key: torch.zeros(1, policy.config.obs_steps, *spec.shape, dtype=getattr(torch, spec.dtype), device=device)
        for key, spec in policy.observation_spec.items()
    }
    return policy.encoder(window).flatten(1).shape[1]
