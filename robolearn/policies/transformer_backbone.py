"""Causal transformer over the observation history: pi(a | o_{t-m..t}), trained on every step of the window at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.policy import TransformerConfig
from robolearn.policies.networks.transformer import TransformerBlock


class TransformerBackbone(nn.Module):
    """(B, To, E), or N tokens a step, (B, To, N, E) -> (B, To, D), causal: step i sees steps 0..i.

    Several tokens look at each other, and at those of earlier steps, before a step's are averaged.
    """

    def __init__(self, config: TransformerConfig, *, obs_steps: int, input_size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(input_size, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(obs_steps, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, dropout=config.dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.output_size = config.width

    def forward(self, features: Tensor) -> Tensor:
        x = features if features.ndim == 4 else features.unsqueeze(2)
        To, N = x.shape[1:3]
        x = self.dropout((self.embed(x) + self.position.unsqueeze(1)).flatten(1, 2))
        for block in self.blocks:
            x = block(x, causal=True, together=N)
        return self.norm(x).unflatten(1, (To, N)).mean(2)
