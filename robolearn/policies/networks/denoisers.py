"""Networks that diffusion and flow heads share: the transformer denoiser, and the choice between it and the U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.policies.config import DenoiserConfig, DenoisingTransformerConfig, UNetConfig
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


Denoiser = UNet1d | TransformerDenoiser


def build_denoiser(config: DenoiserConfig, *, feature_size: int, action_size: int, pred_steps: int) -> Denoiser:
    """The network that `config` describes."""
    if isinstance(config, UNetConfig):
        return UNet1d(config, feature_size=feature_size, action_size=action_size)
    return TransformerDenoiser(config, feature_size=feature_size, action_size=action_size, pred_steps=pred_steps)
