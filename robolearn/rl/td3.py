"""Twin delayed deterministic policy gradient (Fujimoto et al. 2018), on SAC's parts.

    y    = r + gamma^n min_i Q'_i(s', pi'(s') + clipped noise)
    Q_i -> y          pi -> max E[Q_1(s, pi(s))], every second update

The deterministic policy is the mode of a tanh-Gaussian, so that the same policy object serves SAC, TD3 and PPO.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.configuration.algorithms import TD3Config
from robolearn.policies.policy import Policy
from robolearn.rl.engine.adam import FlatAdam, flatten_
from robolearn.rl.engine.compiled import Gradients, compiled
from robolearn.rl.networks import QEnsemble
from robolearn.rl.replay_buffer import ReplayBatch
from robolearn.rl.sac import CriticLoss, autocast, check_reparameterised, least_of_subset
from robolearn.training import distributed


class ModeLoss(nn.Module):
    """Minus the first critic's value of the policy's mode."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: TD3Config) -> None:
        super().__init__()
        self.policy, self.critic, self.config = policy, critic, config

    def forward(self, batch: ReplayBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(batch.rewards.device, self.config):
            values = self.critic(batch.obs, self.policy.distribution(batch.obs).mode())
        loss = -values[0].mean()
        return loss, {"actor_loss": loss.detach()}


class TD3:
    """Updates the mode of a policy and an ensemble of critics; an algorithm of the training loop."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: TD3Config, *, seed: int = 0) -> None:
        check_reparameterised(policy, "TD3")
        self.policy, self.critic, self.config = policy.eval(), critic.train(), config
        distributed.broadcast_(policy, critic)
        self.target_policy = copy.deepcopy(policy).requires_grad_(False)
        self.target = copy.deepcopy(critic).requires_grad_(False)
        self.device = next(policy.parameters()).device
        self.generator = (
            None if config.compile else torch.Generator(self.device).manual_seed(distributed.own_seed(seed))
        )
        # The deviation has no part in the mode and no gradient.
        actor = [p for name, p in policy.named_parameters() if "raw_std" not in name and p.requires_grad]
        critics = [p for p in critic.parameters() if p.requires_grad]
        rate, limit = config.learning_rate, config.max_grad_norm
        self.actor_adam = FlatAdam(actor, learning_rate=rate, max_grad_norm=limit)
        self.critic_adam = FlatAdam(critics, learning_rate=config.critic_learning_rate or rate, max_grad_norm=limit)
        self.target_vector = flatten_(list(self.target.parameters()))
        names = [name for name, _ in policy.named_parameters() if "raw_std" not in name]
        self.target_policy_vector = flatten_([dict(self.target_policy.named_parameters())[name] for name in names])
        self._critic_gradients = Gradients(CriticLoss(critic, config), self.critic_adam)
        self._actor_gradients = Gradients(ModeLoss(policy, critic, config), self.actor_adam)
        self._step = compiled(self._eager_step) if config.compile else self._eager_step
        self.updates = 0

    def update(self, batch: list[ReplayBatch]) -> dict[str, Tensor]:
        """One gradient step of the critics for each batch, one of the actor for every `policy_delay` of them."""
        metrics: dict[str, Tensor] = {}
        for part in batch:
            self.updates += 1
            metrics |= self._step(part, self.updates % self.config.policy_delay == 0)
        return metrics

    @property
    def actor(self) -> Policy:
        return self.policy

    @torch.no_grad()
    def act(
        self, window: dict[str, Tensor], generator: torch.Generator | None = None, actor: Policy | None = None
    ) -> Tensor:
        """(N, To, ...) -> the mode with exploration noise, (N, Tp, A) in [-1, 1]."""
        mode = (actor or self.policy).distribution(window).mode()
        noise = torch.randn(mode.shape, generator=generator, device=self.device)
        return (mode + self.config.exploration_std * noise).clamp(-1.0, 1.0)

    def state_dict(self) -> dict[str, Any]:
        names = ("policy", "target_policy", "critic", "target", "actor_adam", "critic_adam")
        return {**{name: getattr(self, name).state_dict() for name in names}, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("policy", "target_policy", "critic", "target", "actor_adam", "critic_adam"):
            getattr(self, name).load_state_dict(state[name])
        self.updates = int(state["updates"])

    def rank_state_dict(self) -> dict[str, Any]:
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def _eager_step(self, batch: ReplayBatch, update_actor: bool) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.targets(batch)
        gradients, metrics = self._critic_gradients(batch, target)
        metrics["critic_grad_norm"] = self.critic_adam.step(gradients)
        if update_actor:
            gradients, actor_metrics = self._actor_gradients(batch)
            metrics["grad_norm"] = self.actor_adam.step(gradients)
            metrics |= actor_metrics
            with torch.no_grad():
                self.target_vector.lerp_(self.critic_adam.vector, self.config.tau)
                self.target_policy_vector.lerp_(self.actor_adam.vector, self.config.tau)
        return metrics

    def targets(self, batch: ReplayBatch) -> Tensor:
        """(B,) what the critics are drawn to."""
        config = self.config
        with autocast(self.device, config):
            mode = self.target_policy.distribution(batch.next_obs).mode()
            noise = torch.randn(mode.shape, generator=self.generator, device=self.device) * config.target_std
            actions = (mode + noise.clamp(-config.target_clip, config.target_clip)).clamp(-1.0, 1.0)
            values = least_of_subset(self.target(batch.next_obs, actions), config.critic.subset, self.generator)
        return batch.rewards + batch.discounts * values
