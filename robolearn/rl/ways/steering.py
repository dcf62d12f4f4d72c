"""Steering a frozen diffusion or flow policy by the noise that it begins from (DSRL, Wagenmaker et al. 2025).

    w ~ steering(s), chunk a = base(s, w)        the base's sampler adds no noise: a is a function of s and w

    Q(s, a)      ->  r + gamma^n Q'(s', base(s', w')),  w' ~ steering(s')      practice and demonstrations
    Q_w(s, w)    ->  Q(s, base(s, w)),  w ~ N(0, 1) and ~ steering(s)          no gradient passes the base
    steering     ->  max E[Q_w(s, w) - alpha log pi(w|s)]

Many w make nearly the same chunk; what is learned of a chunk, also of a demonstrated one that came from no noise, is
known of all of them at once (the paper's noise aliasing, DSRL-NA). The steering takes over by and by, once the critics
know what the base's own chunks are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.configuration.parts.ways import SteeringConfig
from robolearn.envs.interface import Observation
from robolearn.policies.noise import Noise
from robolearn.policies.policy import Policy
from robolearn.policies.steered import SteeredPolicy, Steering, build_steering
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.learner import Learner
from robolearn.rl.networks import ExecutedChunkValues, QEnsemble
from robolearn.rl.off_policy import CriticLoss
from robolearn.rl.sac import SAC, ActorLoss
from robolearn.rl.ways.practice import Practice, off_policy_learner
from robolearn.rl.ways.sac import half_entropy
from robolearn.training import distributed
from robolearn.training.precision import autocast


def prepare(
    config: FinetuneConfig, method: SteeringConfig, policy: Policy, practice: Practice, device: torch.device
) -> Learner:
    """Return a learner of a steering of `policy`, which itself stays as it is.

    Raises PolicyError where the policy begins from no noise, draws more on the way, or has no normalisers that the
    steering could take over.
    """
    network, floor = method.policy, method.algorithm.min_std
    if floor is not None:
        network = replace(network, head=network.head.with_floor(floor))
    steered = SteeredPolicy(policy, build_steering(network, policy, method.bound))
    algorithm = NoiseAliasedSAC(steered, method, seed=config.seed)
    return off_policy_learner(config, algorithm, algorithm, actor=steered, practice=practice, stored=steered)


class NoiseAliasedSAC(SAC):
    """SAC of a steering: critics of executed chunks, and critics of noise that are shown what those say of it."""

    policy: Steering

    def __init__(self, steered: SteeredPolicy, method: SteeringConfig, *, seed: int = 0) -> None:
        self.steered, self.method = steered, method
        steering = steered.steering
        config, device = half_entropy(method.algorithm, steering), steering.share.device
        critic = ExecutedChunkValues.beside(steering, config.critic).to(device)
        self.noise_critic = QEnsemble.beside(steering, method.noise_critic).to(device).train()
        distributed.broadcast_(self.noise_critic)
        super().__init__(steering, critic, config, seed=seed)
        self.noise_optimiser = LossOptimiser(
            CriticLoss(self.noise_critic, bf16=config.bf16),
            trainable(self.noise_critic),
            learning_rate=config.critic_learning_rate or config.learning_rate,
            max_grad_norm=config.max_grad_norm,
            norm_name="critic_grad_norm",
        )
        self.parts |= {"noise_critic": self.noise_critic, "noise_optimiser": self.noise_optimiser}

    def make_actor_loss(self, policy: Policy, critic: QEnsemble, config: SACConfig) -> ActorLoss:
        """Return the loss of the steering: its u (B, Tp, A) are what the critics of noise see."""
        return ActorLoss(policy, self.noise_critic, config)

    @property
    def share(self) -> float:
        """How much of the noise the steering decides on after the gradient steps so far."""
        return self.share_of(self.method.share_steps)

    def update(self, batch: Sequence[ReplayBatch]) -> dict[str, Any]:
        """Learn from the batches at the share of now; it is the same for all of them."""
        share = self.share
        self.policy.share.fill_(share)
        return super().update(batch) | {"share": share}

    def draw(self, obs: Observation, noise: Noise, network: Policy) -> tuple[Tensor, Tensor]:
        """Return chunks (B, Tp, A) of the base, begun from noise that the steering chooses, and log-probabilities (B,)
        of u."""
        assert isinstance(network, Steering)
        w, log_probs = network.sample(obs, noise)
        return self.steered.decode(obs, w), log_probs

    def critic_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        metrics = super().critic_step(batch)
        with torch.no_grad():
            w = self.asked_noise(batch)
            target = self.noise_targets(batch.obs, w)
        found = self.noise_optimiser.step(batch._replace(actions=w / self.policy.bound), target)
        return metrics | {f"noise_{name}": value for name, value in found.items()}

    def asked_noise(self, batch: ReplayBatch) -> Tensor:
        """Return noise w (B, Tp, A) to ask the critics about: by turns the base's own, and the steering's."""
        noise = self._noise(batch)
        own = noise.normal(self.policy.config.pred_steps, self.policy.action_spec.size)
        steered = self.policy.bound * self.policy.distribution(batch.obs).sample(noise)
        even = torch.arange(len(own), device=own.device) % 2 == 0  # practice and demonstrations get both alike
        return torch.where(even.view(-1, 1, 1), own, steered)

    def noise_targets(self, obs: Observation, w: Tensor) -> Tensor:
        """Return Q(s, base(s, w)), (B,): the mean of the critics, or the least, as the steering is to climb it."""
        with autocast(self.device, self.config.bf16):
            values = self.critic(obs, self.steered.decode(obs, w))  # (M, B)
        return values.amin(0) if self.config.actor_value == "min" else values.mean(0)
