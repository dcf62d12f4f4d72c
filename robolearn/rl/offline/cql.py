"""Conservative Q-learning (Kumar et al. 2020), calibrated (Nakamoto et al. 2023), for tanh-Gaussian policies.

    y    = r + gamma^n min_i Q'_i(s', a'),  a' ~ pi(s')                      (as SAC)
    Q_i -> y, and less of  log sum_a exp Q_i(s, a) - Q_i(s, a_data)          (what nobody did is worth less)
    pi  -> max E[min_i Q_i(s, a) - alpha log pi(a|s)]                        (as SAC, after a while of cloning)

Calibrated: an action of the policy is never pushed below the return that the data had from there. Values then keep the
scale of real returns, and practice that goes on from them does not have to unlearn first.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.configuration.parts.offline import CQLConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.interface import Observation
from robolearn.errors import ConfigError
from robolearn.imitation.agreement import check_same_actions
from robolearn.imitation.bc import DatasetSource
from robolearn.policies.noise import BatchNoise, Noise
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.demonstrations import Shape, macro_starts, read_episodes, replay_of, returns_to_go
from robolearn.rl.collecting.replay_buffer import Replay, ReplayBatch
from robolearn.rl.networks import QEnsemble
from robolearn.rl.off_policy import CriticLoss, check_reparameterised
from robolearn.rl.offline.saved_critics import save_critics
from robolearn.rl.sac import SAC, ActorLoss
from robolearn.training import distributed
from robolearn.training.precision import autocast


class DataBatch(NamedTuple):
    """B transitions of the data, and what came of each."""

    transitions: ReplayBatch
    returns: Tensor
    """(B,) discounted return from the transition on, as far as it was recorded."""


class Candidates(NamedTuple):
    """K actions at each of B states, by which the sum over all actions is estimated."""

    actions: Tensor
    """(B, K, Tp, A)."""
    log_densities: Tensor
    """(B, K), with which they were drawn."""
    floors: Tensor
    """(B, K), below which their values are not pushed; minus infinity where there is none."""


class ConservativeLoss(nn.Module):
    """The Bellman error of every critic, and how much more it promises of other actions than of the recorded one."""

    def __init__(self, critic: QEnsemble, conservatism: float, *, bf16: bool = False) -> None:
        super().__init__()
        self.bellman, self.conservatism, self.bf16 = CriticLoss(critic, bf16=bf16), conservatism, bf16

    def forward(self, batch: ReplayBatch, target: Tensor, others: Candidates) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and metrics.

        Args:
            target: (B,) y.
        """
        critic = self.bellman.critic
        loss, metrics = self.bellman(batch, target)  # sum_i E[(Q_i - y)^2] / 2
        rows, count = others.log_densities.shape
        with autocast(target.device, self.bf16):
            recorded = critic(batch.obs, batch.actions)  # (M, B)
            values = critic(repeated(batch.obs, count), others.actions.flatten(0, 1)).unflatten(1, (rows, count))
        values = torch.maximum(values, others.floors)  # (M, B, K) Cal-QL: max(Q(s, a), V_data(s)) of a ~ pi
        # log sum_a exp Q(s, a), by importance sampling: log mean_k exp(Q(s, a_k) - log mu(a_k|s))
        soft_maximum = (values - others.log_densities).logsumexp(-1) - math.log(count)  # (M, B)
        gap = (soft_maximum - recorded).mean(-1)  # (M,) E[log sum_a exp Q_i(s, a) - Q_i(s, a_data)]
        loss = loss + self.conservatism * gap.sum()
        return loss, metrics | {"critic_loss": loss.detach(), "conservative_gap": gap.detach().mean()}


