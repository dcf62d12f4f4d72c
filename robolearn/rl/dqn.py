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
from robolearn.envs.interface import Observation
from robolearn.errors import PolicyError
from robolearn.policies.heads.action_values import ActionValuesHead
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.engine.target_update import TargetUpdate
from robolearn.rl.off_policy import OffPolicyAlgorithm
from robolearn.training import distributed


def values_of(policy: Policy, obs: Observation) -> Tensor:
    """Return Q of every action, (B, actions), given windows (B, To, ...)."""
    assert isinstance(policy.head, ActionValuesHead), "DQN checks its policy when it is made"
    return policy.head.values(policy.features(obs))


class ValueLoss(nn.Module):
    """Error of the values of the actions taken."""

    def __init__(self, policy: Policy, config: DQNConfig) -> None:
        super().__init__()
        self.policy, self.config = policy, config

    def forward(self, batch: ReplayBatch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and metrics.

        Args:
            target: (B,) y.
        """
        taken = values_of(self.policy, batch.obs).gather(1, batch.actions)[:, 0]  # (B, actions) -> (B,) Q(s, a)
        # E[(Q - y)^2] / 2, or Huber's loss, linear beyond an error of one
        loss = F.smooth_l1_loss(taken, target) if self.config.huber else 0.5 * F.mse_loss(taken, target)
        return loss, {"critic_loss": loss.detach(), "value": taken.detach().mean()}


class DQN(OffPolicyAlgorithm[DQNConfig]):
    """Updates a policy that acts by values of its actions; an algorithm of the training loop."""

    def __init__(self, policy: Policy, config: DQNConfig, *, seed: int = 0) -> None:
        """
        Args:
            seed: as for every algorithm; an update of this one draws nothing.

        Raises PolicyError where the policy's head is of another kind.
        """
        if not isinstance(policy.head, ActionValuesHead):
            raise PolicyError(f"DQN learns values of actions: policy.head values; received {policy.config.head.name}")
        super().__init__(config, next(policy.parameters()).device)
        self.policy = policy.train()
        distributed.broadcast_(policy)
        self.target = copy.deepcopy(policy).requires_grad_(False)
        self.optimiser = LossOptimiser(
            ValueLoss(policy, config),
            trainable(policy),
            learning_rate=config.critic_learning_rate or config.learning_rate,
            max_grad_norm=config.max_grad_norm,
        )
        self.target_update = TargetUpdate(self.target, policy, self.optimiser.adam, config.tau)
        self.parts = {"policy": policy, "target": self.target, "optimiser": self.optimiser}
        self.decisions = 0

    def critic_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.targets(batch)
        metrics = self.optimiser.step(batch, target)
        self.target_update.step()
        return metrics

    def targets(self, batch: ReplayBatch) -> Tensor:
        """Return y, (B,)."""
        beyond = values_of(self.target, batch.next_obs)  # (B, actions) Q'(s', .)
        chooser = values_of(self.policy, batch.next_obs) if self.config.double else beyond
        value = beyond.gather(1, chooser.argmax(-1, keepdim=True))[:, 0]  # (B,) Q'(s', argmax_a Q(s', a))
        return batch.rewards + batch.discounts * value  # r + gamma^n Q'

    @property
    def network(self) -> Policy:
        """The policy, which decides while data is collected."""
        return self.policy

    @torch.no_grad()
    def explore(
        self, window: Observation, generator: torch.Generator | None = None, network: Policy | None = None
    ) -> Tensor:
        """Return actions for windows (N, To, ...), (N, 1) int64: greedy but for a share epsilon of random ones."""
        values = values_of(network or self.policy, window)  # (N, actions)
        greedy = values.argmax(-1)  # (N,)
        start, end = self.config.epsilon
        epsilon = start + (end - start) * min(1.0, self.decisions / self.config.epsilon_steps)
        self.decisions += len(greedy) * distributed.world_size()
        random = torch.randint(values.shape[1], greedy.shape, generator=generator, device=self.device)
        explore = torch.rand(greedy.shape, generator=generator, device=self.device) < epsilon
        return torch.where(explore, random, greedy)[:, None]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "decisions": self.decisions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.decisions = int(state["decisions"])
