"""The probability of success, learned from recorded outcomes (ThriftyDAgger's risk, Hoque et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robolearn.imitation.gates.gate import host
from robolearn.imitation.gates.records import Record
from robolearn.imitation.gates.small_networks import Bootstrap, Members, generator, train
from robolearn.specs import ActionMode

TRACE = 0.95
"""lambda of the returns: how far an outcome reaches back at once."""
REFRESH = 50
"""Updates between two computations of the targets."""


class Critic:
    """Q(s, a), the discounted probability that the policy solves the task after action a at s.

    Fitted by temporal differences with what the policy proposed as the next action, whoever acted:

        y_t = 1[success]                                                             at the last step
        y_t = gamma ((1 - lambda c_t+1) Q(s_t+1, pi(s_t+1)) + lambda c_t+1 y_t+1)    before

    with c = 1 where the policy's own proposal was executed and 0 where somebody else acted: the outcome of a correction
    says nothing about the policy. In demonstrations no policy was asked; there the next action stands for its proposal.
    """

    def __init__(
        self, records: Sequence[Record], *, gamma: float, members: int, updates: int, seed: Sequence[int]
    ) -> None:
        """
        Args:
            records: episodes that came to their end.
        """
        obs = np.concatenate([record.obs for record in records])
        actions = np.concatenate([record.actions for record in records])
        asked = np.concatenate([np.isfinite(record.proposals).all(1) for record in records])
        proposals = np.concatenate([record.proposals for record in records])
        proposals = np.where(asked[:, None], proposals, actions)
        modes = np.concatenate([record.modes for record in records])
        own = np.isin(modes, (ActionMode.POLICY, ActionMode.DEMONSTRATION))
        taken, intended = _joined(obs, actions), _joined(obs, proposals)
        self._network = Members(taken, 1, members, generator([*seed, 1]))
        lengths = [len(record) for record in records]
        success = np.array([record.success for record in records])
        targets = torch.zeros(len(obs))

        def before(update: int) -> None:
            if update % REFRESH == 0:
                values = self._values(intended)
                targets.copy_(torch.from_numpy(returns(values, own, lengths, success, gamma)))

        def loss(rows: Tensor) -> Tensor:
            # L = -mean(y log Q + (1 - y) log(1 - Q))
            return F.binary_cross_entropy_with_logits(self._network(taken[rows])[..., 0], targets[rows])

        train(self._network, Bootstrap(lengths, members, [*seed, 1]), loss, updates, before)

    def risk(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return (N,), 1 - Q of observations (N, D) and actions (N, A)."""
        return 1.0 - self._values(_joined(obs, actions))

    @torch.no_grad()
    def _values(self, inputs: Tensor) -> np.ndarray:
        return host(torch.sigmoid(self._network(inputs)[..., 0]).mean(0))


def returns(
    values: np.ndarray, own: np.ndarray, lengths: Sequence[int], success: np.ndarray, gamma: float
) -> np.ndarray:
    """Return (R,) targets y of episodes one after the other.

    Args:
        values: (R,) Q(s, pi(s)).
        own: (R,) bool, c: the policy's proposal was executed.
        success: (E,) bool.
    """
    targets, ends = np.empty(len(values)), np.cumsum(lengths)
    weights = TRACE * own
    targets[ends - 1] = following = success.astype(np.float64)
    for back in range(1, max(lengths)):  # all episodes at once, from their ends
        left = np.flatnonzero(np.asarray(lengths) > back)
        rows = ends[left] - 1 - back
        weight = weights[rows + 1]
        following = following.copy()
        following[left] = gamma * ((1.0 - weight) * values[rows + 1] + weight * following[left])
        targets[rows] = following[left]
    return targets


def _joined(obs: np.ndarray, actions: np.ndarray) -> Tensor:
    return torch.from_numpy(np.concatenate([obs, actions], axis=1)).float()