class GuidedActorLoss(ActorLoss):
    """SAC's loss of the actor; while cloning, the recorded actions' log-density takes the place of the values."""

    cloning = False

    def forward(self, batch: ReplayBatch, alpha: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.cloning:
            return super().forward(batch, alpha, noise)
        distribution = self.policy.distribution(batch.obs)
        _, log_probs = distribution.sample_with_log_prob(noise)
        # E[alpha log pi(a|s) - log pi(a_data|s)]
        loss = (alpha * log_probs - distribution.log_prob(batch.actions)).mean()
        return loss, {"actor_loss": loss.detach(), "log_prob": log_probs.detach().mean()}


class ConservativeQLearning(SAC):
    """SAC on recorded transitions with conservative critics; an algorithm of the training loop."""

    name = "conservative Q-learning"
    actor_loss: GuidedActorLoss

    def __init__(self, policy: Policy, method: CQLConfig, *, seed: int = 0, bf16: bool = False) -> None:
        self.method = method
        critic = QEnsemble.beside(policy, method.critic).to(next(policy.parameters()).device)
        super().__init__(policy, critic, sac_of(method, bf16=bf16), seed=seed)

    def make_critic_loss(self, critic: QEnsemble, config: SACConfig) -> nn.Module:
        return ConservativeLoss(critic, self.method.conservatism, bf16=config.bf16)

    def make_actor_loss(self, policy: Policy, critic: QEnsemble, config: SACConfig) -> ActorLoss:
        self.actor_loss = GuidedActorLoss(policy, critic, config)
        return self.actor_loss

    def update(self, batch: DataBatch) -> dict[str, Tensor]:  # type: ignore[override]
        """Take a step of the critics and of the actor; return metrics."""
        self.updates += 1
        self.actor_loss.cloning = self.updates <= self.method.cloning_steps
        transitions = batch.transitions
        with torch.no_grad():
            alpha = self.log_alpha.detach().exp()
            target = self.targets(transitions, alpha, self._noise(transitions))
            others = self.candidates(batch)
        metrics = self.critic_optimiser.step(transitions, target, others)
        self.target_update.step()
        return metrics | self.actor_step(transitions)

    @torch.no_grad()
    def candidates(self, batch: DataBatch) -> Candidates:
        """Draw actions at the batch's states: uniform ones, the policy's there, and the policy's at the next states."""
        each, rows = self.method.num_actions, len(batch.returns)
        shape = (rows, each, *batch.transitions.actions.shape[1:])
        uniform = torch.rand(shape, generator=self.generator, device=self.device) * 2.0 - 1.0
        size = uniform[0, 0].numel()
        drawn = [(uniform, torch.full((rows, each), -size * math.log(2.0), device=self.device))]  # density 2^-size
        for obs in (batch.transitions.obs, batch.transitions.next_obs):
            noise = BatchNoise(rows * each, self.device, self.generator)
            actions, log_probs = self.policy.distribution(repeated(obs, each)).sample_with_log_prob(noise)
            drawn.append((actions.unflatten(0, (rows, each)), log_probs.unflatten(0, (rows, each))))
        actions, log_densities = (torch.cat(parts, 1) for parts in zip(*drawn))
        floors = torch.full_like(log_densities, -torch.inf)
        if self.method.calibrated:
            floors[:, each:] = batch.returns[:, None]
        return Candidates(actions, log_densities, floors)

    def result(self) -> Policy:
        """Return the policy to evaluate and export."""
        return self.policy

    def export(self, folder: Path) -> None:
        """Write the critics beside the policy, for practice to go on from."""
        save_critics(folder, self.critic, self.method.critic, gamma=self.method.gamma, reward=self.method.reward)


class TransitionSource:
    """A source of the training loop: transitions with their returns, uniformly at random."""

    def __init__(self, transitions: Replay, returns: Tensor, batch_size: int, seed: int) -> None:
        """
        Args:
            returns: (len(transitions),) in the order of their ages.
        """
        self.transitions, self.returns = transitions, returns
        self.batch_size = distributed.share_of(batch_size, "batch_size")
        self.generator = torch.Generator(transitions.device).manual_seed(distributed.own_seed(seed))

    def next(self) -> DataBatch:
        drawn = torch.randint(
            len(self.transitions), (self.batch_size,), generator=self.generator, device=self.transitions.device
        )
        return DataBatch(self.transitions.gather(drawn), self.returns[drawn])

    def describe(self, batch: DataBatch) -> str:
        """Return the largest return and observation of the batch, for error messages."""
        largest = max(float(v.float().abs().nan_to_num(torch.inf).max()) for v in batch.transitions.obs.values())
        return f"Its largest return is {float(batch.returns.abs().max()):g}, its largest observation {largest:g}"

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


def repeated(obs: Observation, count: int) -> Observation:
    """Return windows (B * count, To, ...), each of (B, To, ...) so many times in a row."""
    return {key: value.repeat_interleave(count, 0) for key, value in obs.items()}


def sac_of(method: CQLConfig, *, bf16: bool = False) -> SACConfig:
    """Return the settings of SAC that conservative Q-learning is built on."""
    return SACConfig(
        gamma=method.gamma,
        n_step=method.n_step,
        tau=method.tau,
        learning_rate=method.learning_rate,
        critic_learning_rate=method.critic_learning_rate,
        temperature=method.temperature,
        target_entropy=method.target_entropy,
        entropy_backup=False,  # as the authors' code: what the data's actions would earn in entropy is not known
        critic=method.critic,
        bf16=bf16,
    )


def learn_conservatively(
    policy: Policy, config: BCConfig, method: CQLConfig, train: Dataset, windows: DatasetSource
) -> tuple[ConservativeQLearning, TransitionSource]:
    """Return the algorithm and its source, transitions instead of `windows`.

    Raises PolicyError where the policy is no tanh-Gaussian, DatasetError where the data shows no reward.
    """
    check_reparameterised(policy, "CQL")
    if config.target != "actions" or config.weights != "plain":
        raise ConfigError(
            f"method cql learns what executed actions were worth, target {config.target} and weights {config.weights} "
            "are of cloning; leave them out, or take method iql"
        )
    needs, shape = policy.interface("the policy"), Shape.of(policy, gamma=method.gamma, n_step=method.n_step)
    check_same_actions(needs, train)
    episodes = read_episodes(train, shape.obs_keys, method.reward)
    device = next(policy.parameters()).device
    returns = torch.cat(
        [returns_to_go(one, method.gamma)[list(macro_starts(len(one), shape.exec_steps))] for one in episodes]
    )
    source = TransitionSource(replay_of(episodes, shape, device), returns.to(device), config.batch_size, config.seed)
    bf16 = config.precision == "bfloat16"
    return ConservativeQLearning(policy, method, seed=config.seed, bf16=bf16), source
