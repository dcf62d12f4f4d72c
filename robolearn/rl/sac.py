"""Soft actor-critic (Haarnoja et al. 2018): values with entropy, a reparameterised actor, a learned temperature.

    y     = r + gamma^n (min_i Q'_i(s', a') - alpha log pi(a'|s')),  a' ~ pi(s')
    Q_i  -> y          pi -> max E[min_i Q_i(s, a) - alpha log pi(a|s)]          alpha: entropy -> its target

The actor's gradient passes through the critics without computing theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.envs.interface import Observation
from robolearn.policies.noise import BatchNoise, Noise
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.engine.adam import FlatAdam
from robolearn.rl.engine.compiling import compiled
from robolearn.rl.engine.loss_optimiser import trainable
from robolearn.rl.networks import QEnsemble
from robolearn.rl.off_policy import ActorCritic
from robolearn.training.precision import autocast


class ActorLoss(nn.Module):
    """Temperature times log-probability minus value, of fresh samples."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: SACConfig) -> None:
        super().__init__()
        self.policy, self.critic, self.config = policy, critic, config

    def forward(self, batch: ReplayBatch, alpha: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss, and metrics with the mean log-probability, which the temperature follows.

        Args:
            alpha: (1,) the temperature.
        """
        with autocast(alpha.device, self.config.bf16):
            actions, log_probs = self.policy.distribution(batch.obs).sample_with_log_prob(noise)  # a ~ pi(s)
            values = self.critic(batch.obs, actions)  # (M, B) Q_i(s, a)
        value = values.amin(0) if self.config.actor_value == "min" else values.mean(0)  # (B,)
        loss = (alpha * log_probs - value).mean()  # E[alpha log pi(a|s) - min_i Q_i(s, a)]
        return loss, {"actor_loss": loss.detach(), "log_prob": log_probs.detach().mean()}


class SAC(ActorCritic[SACConfig]):
    """Updates a policy with a reparameterised head and an ensemble of critics; an algorithm of the training loop."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: SACConfig, *, seed: int = 0) -> None:
        loss = self.make_actor_loss(policy, critic, config)
        super().__init__(policy, critic, config, actor_loss=loss, actor_parameters=trainable(policy), seed=seed)
        self.log_alpha = nn.Parameter(torch.tensor([config.temperature], device=self.device).log())
        self.alpha_adam = FlatAdam([self.log_alpha], learning_rate=config.learning_rate)
        self.parts["alpha_adam"] = self.alpha_adam
        size = policy.config.pred_steps * policy.action_spec.size
        self.target_entropy = float(-size if config.target_entropy is None else config.target_entropy)
        # Beside an update a copy of the policy acts, which a graph made for this one would not look at.
        self._sample = compiled(self._eager_sample) if config.compile and not config.overlap else None

    def make_actor_loss(self, policy: Policy, critic: QEnsemble, config: SACConfig) -> ActorLoss:
        """Return the loss that the actor minimises."""
        return ActorLoss(policy, critic, config)

    def critic_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.targets(batch, self.log_alpha.detach().exp(), self._noise(batch))
        metrics = self.critic_optimiser.step(batch, target)
        self.target_update.step()
        return metrics

    def actor_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        alpha = self.log_alpha.detach().exp()  # (1,)
        metrics = self.actor_optimiser.step(batch, alpha, self._noise(batch))
        if self.config.learn_temperature:
            # d/d log(alpha) of -log(alpha) (log pi + target entropy), as in the authors' code
            self.alpha_adam.step([-(metrics["log_prob"] + self.target_entropy)[None]])
        return metrics | {"alpha": alpha[0]}

    def draw(self, obs: Observation, noise: Noise, network: Policy) -> tuple[Tensor, Tensor]:
        """Return chunks (B, Tp, A) that the policy, or a copy of it, would execute, and log-probabilities (B,)."""
        return network.distribution(obs).sample_with_log_prob(noise)

    def targets(self, batch: ReplayBatch, alpha: Tensor, noise: Noise) -> Tensor:
        """Return y, (B,); alpha is (1,)."""
        with autocast(self.device, self.config.bf16):
            actions, log_probs = self.draw(batch.next_obs, noise, self.policy)  # a' ~ pi(s')
            values = self.target_value(batch.next_obs, actions)  # (B,) min_i Q'_i(s', a')
        if self.config.entropy_backup:
            values = values - alpha * log_probs
        return batch.rewards + batch.discounts * values  # r + gamma^n (min_i Q'_i - alpha log pi)

    @torch.no_grad()
    def explore(
        self, window: Observation, generator: torch.Generator | None = None, network: Policy | None = None
    ) -> Tensor:
        """Sample chunks (N, Tp, A) for windows (N, To, ...); where this is compiled, from torch's global generator."""
        if self._sample is not None:
            return self._sample(window)
        return self._eager_sample(window, generator, network)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "log_alpha": self.log_alpha.detach().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.log_alpha.data.copy_(state["log_alpha"])

    def _eager_sample(
        self, window: Observation, generator: torch.Generator | None = None, network: Policy | None = None
    ) -> Tensor:
        rows = len(next(iter(window.values())))
        return self.draw(window, BatchNoise(rows, self.device, generator), network or self.policy)[0]

    def _noise(self, batch: ReplayBatch) -> BatchNoise:
        return BatchNoise(len(batch.rewards), self.device, self.generator)
