"""Flow-matching head: a velocity field carries noise to action chunks along straight lines (Lipman et al. 2023).

x_t = (1 - t) * noise + t * actions,   velocity target = actions - noise,   t from 0 to 1
"""

from __future__ import annotations

import torch
from torch import Tensor

from robolearn.configuration.parts.policy import FlowHeadConfig
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.heads.head import mean_over_steps

TIME_SCALE = 100.0
"""Flow times are shown to the network on the scale of diffusion's noise levels."""


class FlowHead(ChainHead):
    """Integrates the velocity in `config.inference_steps` steps."""

    def __init__(self, config: FlowHeadConfig, *, feature_size: int, pred_steps: int, action_size: int) -> None:
        sizes = {"feature_size": feature_size, "pred_steps": pred_steps, "action_size": action_size}
        super().__init__(config.network, early_steps=config.early_steps, **sizes)
        self.config = config
        self.stds = (0.0,) * config.inference_steps
        evaluations = config.inference_steps * (2 if config.solver == "midpoint" else 1)
        self.register_buffer("times", TIME_SCALE * torch.arange(evaluations) / evaluations, persistent=False)

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        actions = torch.where(valid.unsqueeze(-1), actions, 0.0)
        time = torch.rand(len(actions), device=actions.device)
        if self.config.time_sampling == "beta":
            # 1 - t is the 1.5th root of a uniform: Beta(1.5, 1), most often near the noisy end (Black et al. 2024).
            time = 1.0 - time ** (1 / 1.5)
        noise = torch.randn_like(actions)
        t = time.view(-1, 1, 1)
        early = time < self.early_steps / self.chain_steps
        velocity = self._predict((1 - t) * noise + t * actions, TIME_SCALE * time, early, features)
        losses = mean_over_steps((velocity - (actions - noise)).square().mean(-1), valid)
        return losses, {"velocity_error": losses.mean().detach()}

    def _means(self, x: Tensor, k: int, conditions: Tensor, memory: dict[str, Tensor]) -> Tensor:
        network = self._network(k)
        if self.config.solver == "midpoint":
            halfway = x + network(x, conditions[2 * k]) * (0.5 / self.chain_steps)
            return x + network(halfway, conditions[2 * k + 1]) / self.chain_steps
        return x + network(x, conditions[k]) / self.chain_steps

    def _transition_mean(self, features: Tensor, x: Tensor, step: Tensor) -> Tensor:
        if self.config.solver == "midpoint":
            first, second = (self.network.condition(self.times[2 * step + i], features) for i in (0, 1))
            halfway = x + self.network(x, first) * (0.5 / self.chain_steps)
            return x + self.network(halfway, second) / self.chain_steps
        return x + self.network(x, self.network.condition(self.times[step], features)) / self.chain_steps
