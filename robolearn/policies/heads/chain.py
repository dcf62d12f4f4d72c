"""Heads that turn noise into a chunk step by step: what diffusion and flow share.

A chain of S steps, each a Gaussian whose mean the network gives:

    x_0 ~ N(0, 1),   x_{k+1} ~ N(mean_k(x_k, features), std_k),   action chunk = x_S

`std_k` may be zero (deterministic samplers). PPO on such policies (DPPO, Ren et al. 2024) treats every step as an
action: it samples with `sample_chain` and asks `chain_log_prob`, both with a floor under the standard deviation. The
first `early_steps` of a policy that was fine-tuned so may belong to a network of their own, which was left alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.policy import DenoiserConfig
from robolearn.errors import PolicyError
from robolearn.policies.distributions import normal_log_prob
from robolearn.policies.heads.head import Head
from robolearn.policies.networks.denoisers import build_denoiser
from robolearn.policies.noise import Noise


class ChainHead(Head):
    """A denoiser and the chain it is run in; subclasses give the loss and the steps' means."""

    times: Tensor
    """(E,) times at which the network is asked along the chain."""
    stds: tuple[float, ...]
    """Standard deviation of each of the S steps."""
    has_densities: bool = True
    """Whether a step depends on the state before it alone, so that it has a density: a multistep solver's does not."""

    def __init__(
        self, network: DenoiserConfig, *, early_steps: int, feature_size: int, pred_steps: int, action_size: int
    ) -> None:
        """
        Args:
            early_steps: number of first steps that a network of their own runs.
        """
        super().__init__()
        self.pred_steps, self.action_size, self.early_steps = pred_steps, action_size, early_steps
        sizes = {"feature_size": feature_size, "action_size": action_size, "pred_steps": pred_steps}
        self.network = build_denoiser(network, **sizes)
        self.early_network = build_denoiser(network, **sizes) if early_steps else None

    @property
    def chain_steps(self) -> int:
        """Number S of steps."""
        return len(self.stds)

    @property
    def adds_noise(self) -> bool:
        """Whether steps have noise of their own; without, the noise that the chain begins with decides on the chunk."""
        return any(self.stds)

    @abstractmethod
    def _means(self, x: Tensor, k: int, conditions: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Return the mean of x_{k+1} (B, Tp, A) given x_k and all evaluations' conditions (E, B, C).

        `memory` carries what multistep solvers keep between the steps of one chain.
        """

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        """Return a sample; there is no mode."""
        return self._run(features, noise, 0.0)[-1]

    def sample_chain(self, features: Tensor, noise: Noise, *, min_std: float = 0.0) -> Tensor:
        """Return chains (B, S + 1, Tp, A), from pure noise to the chunk, in normalised units, given features (B, D)."""
        return torch.stack(self._run(features, noise, min_std), 1)

    def chain_log_prob(self, features: Tensor, chain: Tensor, *, min_std: float = 0.0, first: int = 0) -> Tensor:
        """Return the log-density of every number of every step from step `first` on.

        Args:
            chain: (B, S - first + 1, Tp, A), x_first to x_S.
            min_std: floor under every step's standard deviation.

        Returns:
            (B, S - first, Tp, A), so that the caller may leave steps of the chunk out, sum or average.
        """
        count = self.chain_steps - first
        assert first >= self.early_steps, "early steps belong to a network that is left alone"
        assert chain.shape[1] == count + 1, f"a chain from step {first} has {count + 1} states, got {chain.shape[1]}"
        B = chain.shape[0]
        steps = torch.arange(first, self.chain_steps, device=chain.device).repeat(B)
        mean, std = self.transition(
            features.repeat_interleave(count, 0), chain[:, :-1].flatten(0, 1), steps, min_std=min_std
        )
        return normal_log_prob(chain[:, 1:].flatten(0, 1), mean, std).unflatten(0, (B, count))

    def transition(self, features: Tensor, x: Tensor, step: Tensor, *, min_std: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the Gaussian of x_{k+1} given x_k, each row at a step k of its own.

        Args:
            features: (M, D).
            x: (M, Tp, A), x_k.
            step: (M,) int64, k.

        Returns:
            mean (M, Tp, A) and std (M, 1, 1).
        """
        std = torch.tensor(self.stds, device=x.device)[step].clamp_min(min_std)
        if min_std <= 0.0 and min(self.stds) == 0.0:
            raise PolicyError(
                "this chain has steps without noise, which have no density; give min_std > 0 (DPPO uses 0.1)"
            )
        return self._transition_mean(features, x, step), std.view(-1, 1, 1)

    @abstractmethod
    def _transition_mean(self, features: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """Return means as `_means` does, each row at a step of its own."""

    def _run(self, features: Tensor, noise: Noise, min_std: float) -> list[Tensor]:
        """Return all states of one chain per row, S + 1 of (B, Tp, A)."""
        conditions = self._conditions(features)
        states, memory = [noise.normal(self.pred_steps, self.action_size)], {}
        for k, std in enumerate(self.stds):
            x = self._means(states[-1], k, conditions, memory)
            std = max(std, min_std)
            states.append(x + std * noise.normal(self.pred_steps, self.action_size) if std > 0.0 else x)
        return states

    def _conditions(self, features: Tensor) -> Tensor:
        """Return all conditions (E, B, C) at once: they depend on noise levels and features alone."""
        early, late = self.times.tensor_split([self.early_steps * len(self.times) // self.chain_steps])
        late_conditions = _conditions(self.network, late, features)
        if self.early_network is None:
            return late_conditions
        return torch.cat([_conditions(self.early_network, early, features), late_conditions])

    def _network(self, k: int) -> nn.Module:
        """Return the network that runs step k."""
        return self.network if self.early_network is None or k >= self.early_steps else self.early_network

    def _predict(self, x: Tensor, time: Tensor, early: Tensor, features: Tensor) -> Tensor:
        """Return what the network says of rows (B, Tp, A) at times (B,), for training.

        Args:
            early: (B,) bool, rows at times of the early steps.
        """
        late = self.network(x, self.network.condition(time, features))
        if self.early_network is None:
            return late
        return torch.where(
            early.view(-1, 1, 1), self.early_network(x, self.early_network.condition(time, features)), late
        )


def _conditions(network: Any, times: Tensor, features: Tensor) -> Tensor:
    """Return a network's conditions (E, B, C) at times (E,)."""
    E, B = len(times), features.shape[0]
    return network.condition(times.repeat_interleave(B), features.repeat(E, 1)).unflatten(0, (E, B))
