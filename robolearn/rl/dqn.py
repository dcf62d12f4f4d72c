"""Double deep Q-learning (van Hasselt et al. 2016) for discrete actions, on the same replay as SAC.

y = r + gamma^n Q'(s', argmax_a Q(s', a))          Q(s, a) -> y
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.algorithms import DQNConfig
from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.envs.interface import Observation
from robolearn.policies.build import build_encoder
from robolearn.policies.encoders import ObservationEncoder
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.engine.target_update import TargetUpdate
from robolearn.rl.networks import mlp
from robolearn.rl.off_policy import OffPolicyAlgorithm
from robolearn.specs import ObservationSpec
from robolearn.training import distributed


class ActionValues(nn.Module):
    """Q of every action."""

    def __init__(self, spec: ObservationSpec, obs_steps: int, num_actions: int, config: DQNConfig) -> None:
        super().__init__()
        plain = PolicyConfig(obs_steps=obs_steps, obs_normalisation="none")
        self.encoder = ObservationEncoder({key: build_encoder(key, spec[key], plain, None) for key in spec})
        self.num_actions = num_actions
        sizes = [obs_steps * self.encoder.output_size, *config.critic.hidden_sizes, num_actions]
        self.network = mlp(
            sizes, config.critic.activation, layer_norm=config.critic.layer_norm, dropout=config.critic.dropout
        )

    def forward(self, obs: Observation) -> Tensor:
        """Return the value of every action, (B, To, ...) -> (B, actions)."""
        return self.network(self.encoder(obs).flatten(1))


class ValueLoss(nn.Module):
    """Error of the values of the actions taken."""

    def __init__(self, values: ActionValues, config: DQNConfig) -> None:
        super().__init__()
        self.values, self.config = values, config

    def forward(self, batch: ReplayBatch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and metrics.

        Args:
            target: (B,) y.
        """
        taken = self.values(batch.obs).gather(1, batch.actions)[:, 0]  # (B, actions) -> (B,) Q(s, a)
        # E[(Q - y)^2] / 2, or Huber's loss, linear beyond an error of one
        loss = F.smooth_l1_loss(taken, target) if self.config.huber else 0.5 * F.mse_loss(taken, target)
        return loss, {"critic_loss": loss.detach(), "value": taken.detach().mean()}


class DQN(OffPolicyAlgorithm[DQNConfig]):
    """Updates action values; an algorithm of the training loop."""

    def __init__(self, values: ActionValues, config: DQNConfig, *, seed: int = 0) -> None:
        """
        Args:
            seed: as for every algorithm; an update of this one draws nothing.
        """
        super().__init__(config, next(values.parameters()).device)
        self.values = values.train()
        distributed.broadcast_(values)
        self.target = copy.deepcopy(values).requires_grad_(False)
        self.optimiser = LossOptimiser(
            ValueLoss(values, config),
            trainable(values),
            learning_rate=config.critic_learning_rate or config.learning_rate,
            max_grad_norm=config.max_grad_norm,
        )
        self.target_update = TargetUpdate(self.target, values, self.optimiser.adam, config.tau)
        self.parts = {"values": values, "target": self.target, "optimiser": self.optimiser}
        self.decisions = 0

    def critic_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.targets(batch)
        metrics = self.optimiser.step(batch, target)
        self.target_update.step()
        return metrics

    def targets(self, batch: ReplayBatch) -> Tensor:
        """Return y, (B,)."""
        beyond = self.target(batch.next_obs)  # (B, actions) Q'(s', .)
        chooser = self.values(batch.next_obs) if self.config.double else beyond
        value = beyond.gather(1, chooser.argmax(-1, keepdim=True))[:, 0]  # (B,) Q'(s', argmax_a Q(s', a))
        return batch.rewards + batch.discounts * value  # r + gamma^n Q'

    @property
    def network(self) -> ActionValues:
        """The values, which decide while data is collected."""
        return self.values

    @torch.no_grad()
    def explore(
        self, window: Observation, generator: torch.Generator | None = None, network: ActionValues | None = None
    ) -> Tensor:
        """Return actions for windows (N, To, ...), (N, 1) int64: greedy but for a share epsilon of random ones."""
        greedy = (network or self.values)(window).argmax(-1)  # (N,)
        start, end = self.config.epsilon
        epsilon = start + (end - start) * min(1.0, self.decisions / self.config.epsilon_steps)
        self.decisions += len(greedy) * distributed.world_size()
        random = torch.randint(self.values.num_actions, greedy.shape, generator=generator, device=self.device)
        explore = torch.rand(greedy.shape, generator=generator, device=self.device) < epsilon
        return torch.where(explore, random, greedy)[:, None]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "decisions": self.decisions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.decisions = int(state["decisions"])
