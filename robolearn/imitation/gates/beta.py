"""DAgger's mixture: a coin decides who acts (Ross et al. 2011)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from robolearn.configuration.parts.gates import BetaGateConfig
from robolearn.errors import TaskError
from robolearn.imitation.gates.gate import BaseGate, Setting, Verdict, View
from robolearn.specs import ActionMode


class BetaGate(BaseGate):
    """The expert acts with probability beta, at each step or in whole episodes, and labels every state.

    Who acts is a function of (episode seed, step) alone, so a round repeats whatever the number of environments.
    """

    mode = ActionMode.EXPERT
    labels_everything = True

    def __init__(self, config: BetaGateConfig, setting: Setting) -> None:
        self.beta = config.beta(setting.round, setting.rounds)
        self.per_episode = config.per == "episode"
        self._coins = [np.random.default_rng(0) for _ in range(setting.num_envs)]
        self._turns = np.zeros(setting.num_envs, bool)

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        for index, seed in zip(mask.nonzero().flatten().tolist(), seeds, strict=True):
            self._coins[index] = np.random.default_rng([seed, 0xDA66E5])
            if self.per_episode:
                self._turns[index] = self._coins[index].random() < self.beta

    def judge(self, view: View) -> Verdict:
        if not self.per_episode:
            self._turns = np.array([coin.random() < self.beta for coin in self._coins])
        unlabelled = ~view.labels.isfinite().all(-1).cpu().numpy()
        if unlabelled.any():
            index = int(unlabelled.argmax())
            raise TaskError(
                f"expected finite actions from the expert, which labels every state, "
                f"received {view.labels[index].tolist()} in environment {index}"
            )
        changes = np.flatnonzero(self._turns != view.correcting).tolist()
        return Verdict(correct=self._turns.copy(), reasons=dict.fromkeys(changes, f"beta={self.beta:g}"))
