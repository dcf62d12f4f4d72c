"""Networks that diffusion and flow heads share: transformer and MLP denoisers, and the choice of one by its config."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import (
    DenoiserConfig,
    DenoisingMLPConfig,
    DenoisingTransformerConfig,
    UNetConfig,
)
from robolearn.policies.networks.time import TimeEmbedding
from robolearn.policies.networks.transformer import ModulatedBlock
from robolearn.policies.networks.unet1d import UNet1d


class TransformerDenoiser(nn.Module):
    """Every step of the chunk is a token that sees all others; (B, Tp, A) and a condition (B, C) -> (B, Tp, A)."""

    def __init__(
        self, config: DenoisingTransformerConfig, *, feature_size: int, action_size: int, pred_steps: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(action_size, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(pred_steps, config.width))
        self.time = TimeEmbedding(config.width)
        self.features = nn.Linear(feature_size, config.width)
        self.blocks = nn.ModuleList(
            ModulatedBlock(config.width, config.num_heads, dropout=config.dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, action_size)

    def condition(self, time: Tensor, features: Tensor) -> Tensor:
        """Noise levels (M,) and features (M, D) -> (M, C): all blocks' modulations side by side."""
        mixed = F.silu(self.time(time) + self.features(features))
        return torch.cat([block.modulation(mixed) for block in self.blocks], -1)  # type: ignore[operator]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        for block, modulation in zip(self.blocks, condition.chunk(len(self.blocks), -1)):
            x = block(x, modulation)
        return self.out(self.norm(x))


class MLPDenoiser(nn.Module):
    """Residual layers over the chunk as one vector; (B, Tp, A) and a condition (B, C) -> (B, Tp, A)."""

    def __init__(self, config: DenoisingMLPConfig, *, feature_size: int, action_size: int, pred_steps: int) -> None:
        super().__init__()
        self.time = TimeEmbedding(config.time_size)
        self.embed = nn.Linear(pred_steps * action_size, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.num_blocks + 1))
        self.first = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.num_blocks))
        self.second = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.num_blocks))
        self.film = nn.Linear(config.time_size + feature_size, 2 * config.width * config.num_blocks)
        self.out = nn.Linear(config.width, pred_steps * action_size)

    def condition(self, time: Tensor, features: Tensor) -> Tensor:
        """Noise levels (M,) and features (M, D) -> (M, C): every block's scales and shifts."""
        return self.film(F.silu(torch.cat([self.time(time), features], -1)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.embed(x.flatten(1))
        films = condition.chunk(len(self.first), -1)
        for norm, first, second, film in zip(self.norms, self.first, self.second, films):
            scale, shift = film.chunk(2, -1)
            h = h + second(F.silu(first(norm(h)) * (1 + scale) + shift))
        return self.out(self.norms[-1](h)).view_as(x)


Denoiser = UNet1d | TransformerDenoiser | MLPDenoiser


def build_denoiser(config: DenoiserConfig, *, feature_size: int, action_size: int, pred_steps: int) -> Denoiser:
    """The network that `config` describes."""
    if isinstance(config, UNetConfig):
        return UNet1d(config, feature_size=feature_size, action_size=action_size)
    kind = MLPDenoiser if isinstance(config, DenoisingMLPConfig) else TransformerDenoiser
    return kind(config, feature_size=feature_size, action_size=action_size, pred_steps=pred_steps)  # type: ignore[arg-type]
