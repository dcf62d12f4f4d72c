"""A gate by which the robot asks a person, in a session with a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robolearn.imitation.gates.gate import Gate, View
from robolearn.specs import Observation


class GateAsker:
    """Tells a session what a gate of one environment says (`robolearn.teleop.driving.Asker`).

    The person decides who drives: the gate's wish to hand control back is not obeyed.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._by_hand: list[bool] = []
        self._scores: list[float] = []
        self._score = float("nan")

    def reset(self, seed: int) -> None:
        self.finish()
        self.gate.reset([seed], torch.ones(1, dtype=torch.bool))

    def judge(
        self, obs: Observation, window: Observation, proposal: Tensor, action: Tensor | None
    ) -> tuple[float, str]:
        verdict = self.gate.judge(
            View(
                obs=obs,
                proposals=proposal,
                labels=torch.full_like(proposal, torch.nan) if action is None else action,
                correcting=np.array([action is not None]),
                window=window,
            )
        )
        self._score = float("nan") if verdict.score is None else float(verdict.score[0])
        asks = action is None and bool(verdict.correct[0])
        return self._score, (verdict.reasons.get(0) or "help") if asks else ""

    def made(self, *, by_hand: bool) -> None:
        self._by_hand.append(by_hand)
        self._scores.append(self._score)

    def rewind(self, step: int) -> None:
        del self._by_hand[step:], self._scores[step:]

    def finish(self) -> None:
        if self._by_hand:
            self.gate.told(np.array(self._by_hand), np.array(self._scores), 0)
        self._by_hand, self._scores = [], []
