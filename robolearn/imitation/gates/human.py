"""A simulated human who watches, takes over with a reaction time, and hands back.

HG-DAgger (Kelly et al. 2019) measured without people, and used with them unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from torch import Tensor

from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.errors import DatasetError
from robolearn.imitation.gates.gate import BaseGate, Setting, Verdict, View, flat
from robolearn.imitation.gates.records import low_dim_keys, read_records
from robolearn.policies.policy import Policy

STALL_SHARE = 0.2
"""Of the progress that demonstrations make in the same time: less is being stuck."""
QUANTILE = 0.99
"""Of demonstrated states that keep within the unit of the tube."""
HELD_OUT = 50
"""Demonstrations whose distances to all others are measured."""


class Tube:
    """The demonstrated states, standardised by each number's deviation, and how far apart demonstrations lie."""

    def __init__(self, demonstrations: Sequence[np.ndarray]) -> None:
        """
        Args:
            demonstrations: at least two, (T, D) each.
        """
        states = np.concatenate(demonstrations)
        deviation = states.std(0)
        largest = deviation.max()
        self._mean = states.mean(0)
        # What hardly moves says little: no number counts for more than 100 times what its deviation makes it.
        self._scale = np.maximum(deviation, 0.01 * largest if largest > 0.0 else 1.0)
        self._tree = KDTree(self.standardised(states))
        self._remaining = np.concatenate([np.arange(len(shown))[::-1] for shown in demonstrations])
        self.unit = self._typical(demonstrations)

    def standardised(self, states: np.ndarray) -> np.ndarray:
        return (states - self._mean) / self._scale

    def distance(self, states: np.ndarray) -> np.ndarray:
        """Return (N,) distances of standardised states from the nearest demonstrated one, in units."""
        return np.asarray(self._tree.query(states)[0]) / self.unit

    def remaining(self, states: np.ndarray) -> np.ndarray:
        """Return (N,) steps that the demonstration of the nearest state had still to go, of standardised states."""
        return self._remaining[self._tree.query(states)[1]]

    def _typical(self, demonstrations: Sequence[np.ndarray]) -> float:
        """Return the distance within which QUANTILE of demonstrated states have a state of another demonstration."""
        scaled = [self.standardised(states) for states in demonstrations]
        chosen = np.unique(np.linspace(0, len(scaled) - 1, min(len(scaled), HELD_OUT)).astype(int))
        gaps = [KDTree(np.concatenate(scaled[:i] + scaled[i + 1 :])).query(scaled[i])[0] for i in chosen.tolist()]
        return max(float(np.quantile(np.concatenate(gaps), QUANTILE)), 1e-6)


class SimulatedHuman(BaseGate):
    """Takes over where the robot strays from the demonstrated states or gets stuck, and releases when it is back.

    Straying is a distance of more than `tube` units; being stuck, less progress over `stall_s` than STALL_SHARE of what
    demonstrations make. Progress is told by the nearest demonstrated state: by how many steps nearer its demonstration
    is to its end. Either trouble must last for the reaction time, as must calm before control goes back; who took over
    from a robot that was stuck also makes half of the progress that was missing first. What a human does depends on the
    episode alone, not on those beside it.
    """

    def __init__(self, config: HumanGateConfig, setting: Setting) -> None:
        self.config, self.num_envs, self.reading = config, setting.num_envs, setting.reading
        self.reaction, self.least = (round(s * setting.control_hz) for s in (config.reaction_s, config.least_s))
        self.stall = max(1, round(config.stall_s * setting.control_hz))

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        """Learn what demonstrations look like. Raises DatasetError where there are fewer than two."""
        self.keys = low_dim_keys(files, self.reading)
        shown = [r.obs for r in read_records(files, self.keys, self.reading) if r.demonstration and r.success]
        if len(shown) < 2:
            raise DatasetError(
                f"a simulated human judges by at least 2 successful demonstrations, received {len(shown)} in "
                f"{', '.join(map(str, files))}; record some, or use another gate"
            )
        self.tube = Tube(shown)
        self.stall = min(self.stall, max(1, max(map(len, shown)) - 1))
        self._past = np.zeros((self.num_envs, self.stall))
        self._goal = np.full(self.num_envs, np.inf)
        self._seen = np.zeros(self.num_envs, int)
        self._trouble, self._calm, self._driven = (np.zeros(self.num_envs, int) for _ in range(3))
        self._recovered = np.zeros(self.num_envs, bool)

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        rows = mask.nonzero().flatten().cpu().numpy()
        for count in (self._seen, self._trouble, self._calm, self._driven, self._recovered):
            count[rows] = 0

    def judge(self, view: View) -> Verdict:
        states = self.tube.standardised(flat(view.obs, self.keys))
        straying = self.tube.distance(states) / self.config.tube
        remaining = self.tube.remaining(states)
        stuck = self._stuck(remaining)
        score = np.maximum(straying, stuck)
        self._trouble = np.where(score > 1.0, self._trouble + 1, 0)
        self._calm = np.where(score > 1.0, 0, self._calm + 1)
        self._driven = np.where(view.correcting, self._driven + 1, 0)
        takes_over = ~view.correcting & (self._trouble > self.reaction)
        moved = remaining <= self._goal
        releases = view.correcting & (self._calm > self.reaction) & (self._driven >= self.least) & moved
        correct = takes_over | (view.correcting & ~releases)
        # Whoever gets control has the whole time to make some way.
        self._seen[takes_over | releases] = 0
        on_the_way = np.maximum(remaining - self.stall // 2, 0)
        self._goal = np.where(takes_over, np.where(stuck > straying, on_the_way, np.inf), self._goal)
        reasons = dict.fromkeys(np.flatnonzero(releases).tolist(), "back")
        for i in np.flatnonzero(takes_over).tolist():
            reasons[i] = "stuck" if stuck[i] > straying[i] else f"{straying[i] * self.config.tube:.2g} off the tube"
        back = view.correcting & (score <= 1.0) & ~self._recovered
        self._recovered = (self._recovered | back) & correct
        return Verdict(
            correct=correct, score=score, reasons=reasons, recovered=tuple(np.flatnonzero(back & correct).tolist())
        )

    def _stuck(self, remaining: np.ndarray) -> np.ndarray:
        """Return (N,), above 1 where the progress of the last `stall` steps was too little; remembers (N,) steps."""
        everyone = np.arange(self.num_envs)
        place = self._seen % self.stall  # a ring: here lies what was `stall` steps ago, about to be overwritten
        progress = self._past[everyone, place] - remaining
        known = self._seen >= self.stall
        self._past[everyone, place] = remaining
        self._seen += 1
        return np.where(known, np.minimum(STALL_SHARE * self.stall / np.maximum(progress, 1e-9), 10.0), 0.0)
