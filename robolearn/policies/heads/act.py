"""ACT head (Zhao et al. 2023): a conditional variational auto-encoder of transformers over whole chunks.

    training    z ~ q(z | features, actions), the style; chunk = decoder(z, features)
                loss = |error| + weight * KL(q || N(0, 1))
    acting      z = 0, or a draw from N(0, 1)

Temporal ensembling belongs to the runner (`PolicyRunner(temporal_ensemble=0.01)`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.policy import ACTHeadConfig
from robolearn.policies.heads.head import Head, mean_over_steps
from robolearn.policies.networks.transformer import TransformerBlock
from robolearn.policies.noise import Noise


class ACTHead(Head):
    """Predicts the whole chunk in one pass, given features and a style variable."""

    def __init__(self, config: ACTHeadConfig, *, feature_size: int, pred_steps: int, action_size: int) -> None:
        super().__init__()
        self.config, self.pred_steps = config, pred_steps
        width = config.width
        self.style_features = nn.Linear(feature_size, width)
        self.style_actions = nn.Linear(action_size, width)
        self.style_query = nn.Parameter(0.02 * torch.randn(width))
        self.style_position = nn.Parameter(0.02 * torch.randn(pred_steps, width))
        self.style_encoder = _blocks(config, config.encoder_layers)
        self.style_out = nn.Linear(width, 2 * config.latent_size)

        self.latent = nn.Linear(config.latent_size, width)
        self.features = nn.Linear(feature_size, width)
        self.kinds = nn.Parameter(0.02 * torch.randn(2, width))
        self.encoder = _blocks(config, config.encoder_layers)
        self.encoder_norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(0.02 * torch.randn(pred_steps, width))
        self.decoder = _blocks(config, config.decoder_layers, cross_attention=True)
        self.decoder_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, action_size)

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        actions = torch.where(valid.unsqueeze(-1), actions, 0.0)
        mean, log_variance = self._style(features, actions, valid)
        latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = (self._decode(features, latent) - actions).abs().mean(-1)
        l1 = mean_over_steps(error, valid)
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(-1)
        return l1 + self.config.kl_weight * kl, {"l1": l1.mean().detach(), "kl": kl.mean().detach()}

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        size = self.config.latent_size
        latent = features.new_zeros(len(features), size) if deterministic else noise.normal(size)
        return self._decode(features, latent)

    def _style(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, latent_size) of q(z | features, actions)."""
        B = len(features)
        x = torch.cat(
            [
                self.style_query.expand(B, 1, -1),
                self.style_features(features).unsqueeze(1),
                self.style_actions(actions) + self.style_position,
            ],
            1,
        )
        keep = torch.cat([valid.new_ones(B, 2), valid], 1)
        for block in self.style_encoder:
            x = block(x, keep=keep)
        mean, log_variance = self.style_out(x[:, 0]).chunk(2, -1)
        return mean, log_variance

    def _decode(self, features: Tensor, latent: Tensor) -> Tensor:
        """Return chunks (B, Tp, A) given features (B, D) and styles (B, latent_size)."""
        memory = torch.stack([self.latent(latent), self.features(features)], 1) + self.kinds
        for block in self.encoder:
            memory = block(memory)
        memory = self.encoder_norm(memory)
        x = self.queries.expand(len(features), -1, -1)
        for block in self.decoder:
            x = block(x, memory=memory)
        return self.out(self.decoder_norm(x))


def _blocks(config: ACTHeadConfig, count: int, *, cross_attention: bool = False) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerBlock(config.width, config.num_heads, dropout=config.dropout, cross_attention=cross_attention)
        for _ in range(count)
    )
