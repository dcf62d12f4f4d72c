"""Implicit Q-learning (Kostrikov et al. 2022): values of recorded actions only, and cloning weighted by them.

    V   -> the expectile of min_i Q'_i(s, a) over recorded actions       (above the mean: what good actions are worth)
    Q_i -> r + gamma^n V(s')
    pi  -> clone with weight exp(beta (min_i Q'_i(s, a) - V(s))), at most max_weight, whatever the head

No action is ever valued that nobody took, so that nothing is hoped for where there is no data.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.offline import IQLConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.interface import Observation
from robolearn.imitation.bc import BehaviourCloning, DatasetSource
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.demonstrations import Shape, load_demonstrations
from robolearn.rl.collecting.replay_buffer import Replay, ReplayBatch
from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.engine.saving import load_states, states_of
from robolearn.rl.engine.target_update import TargetUpdate
from robolearn.rl.networks import QEnsemble, ValueNetwork
from robolearn.rl.off_policy import CriticLoss
from robolearn.rl.offline.saved_critics import save_critics
from robolearn.specs import Batch
from robolearn.training import distributed


@dataclass(frozen=True)
class OfflineBatch:
    """Windows for the policy and transitions for the values, drawn independently."""

    windows: Batch
    transitions: ReplayBatch


class ValueLoss(nn.Module):
    """Asymmetric squared error: too low a value counts `expectile`, too high a one the rest."""

    def __init__(self, value: ValueNetwork, expectile: float) -> None:
        super().__init__()
        self.value, self.expectile = value, expectile

    def forward(self, obs: Observation, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and metrics.

        Args:
            target: (B,) min_i Q'_i(s, a).
        """
        error = target - self.value(obs)  # (B,) u = Q'(s, a) - V(s)
        loss = expectile_loss(error, self.expectile).mean()  # E[|tau - 1(u < 0)| u^2]
        return loss, {"value_loss": loss.detach()}


class ImplicitQLearning(BehaviourCloning):
    """Cloning whose windows are weighted by the values that it learns beside; an algorithm of the training loop."""

    name = "implicit Q-learning"

    def __init__(self, policy: Policy, config: BCConfig, method: IQLConfig) -> None:
        super().__init__(policy, config.optimiser, config.loop.total_steps, precision=config.precision)
        self.method = method
        device = next(policy.parameters()).device
        self.value = ValueNetwork.beside(policy, method.value).to(device)
        self.critic = QEnsemble.beside(policy, method.critic).to(device)
        distributed.broadcast_(self.value, self.critic)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        rate = method.learning_rate
        self.value_optimiser = LossOptimiser(
            ValueLoss(self.value, method.expectile), trainable(self.value), learning_rate=rate, norm_name=None
        )
        self.critic_optimiser = LossOptimiser(
            CriticLoss(self.critic), trainable(self.critic), learning_rate=rate, norm_name="critic_grad_norm"
        )
        self.target_update = TargetUpdate(self.target, self.critic, self.critic_optimiser.adam, method.tau)
        self.parts = {
            "value": self.value,
            "critic": self.critic,
            "target": self.target,
            "value_optimiser": self.value_optimiser,
            "critic_optimiser": self.critic_optimiser,
        }

    def update(self, batch: OfflineBatch) -> dict[str, Tensor]:  # type: ignore[override]
        """Take a step of V, of Q, and of the policy; return metrics."""
        metrics = self.value_step(batch.transitions)
        advantages = self.advantages(batch.windows)
        weights = (self.method.beta * advantages).exp().clamp(max=self.method.max_weight)  # exp(beta A)
        windows = replace(batch.windows, weights=batch.windows.weights * weights)
        return metrics | super().update(windows) | {"advantage": advantages.mean(), "weight": weights.mean()}

    def value_step(self, batch: ReplayBatch) -> dict[str, Tensor]:
        """Take a step of V towards the expectile and of Q towards its target; return metrics."""
        with torch.no_grad():
            best = self.target(batch.obs, batch.actions).amin(0)  # (B,) min_i Q'_i(s, a)
            target = batch.rewards + batch.discounts * self.value(batch.next_obs)  # y = r + gamma^n V(s')
        metrics = self.value_optimiser.step(batch.obs, best) | self.critic_optimiser.step(batch, target)
        self.target_update.step()
        return metrics

    @torch.no_grad()
    def advantages(self, windows: Batch) -> Tensor:
        """Return A(s, a) = min_i Q'_i(s, a) - V(s) of the recorded chunks, (B,)."""
        return self.target(windows.obs, windows.targets).amin(0) - self.value(windows.obs)

    def export(self, folder: Path) -> None:
        """Write the critics beside the policy, for practice to go on from."""
        save_critics(folder, self.critic, self.method.critic, gamma=self.method.gamma, reward=self.method.reward)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | states_of(self.parts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        load_states(self.parts, state)


class OfflineSource:
    """A source of the training loop: windows in the data's order, and transitions at random."""

    def __init__(self, windows: DatasetSource, transitions: Replay, batch_size: int, seed: int) -> None:
        self.windows, self.transitions = windows, transitions
        self.batch_size = distributed.share_of(batch_size, "batch_size")
        self.generator = torch.Generator(transitions.device).manual_seed(distributed.own_seed(seed))

    def next(self) -> OfflineBatch:
        return OfflineBatch(self.windows.next(), self.transitions.sample(self.batch_size, self.generator))

    def describe(self, batch: OfflineBatch) -> str:
        """Name the oddest window, as `DatasetSource` does."""
        return self.windows.describe(batch.windows)

    def state_dict(self) -> dict[str, Any]:
        return {"windows": self.windows.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.windows.load_state_dict(state["windows"])
        self.generator.set_state(state["generator"])


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """Return |tau - 1(u < 0)| u^2, whose mean is least at the tau-expectile; element by element."""
    return torch.where(error < 0.0, 1.0 - expectile, expectile) * error.square()


def learn_implicitly(
    policy: Policy, config: BCConfig, method: IQLConfig, train: Dataset, windows: DatasetSource
) -> tuple[ImplicitQLearning, OfflineSource]:
    """Return the algorithm and its source.

    Raises DatasetError where the data shows no reward.
    """
    shape = Shape.of(policy, gamma=method.gamma, n_step=method.n_step)
    device = next(policy.parameters()).device
    transitions = load_demonstrations(train, policy.interface("the policy"), shape, reward=method.reward, device=device)
    return (
        ImplicitQLearning(policy, config, method),
        OfflineSource(windows, transitions, config.batch_size, config.seed),
    )
