"""The common part of the gates by which the robot asks: a score, a budget, and when it gets control back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from robolearn.imitation.gates.budget import Budget
from robolearn.imitation.gates.gate import BaseGate, Setting, Verdict, View, check_scores


class AskingGate(BaseGate, ABC):
    """Asks where a score is above the budget's threshold.

    Control returns where the policy agrees with the corrector and would not ask again at once.
    """

    name = ""

    def __init__(self, *, budget: float, release: float, setting: Setting) -> None:
        self.budget, self.release = Budget(budget, setting.num_envs), release

    @abstractmethod
    def scores(self, view: View) -> np.ndarray:
        """Return (N,) how much help seems to be needed."""

    def reason(self, index: int, score: float) -> str:
        """Return why the robot asks in an environment, given its score."""
        return f"{self.name} {score:.3g} above {self.budget.threshold:.3g}"

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        self.budget.begin(mask.nonzero().flatten().cpu().numpy())

    def judge(self, view: View) -> Verdict:
        scores = check_scores(self.name, self.scores(view))
        asks = scores > self.budget.threshold
        gaps = view.disagreement()
        correct = asks | (view.correcting & (gaps >= self.release))
        reasons = {
            i: self.reason(i, float(scores[i])) if correct[i] else f"disagreement {gaps[i]:.3g} below {self.release:g}"
            for i in np.flatnonzero(correct != view.correcting).tolist()
        }
        self.budget.step(~view.correcting, correct)
        return Verdict(correct=correct, score=scores, reasons=reasons)

    def told(self, corrected: np.ndarray, scores: np.ndarray, index: int | None) -> None:
        self.budget.told(corrected, scores, index)
