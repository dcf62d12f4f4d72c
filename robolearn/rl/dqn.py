"""Double deep Q-learning (van Hasselt et al. 2016) for discrete actions, on the same replay as SAC.

y = r + gamma^n Q'(s', argmax_a Q(s', a))
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.algorithms import DQNConfig
from robolearn.configuration.policy import PolicyConfig
from robolearn.envs.interface import Observation
from robolearn.policies.build import build_encoder
from robolearn.policies.encoders import ObservationEncoder
from robolearn.rl.engine.adam import FlatAdam, flatten_
from robolearn.rl.engine.compiled import Gradients, compiled
from robolearn.rl.networks import mlp
from robolearn.rl.replay_buffer import ReplayBatch
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
        """(B, To, ...) -> (B, actions)."""
        return self.network(self.encoder(obs).flatten(1))


class ValueLoss(nn.Module):
    """Error of the values of the actions taken."""

    def __init__(self, values: ActionValues, config: DQNConfig) -> None:
        super().__init__()
        self.values, self.config = values, config

    def forward(self, batch: ReplayBatch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        taken = self.values(batch.obs).gather(1, batch.actions)[:, 0]
        loss = F.smooth_l1_loss(taken, target) if self.config.huber else 0.5 * F.mse_loss(taken, target)
        return loss, {"critic_loss": loss.detach(), "value": taken.detach().mean()}


class DQN:
    """Updates action values; an algorithm of the training loop."""

    def __init__(self, values: ActionValues, config: DQNConfig, *, seed: int = 0) -> None:
        self.values, self.config = values.train(), config
        distributed.broadcast_(values)
        self.target = copy.deepcopy(values).requires_grad_(False)
        parameters = list(values.parameters())
        self.device = parameters[0].device
        self.adam = FlatAdam(
            parameters,
            learning_rate=config.critic_learning_rate or config.learning_rate,
            max_grad_norm=config.max_grad_norm,
        )
        self.target_vector = flatten_(list(self.target.parameters()))
        self._gradients = Gradients(ValueLoss(values, config), self.adam)
        self._step = compiled(self._eager_step) if config.compile else self._eager_step
        self.updates = self.decisions = 0

    def update(self, batch: list[ReplayBatch]) -> dict[str, Tensor]:
        """One gradient step for each batch."""
        metrics: dict[str, Tensor] = {}
        for part in batch:
            self.updates += 1
            metrics |= self._step(part)
        return metrics

    @property
    def actor(self) -> ActionValues:
        return self.values

    @torch.no_grad()
    def act(
        self, window: Observation, generator: torch.Generator | None = None, actor: ActionValues | None = None
    ) -> Tensor:
        """(N, To, ...) -> (N, 1) int64, greedy but for a share epsilon of random ones."""
        greedy = (actor or self.values)(window).argmax(-1)
        start, end = self.config.epsilon
        epsilon = start + (end - start) * min(1.0, self.decisions / self.config.epsilon_steps)
        self.decisions += len(greedy) * distributed.world_size()
        random = torch.randint(self.values.num_actions, greedy.shape, generator=generator, device=self.device)
        explore = torch.rand(greedy.shape, generator=generator, device=self.device) < epsilon
        return torch.where(explore, random, greedy)[:, None]

    def state_dict(self) -> dict[str, Any]:
        modules = {name: getattr(self, name).state_dict() for name in ("values", "target", "adam")}
        return {**modules, "updates": self.updates, "decisions": self.decisions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("values", "target", "adam"):
            getattr(self, name).load_state_dict(state[name])
        self.updates, self.decisions = int(state["updates"]), int(state["decisions"])

    def _eager_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.targets(batch)
        gradients, metrics = self._gradients(batch, target)
        metrics["grad_norm"] = self.adam.step(gradients)
        with torch.no_grad():
            self.target_vector.lerp_(self.adam.vector, self.config.tau)
        return metrics

    def targets(self, batch: ReplayBatch) -> Tensor:
        """(B,) what the values of the actions taken are drawn to."""
        beyond = self.target(batch.next_obs)
        chooser = self.values(batch.next_obs) if self.config.double else beyond
        value = beyond.gather(1, chooser.argmax(-1, keepdim=True))[:, 0]
        return batch.rewards + batch.discounts * value
