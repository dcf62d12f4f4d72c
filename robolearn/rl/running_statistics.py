"""Running statistics of returns and observations, kept while a policy trains from scratch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robolearn.envs.interface import Observation
from robolearn.policies.encoders import LowDimEncoder, ObservationEncoder
from robolearn.policies.normaliser import STILL
from robolearn.rl.collecting.rollout_collector import Rollout
from robolearn.rl.returns import discounted_sum
from robolearn.training import distributed


class RunningMoments:
    """Mean and variance of all rows seen, merged batch by batch in float64 (Chan, Golub and LeVeque 1979).

    Where several processes train together, the rows of all of them count, and all must add theirs.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0.0
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.m2 = torch.zeros(shape, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Count rows (B, *shape) in."""
        rows = rows.to(device="cpu", dtype=torch.float64)
        mean = rows.mean(0)
        for part in distributed.gather((float(len(rows)), mean, (rows - mean).square().sum(0))):
            self._merge(*part)

    def _merge(self, count: float, mean: Tensor, m2: Tensor) -> None:
        total, delta = self.count + count, mean - self.mean
        self.m2 = self.m2 + m2 + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """Standard deviation (*shape), float64; ones before anything was seen."""
        return (self.m2 / self.count).sqrt() if self.count else torch.ones_like(self.m2)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean.clone(), "m2": self.m2.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.m2 = float(state["count"]), state["mean"].cpu(), state["m2"].cpu()


class ReturnScale:
    """Divides rewards by the standard deviation of the discounted return so far, so that values stay of order one.

    The return of a step looks backwards, G_t = r_t + gamma G_{t-1}, and starts anew with each episode. Where several
    processes train together, the statistics are of all environments, and `carry` of this process's own.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma, self.moments = gamma, RunningMoments()
        self.carry: Tensor | None = None

    def apply(self, rollout: Rollout) -> Tensor:
        """Return the scaled rewards (L, N); the statistics learn of the rollout first."""
        self.moments.add(self._returns(rollout).flatten())
        return rollout.rewards / (float(self.moments.std) + 1e-8)

    def _returns(self, rollout: Rollout) -> Tensor:
        """Return G, (L, N), and carry its last row over to the next rollout."""
        rewards = rollout.rewards.clone()
        done = rollout.terminated | rollout.truncated
        # Row t decays into row t+1 unless the episode ended at t; time runs backwards for discounted_sum.
        decay = torch.cat([torch.zeros_like(rewards[:1]), (rollout.discounts * ~done)[:-1]])
        if self.carry is not None:
            rewards[0] += self.carry
        returns = discounted_sum(rewards.flip(0), decay.flip(0)).flip(0)
        self.carry = rollout.discounts[-1] * returns[-1] * ~done[-1]
        return returns

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics; the carry of the running episodes is `rank_state_dict`."""
        return {"moments": self.moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moments.load_state_dict(state["moments"])

    def rank_state_dict(self) -> dict[str, Any]:
        return {} if self.carry is None else {"carry": self.carry.clone()}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        self.carry = state.get("carry")


class ObservationStatistics:
    """Keeps the normalisers of several encoders (the policy's, its critic's) at the mean and deviation of what is seen.

    A policy must be one function from acting to the end of its update, so call `observe` between updates only.
    """

    def __init__(self, *networks: nn.Module) -> None:
        """
        Args:
            networks: their encoders are kept, which see the same keys.
        """
        encoders = [m for network in networks for m in network.modules() if isinstance(m, ObservationEncoder)]
        kept = [
            (key, module)
            for encoder in encoders
            for key, module in zip(encoder.keys, encoder.encoders.values())
            if isinstance(module, LowDimEncoder)
        ]
        self.moments = {key: RunningMoments((module.normaliser.offset.numel(),)) for key, module in kept}
        self.normalisers = [(key, module.normaliser) for key, module in kept]
        for _, normaliser in self.normalisers:
            normaliser.is_identity = False  # before there are statistics, so that nothing is compiled once more after

    def observe(self, obs: Observation, *, once: bool = False) -> None:
        """Learn of windows (B, To, ...) and set the normalisers; each window's newest observation counts, none twice.

        Args:
            once: there will be no other windows, so a dimension that did not vary must keep its scale.
        """
        for key, moments in self.moments.items():
            moments.add(obs[key][:, -1].unsqueeze(-1).flatten(1))
        for key, normaliser in self.normalisers:
            normaliser.offset.copy_(self.moments[key].mean)
            std = self.moments[key].std
            normaliser.scale.copy_(torch.where(std < 1e-4, STILL, std) if once else std.clamp_min(1e-4))

    def state_dict(self) -> dict[str, Any]:
        return {key: moments.state_dict() for key, moments in self.moments.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key, moments in self.moments.items():
            moments.load_state_dict(state[key])
