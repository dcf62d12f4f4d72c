"""Learning from a replay: the order of gradient steps, critics, targets and state that SAC, TD3 and DQN share.

    batches -> critic step (Q -> y), every `policy_delay`-th time an actor step -> metrics

The equations that make SAC, TD3 or DQN of this are in their own files.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import OffPolicyConfig, SACConfig, TD3Config
from robolearn.envs.interface import Observation
from robolearn.errors import PolicyError
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.engine.compiling import compiled
from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.engine.saving import Saved, load_states, states_of
from robolearn.rl.engine.target_update import TargetUpdate
from robolearn.rl.networks import QEnsemble
from robolearn.training import distributed
from robolearn.training.precision import autocast

C = TypeVar("C", bound=OffPolicyConfig)
AC = TypeVar("AC", bound=SACConfig | TD3Config)


class OffPolicyAlgorithm(ABC, Generic[C]):
    """An algorithm of the training loop that learns from batches of transitions.

    One update, critics and actor, is one function of tensors: with `config.compile` it is one graph.
    """

    def __init__(self, config: C, device: torch.device) -> None:
        self.config, self.device, self.updates = config, device, 0
        self.generator: torch.Generator | None = None
        """Generator of the draws in an update; None where it draws nothing, or from torch's global one."""
        self.parts: dict[str, Saved] = {}
        """Modules and optimisers that `state_dict` saves, by name."""
        self._step = compiled(self.step) if config.compile else self.step

    def update(self, batch: Sequence[ReplayBatch]) -> dict[str, Tensor]:
        """Take a critic step for each batch, an actor step for every `policy_delay` of them after the warm-up; return
        metrics."""
        metrics: dict[str, Tensor] = {}
        for part in batch:
            self.updates += 1
            due = self.updates % self.config.policy_delay == 0
            metrics |= self._step(part, due and self.updates > self.config.critic_warmup, due)
        return metrics

    def step(self, batch: ReplayBatch, update_actor: bool, follow: bool) -> dict[str, Tensor]:
        """Take a critic step and, where asked, an actor step from one batch; return metrics (scalars).

        Args:
            follow: whether targets that move as seldom as the actor do so now; they move before it learns, too.
        """
        metrics = self.critic_step(batch)
        if update_actor:
            metrics |= self.actor_step(batch)
        if follow:
            self.follow()
        return metrics

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All networks that see observations, targets included."""
        return tuple(part for part in self.parts.values() if isinstance(part, nn.Module))

    @abstractmethod
    def critic_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        """Take a gradient step of the values; return metrics (scalars)."""

    def actor_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        """Take a gradient step of the actor; return metrics (scalars). Algorithms that act by values have none."""
        return {}

    def follow(self) -> None:
        """Move the targets that move as seldom as the actor; most algorithms have none."""

    def state_dict(self) -> dict[str, Any]:
        return {**states_of(self.parts), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_states(self.parts, state)
        self.updates = int(state["updates"])

    def rank_state_dict(self) -> dict[str, Any]:
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        if self.generator is not None:
            self.generator.set_state(state["generator"])


class ActorCritic(OffPolicyAlgorithm[AC]):
    """A policy whose samples carry gradient, an ensemble of critics, and a copy of these that follows slowly."""

    def __init__(
        self,
        policy: Policy,
        critic: QEnsemble,
        config: AC,
        *,
        actor_loss: nn.Module,
        actor_parameters: Sequence[nn.Parameter],
        seed: int,
    ) -> None:
        """Raises PolicyError where the policy's samples carry no gradient or are not bounded."""
        check_reparameterised(policy, config.name.upper())
        super().__init__(config, next(policy.parameters()).device)
        self.policy, self.critic = policy.eval(), critic.train()
        distributed.broadcast_(policy, critic)
        self.target = copy.deepcopy(critic).requires_grad_(False)
        if not config.compile:  # a compiled update draws from torch's global generator: graphs do not take others
            self.generator = torch.Generator(self.device).manual_seed(distributed.own_seed(seed))
        rate, limit = config.learning_rate, config.max_grad_norm
        self.actor_optimiser = LossOptimiser(actor_loss, actor_parameters, learning_rate=rate, max_grad_norm=limit)
        self.critic_optimiser = LossOptimiser(
            self.make_critic_loss(critic, config),
            trainable(critic),
            learning_rate=config.critic_learning_rate or rate,
            max_grad_norm=limit,
            norm_name="critic_grad_norm",
        )
        self.target_update = TargetUpdate(self.target, critic, self.critic_optimiser.adam, config.tau)
        self.parts = {
            "policy": policy,
            "critic": critic,
            "target": self.target,
            "actor_optimiser": self.actor_optimiser,
            "critic_optimiser": self.critic_optimiser,
        }

    def make_critic_loss(self, critic: QEnsemble, config: AC) -> nn.Module:
        """Return the loss that the critics minimise."""
        return CriticLoss(critic, bf16=config.bf16)

    @property
    def network(self) -> Policy:
        """The policy, which decides while data is collected."""
        return self.policy

    def share_of(self, steps: int) -> float:
        """Return how much of so many gradient steps has been made since the critics ceased to learn alone, 0 to 1."""
        past = self.updates - self.config.critic_warmup
        return min(max(past / steps, 0.0), 1.0) if steps else float(past >= 0)

    def target_value(self, obs: Observation, actions: Tensor) -> Tensor:
        """Return min_i Q'_i(s, a) over a random subset of the target critics, (B,)."""
        return least_of_subset(self.target(obs, actions), self.config.critic.subset, self.generator)


class CriticLoss(nn.Module):
    """Half the mean squared error of every critic, summed over the ensemble."""

    def __init__(self, critic: QEnsemble, *, bf16: bool = False) -> None:
        super().__init__()
        self.critic, self.bf16 = critic, bf16

    def forward(self, batch: ReplayBatch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and metrics.

        Args:
            target: (B,) y.
        """
        with autocast(target.device, self.bf16):
            values = self.critic(batch.obs, batch.actions)  # (M, B) Q_i(s, a)
        loss = 0.5 * (values - target).square().mean(-1).sum()  # sum_i E[(Q_i - y)^2] / 2
        return loss, {"critic_loss": loss.detach(), "value": values.detach().mean()}


def least_of_subset(values: Tensor, subset: int, generator: torch.Generator | None) -> Tensor:
    """Return the least value of `subset` random members, (M, B) -> (B,) (REDQ)."""
    if subset < len(values):
        # The places of the largest random numbers: compiled graphs have no permutations.
        drawn = torch.rand(len(values), generator=generator, device=values.device)
        values = values[drawn.topk(subset).indices]
    return values.amin(0)


def check_reparameterised(policy: Policy, algorithm: str) -> None:
    """Raise PolicyError where samples carry no gradient, or are not bounded."""
    if not policy.head.reparameterised:
        raise PolicyError(
            f"{algorithm} differentiates through the policy's own actions, which needs a head whose samples lie in "
            "(-1, 1) and carry gradient, a tanh-Gaussian: policy.head gaussian with squash true; received "
            f"{policy.config.head}"
        )
