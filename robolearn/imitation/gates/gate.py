"""What every gate is, and how a step is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode, Observation


@dataclass(frozen=True, kw_only=True)
class View:
    """What a gate sees of N environments before a step."""

    obs: Observation
    """(N, ...) per key."""
    proposals: Tensor
    """(N, A), what the policy would do."""
    labels: Tensor
    """(N, A), what the corrector would do; a gate may look at it only where `correcting`, or where its class says that
    the corrector labels everything."""
    correcting: np.ndarray
    """(N,) bool: the corrector drove the last step."""
    window: Observation
    """(N, To, ...) per key, the policy's own view."""

    def disagreement(self) -> np.ndarray:
        """Return (N,), the mean absolute difference of proposals and labels over the action's dimensions."""
        return (self.proposals - self.labels).abs().mean(-1).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate says."""

    correct: np.ndarray
    """(N,) bool: the corrector drives the next step."""
    score: np.ndarray | None = None
    """(N,) float, how much help seems to be needed, higher for more; None where the gate has no score."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why control changes hands, by environment."""


class Gate(Protocol):
    """Decides when the corrector drives."""

    mode: ActionMode
    """How the file calls the corrector's steps."""
    labels_everything: bool
    """Whether the corrector labels also the states at which the policy drives."""

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        """Learn from everything recorded before a round; called once before each."""
        ...

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        """Begin new episodes in the masked environments."""
        ...

    def judge(self, view: View) -> Verdict:
        """Say who drives the next step."""
        ...

    def told(self, expert_steps: int, steps: int, scores: np.ndarray) -> None:
        """Hear of a finished episode: its steps, those that the corrector drove, and the scores at the policy's."""
        ...


class Budget:
    """A threshold that holds the corrector's share of the steps at a budget.

    The threshold is the (1 - rate) quantile of the scores met so far. The rate begins at the budget and follows the
    share: a takeover lasts longer than one step, and how long is not known beforehand.
    """

    GAIN = 2.0
    MEMORY = 20_000
    LEAST, MOST = 1e-4, 0.9

    def __init__(self, budget: float) -> None:
        self.budget, self.rate = budget, budget
        self.scores = np.zeros(0)
        self.expert_steps = self.steps = 0

    def start(self, scores: np.ndarray) -> None:
        """Forget the scores of an earlier model and begin with these."""
        self.scores = scores[-self.MEMORY :]

    def told(self, expert_steps: int, steps: int, scores: np.ndarray) -> None:
        """Take a finished episode into account."""
        self.scores = np.concatenate([self.scores, scores])[-self.MEMORY :]
        self.expert_steps, self.steps = self.expert_steps + expert_steps, self.steps + steps
        share = self.expert_steps / max(self.steps, 1)
        excess = np.clip((share - self.budget) / max(self.budget, 1e-6), -1.0, 1.0)
        self.rate = float(np.clip(self.rate * np.exp(-self.GAIN * 0.25 * excess), self.LEAST, self.MOST))

    @property
    def threshold(self) -> float:
        """The score above which the robot asks."""
        if self.budget == 0.0 or not len(self.scores):
            return float("inf")
        return float(np.quantile(self.scores, 1.0 - self.rate))


def host(value: Tensor) -> np.ndarray:
    """Return a tensor as an array on the host."""
    return value.detach().to(torch.float64).cpu().numpy()
