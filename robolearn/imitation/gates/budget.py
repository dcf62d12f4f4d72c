"""A budget of the corrector's time, for a robot that asks for help."""

from __future__ import annotations

import numpy as np


class Budget:
    """A threshold of scores that holds the corrector's share of the steps at a budget b.

    Where the policy asks at a share r of the steps that it could drive, and each request costs L steps on average, the
    corrector drives r L steps for each of the policy's: r = b' / (1 - b') / L holds a share of b'. The threshold is the
    (1 - r) quantile of the scores at which the policy could ask.

        b'   b + (b S - E) / H: what S steps, E of them the corrector's, have over- or underspent is made good over an
             episode's H steps; running episodes count as they go, for a round may be few of them side by side
        L    measured as episodes end
        r    corrected by how often the policy asked and how often it was to: scores drift, and come in runs

    Args:
        budget: b, in [0, 1]; at 0 the robot never asks, at 1 it always does.
        num_envs: N, episodes that run side by side.
    """

    MEMORY = 10_000
    FIRST_COST = 10.0
    """L before any request was answered; counts as one request."""
    FIRST_LENGTH = 100.0
    """H before any episode has ended; counts as one episode."""
    TRUST = 5.0
    """Requests, had and intended, before their ratio counts as much as one."""
    LARGEST_CORRECTION = 5.0

    def __init__(self, budget: float, num_envs: int = 1) -> None:
        self.budget = budget
        self.corrected = self.steps = self.episodes = self.requests = 0
        self._running = np.zeros(num_envs, bool)
        self._live_steps, self._live_corrected = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self._intended = self._asked = 0.0
        self._rate = 0.0
        self._scores = np.zeros(0)
        self._ordered = np.zeros(0)
        self._guessed = True
        self.threshold = np.inf
        """The score above which the robot asks."""
        self._aim()

    @property
    def share(self) -> float:
        """The corrector's share of the steps of the episodes that have ended."""
        return self.corrected / max(self.steps, 1)

    def start(self, scores: np.ndarray) -> None:
        """Take these scores for those that the policy will meet, until the first episode shows them."""
        self._remember(_finite(scores))
        self._guessed = True
        self._aim()

    def begin(self, rows: np.ndarray) -> None:
        """Begin new episodes in these of the N environments."""
        self._running[rows] = True
        self._live_steps[rows] = self._live_corrected[rows] = 0

    def step(self, could_ask: np.ndarray, corrects: np.ndarray) -> None:
        """Count a step: (N,) before which the policy drove, and (N,) that the corrector will drive."""
        self._live_steps += self._running
        self._live_corrected += self._running & corrects
        self._intended += self._rate * int((self._running & could_ask).sum())
        self._asked += int((self._running & could_ask & corrects).sum())
        self._aim()

    def told(self, corrected: np.ndarray, scores: np.ndarray, index: int | None) -> None:
        """Take a finished episode into account: (T,) who drove, (T,) scores before each step, and its environment."""
        before = np.concatenate([[False], corrected[:-1]])
        # Scores at which the policy asked belong to those it met: without them the threshold could only fall.
        met = _finite(scores[~before])
        if len(met):
            self._remember(met if self._guessed else np.concatenate([self._scores, met]))
            self._guessed = False
        self.requests += int((corrected & ~before).sum())
        self.corrected, self.steps = self.corrected + int(corrected.sum()), self.steps + len(corrected)
        self.episodes += 1
        if index is not None:
            self._running[index] = False
            self._live_steps[index] = self._live_corrected[index] = 0
        self._aim()

    def _remember(self, scores: np.ndarray) -> None:
        self._scores = scores[-self.MEMORY :]
        self._ordered = np.sort(self._scores)  # once for each episode, so that a step's quantile costs nothing

    def _aim(self) -> None:
        """Set the threshold."""
        if self.budget in (0.0, 1.0):
            self.threshold = -np.inf if self.budget else np.inf
            return
        self._rate = self._wanted_rate()
        place = (1.0 - self._rate) * (len(self._ordered) - 1)
        self.threshold = float(self._ordered[round(place)]) if len(self._ordered) and self._rate else np.inf

    def _wanted_rate(self) -> float:
        """Return r, the share of the steps that the policy could drive at which it is to ask."""
        steps, corrected = self.steps + self._live_steps.sum(), self.corrected + self._live_corrected.sum()
        length = (self.FIRST_LENGTH + self.steps) / (1 + self.episodes)
        share = self.budget + (self.budget * steps - corrected) / length
        if share <= 0.0 or share >= 1.0:
            return float(share >= 1.0)
        cost = (self.FIRST_COST + self.corrected) / (1 + self.requests)
        correction = (self.TRUST + self._intended) / (self.TRUST + self._asked)
        correction = np.clip(correction, 1.0 / self.LARGEST_CORRECTION, self.LARGEST_CORRECTION)
        return float(min(1.0, correction * share / (1.0 - share) / max(cost, 1.0)))


def _finite(scores: np.ndarray) -> np.ndarray:
    return np.asarray(scores, np.float64)[np.isfinite(scores)]
