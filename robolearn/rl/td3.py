"""Twin delayed deterministic policy gradient (Fujimoto et al. 2018).

    y    = r + gamma^n min_i Q'_i(s', pi'(s') + clipped noise)
    Q_i -> y          pi -> max E[Q_1(s, pi(s))], every second update

The deterministic policy is the mode of a tanh-Gaussian, so that the same policy object serves SAC, TD3 and PPO.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import TD3Config
from robolearn.envs.interface import Observation
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.engine.loss_optimiser import trainable
from robolearn.rl.engine.target_update import TargetUpdate
from robolearn.rl.networks import QEnsemble
from robolearn.rl.off_policy import ActorCritic
from robolearn.training.precision import autocast


class ActorLoss(nn.Module):
    """Minus the first critic's value of the policy's mode."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: TD3Config) -> None:
        super().__init__()
        self.policy, self.critic, self.config = policy, critic, config

    def forward(self, batch: ReplayBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and metrics."""
        with autocast(batch.rewards.device, self.config.bf16):
            values = self.critic(batch.obs, self.policy.distribution(batch.obs).mode())  # (M, B) Q_i(s, pi(s))
        loss = -values[0].mean()  # -E[Q_1(s, pi(s))]
        return loss, {"actor_loss": loss.detach()}


class TD3(ActorCritic[TD3Config]):
    """Updates the mode of a policy and an ensemble of critics; an algorithm of the training loop."""

    def __init__(self, policy: Policy, critic: QEnsemble, config: TD3Config, *, seed: int = 0) -> None:
        loss, parameters = ActorLoss(policy, critic, config), mode_parameters(policy)
        super().__init__(policy, critic, config, actor_loss=loss, actor_parameters=parameters, seed=seed)
        self.target_policy = copy.deepcopy(policy).requires_grad_(False)
        self.policy_update = TargetUpdate(self.target_policy, policy, self.actor_optimiser.adam, config.tau)
        self.parts["target_policy"] = self.target_policy

    def critic_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.targets(batch)
        return self.critic_optimiser.step(batch, target)

    def actor_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        return self.actor_optimiser.step(batch)

    def follow(self) -> None:
        self.target_update.step()
        self.policy_update.step()

    def targets(self, batch: ReplayBatch) -> Tensor:
        """Return y, (B,)."""
        config = self.config
        with autocast(self.device, config.bf16):
            mode = self.target_policy.distribution(batch.next_obs).mode()  # (B, Tp, A) pi'(s')
            noise = torch.randn(mode.shape, generator=self.generator, device=self.device) * config.target_std
            actions = (mode + noise.clamp(-config.target_clip, config.target_clip)).clamp(-1.0, 1.0)
            values = self.target_value(batch.next_obs, actions)  # (B,) min_i Q'_i(s', a')
        return batch.rewards + batch.discounts * values  # r + gamma^n min_i Q'_i

    @torch.no_grad()
    def explore(
        self, window: Observation, generator: torch.Generator | None = None, network: Policy | None = None
    ) -> Tensor:
        """Return the mode with exploration noise for windows (N, To, ...), (N, Tp, A) in [-1, 1]."""
        mode = (network or self.policy).distribution(window).mode()
        noise = torch.randn(mode.shape, generator=generator, device=self.device)
        return (mode + self.config.exploration_std * noise).clamp(-1.0, 1.0)


def mode_parameters(policy: Policy) -> list[nn.Parameter]:
    """Return the trainable parameters that the mode depends on; the rest of the head has no gradient from it."""
    idle = {id(p) for p in policy.head.parameters()} - {id(p) for p in policy.head.mode_parameters()}
    return [p for p in trainable(policy) if id(p) not in idle]
