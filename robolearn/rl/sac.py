"""Soft actor-critic (Haarnoja et al. 2018): values with entropy, a reparameterised actor, a learned temperature.

    y     = r + gamma^n (min_i Q'_i(s', a') - alpha log pi(a'|s')),  a' ~ pi(s')
    Q_i  -> y          pi -> max E[min_i Q_i(s, a) - alpha log pi(a|s)]          alpha: entropy -> its target

One update is one function of tensors, compiled as a whole where asked. The actor's gradient passes through the critics
without computing theirs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.configuration.algorithms import OffPolicyConfig, SACConfig
from robolearn.errors import PolicyError
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.rl.engine.adam import FlatAdam, flatten_
from robolearn.rl.engine.compiled import Gradients, compiled
from robolearn.rl.networks import QEnsemble
from robolearn.rl.replay_buffer import ReplayBatch
from robolearn.training import distributed


class CriticLoss(nn.Module):
    """Mean squared error of every critic, summed over the ensemble."""

    def __init__(self, critic: QEnsemble, config: OffPolicyConfig) -> None:
        super().__init__()
        self.critic, self.config = critic, config

    def forward(self, batch: ReplayBatch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(target.device, self.config):
            values = self.critic(batch.obs, batch.actions)
        loss = 0.5 * (values - target).square().mean(-1).sum()
        return loss, {"critic_loss": loss.detach(), "value": values.detach().mean()}


class ActorLoss(nn.Module):
    """alpha log pi - Q of fresh samples; also returns their mean log-probability, which the temperature follows."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: SACConfig) -> None:
        super().__init__()
        self.policy, self.critic, self.config = policy, critic, config

    def forward(self, batch: ReplayBatch, alpha: Tensor, noise: BatchNoise) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(alpha.device, self.config):
            actions, log_probs = self.policy.distribution(batch.obs).sample_with_log_prob(noise)
            values = self.critic(batch.obs, actions)
        value = values.amin(0) if self.config.actor_value == "min" else values.mean(0)
        loss = (alpha * log_probs - value).mean()
        return loss, {"actor_loss": loss.detach(), "log_prob": log_probs.detach().mean()}


class SAC:
    """Updates a policy with a reparameterised head and an ensemble of critics; an algorithm of the training loop."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: SACConfig, *, seed: int = 0) -> None:
        check_reparameterised(policy, "SAC")
        self.policy, self.critic, self.config = policy.eval(), critic.train(), config
        distributed.broadcast_(policy, critic)
        self.target = copy.deepcopy(critic).requires_grad_(False)
        self.device = next(policy.parameters()).device
        # A compiled update draws from torch's global generator: graphs do not take others.
        self.generator = (
            None if config.compile else torch.Generator(self.device).manual_seed(distributed.own_seed(seed))
        )
        self.log_alpha = nn.Parameter(torch.tensor([config.temperature], device=self.device).log())
        rate, limit = config.learning_rate, config.max_grad_norm
        critic_rate = config.critic_learning_rate or rate
        actor, critics = ([p for p in m.parameters() if p.requires_grad] for m in (policy, critic))
        self.actor_adam = FlatAdam(actor, learning_rate=rate, max_grad_norm=limit)
        self.critic_adam = FlatAdam(critics, learning_rate=critic_rate, max_grad_norm=limit)
        self.alpha_adam = FlatAdam([self.log_alpha], learning_rate=rate)
        self.target_vector = flatten_(list(self.target.parameters()))
        self._critic_gradients = Gradients(CriticLoss(critic, config), self.critic_adam)
        self._actor_gradients = Gradients(ActorLoss(policy, critic, config), self.actor_adam)
        size = policy.config.pred_steps * policy.action_spec.size
        self.target_entropy = float(-size if config.target_entropy is None else config.target_entropy)
        self._step = compiled(self._eager_step) if config.compile else self._eager_step
        # Beside an update a copy of the policy acts, which a graph made for this one would not look at.
        self._sample = compiled(self._eager_sample) if config.compile and not config.overlap else None
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
        """(N, To, ...) -> sampled chunks (N, Tp, A); where this is compiled, from torch's global generator."""
        if self._sample is not None:
            return self._sample(window)
        return self._eager_sample(window, generator, actor)

    def _eager_sample(
        self, window: dict[str, Tensor], generator: torch.Generator | None = None, actor: Policy | None = None
    ) -> Tensor:
        rows = len(next(iter(window.values())))
        return (actor or self.policy).distribution(window).sample(BatchNoise(rows, self.device, generator))

    def state_dict(self) -> dict[str, Any]:
        modules = {name: getattr(self, name).state_dict() for name in ("policy", "critic", "target")}
        adams = {name: getattr(self, name).state_dict() for name in ("actor_adam", "critic_adam", "alpha_adam")}
        return {**modules, **adams, "log_alpha": self.log_alpha.detach().clone(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("policy", "critic", "target", "actor_adam", "critic_adam", "alpha_adam"):
            getattr(self, name).load_state_dict(state[name])
        self.log_alpha.data.copy_(state["log_alpha"])
        self.updates = int(state["updates"])

    def rank_state_dict(self) -> dict[str, Any]:
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def _eager_step(self, batch: ReplayBatch, update_actor: bool) -> dict[str, Tensor]:
        noise = BatchNoise(len(batch.rewards), self.device, self.generator)
        with torch.no_grad():
            alpha = self.log_alpha.detach().exp()
            target = self.targets(batch, alpha, noise)
        gradients, metrics = self._critic_gradients(batch, target)
        metrics["critic_grad_norm"] = self.critic_adam.step(gradients)
        with torch.no_grad():
            self.target_vector.lerp_(self.critic_adam.vector, self.config.tau)
        if update_actor:
            gradients, actor_metrics = self._actor_gradients(batch, alpha, noise)
            metrics["grad_norm"] = self.actor_adam.step(gradients)
            metrics |= actor_metrics | {"alpha": alpha[0]}
            if self.config.learn_temperature:
                # d/d log(alpha) of -log(alpha) (log pi + target entropy), as in the authors' code
                self.alpha_adam.step([-(actor_metrics["log_prob"] + self.target_entropy)[None]])
        return metrics

    def targets(self, batch: ReplayBatch, alpha: Tensor, noise: BatchNoise) -> Tensor:
        """(B,) what the critics are drawn to."""
        with autocast(self.device, self.config):
            actions, log_probs = self.policy.distribution(batch.next_obs).sample_with_log_prob(noise)
            values = least_of_subset(self.target(batch.next_obs, actions), self.config.critic.subset, self.generator)
        if self.config.entropy_backup:
            values = values - alpha * log_probs
        return batch.rewards + batch.discounts * values


def least_of_subset(values: Tensor, subset: int, generator: torch.Generator | None) -> Tensor:
    """(M, B) -> (B,): the least value of `subset` random members (REDQ)."""
    if subset < len(values):
        values = values[torch.randperm(len(values), generator=generator, device=values.device)[:subset]]
    return values.amin(0)


def autocast(device: torch.device, config: OffPolicyConfig) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bf16)


def check_reparameterised(policy: Policy, algorithm: str) -> None:
    """Raises PolicyError where samples carry no gradient, or are not bounded by tanh."""
    head = policy.config.head
    if head.name != "gaussian" or not head.squash:  # type: ignore[union-attr]
        raise PolicyError(
            f"{algorithm} differentiates through the policy's own actions, which needs a tanh-Gaussian: "
            f"policy.head gaussian with squash true; received {head.name}"
            + (" with squash false" if head.name == "gaussian" else "")
        )
