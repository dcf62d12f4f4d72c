"""The robot asks where a state is new or success unlikely, within a budget (ThriftyDAgger, Hoque et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robolearn.configuration.parts.gates import ThriftyGateConfig
from robolearn.imitation.gates.asking import AskingGate
from robolearn.imitation.gates.critic import Critic
from robolearn.imitation.gates.ensemble import Novelty, rehearsal
from robolearn.imitation.gates.gate import Setting, View, flat, host
from robolearn.imitation.gates.records import Record, policy_keys, read_records
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode

LEAST_SCALE = 0.25
"""Nats between the median and the 90% quantile, at least: smaller differences are noise."""
LEAST_RISK = 1e-3
"""Risks below this, and probabilities of success, are all the same."""


class Scale:
    """Puts values on a common scale: 0 is their median and 1 their 90% quantile."""

    def __init__(self, values: np.ndarray) -> None:
        self.median, upper = np.quantile(values, [0.5, 0.9])
        self.width = max(upper - self.median, LEAST_SCALE)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values - self.median) / self.width


class ThriftyGate(AskingGate):
    """Asks where novelty or risk is highest.

    One budget moves both thresholds: novelty (log variance) and risk (log odds of failure) are put on a common scale by
    the states recorded before, and the score is the larger of the two. Before anything has failed, or where nothing has
    succeeded, there is no telling what is risky: novelty alone decides.
    """

    name = "thrifty"

    def __init__(self, config: ThriftyGateConfig, setting: Setting) -> None:
        super().__init__(budget=config.budget, release=config.release, setting=setting)
        self.config, self.seed, self.reading = config, setting.seed, setting.reading
        self.critic: Critic | None = None
        self._risky = np.zeros(setting.num_envs, bool)

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        self.keys = policy_keys(policy)
        records = read_records(files, self.keys, self.reading)
        seed, members, updates = (self.seed, round), self.config.members, self.config.updates
        self.novelty = Novelty(records, members=members, updates=updates, seed=seed)
        ended = [record for record in records if record.complete]
        self.critic = None
        if {record.success for record in ended} == {True, False}:
            self.critic = Critic(ended, gamma=self.config.gamma, members=members, updates=updates, seed=seed)
        obs, actions = _rehearsed(records)
        self._novelty_scale = Scale(_log(self.novelty.score(obs)))
        if self.critic is not None:
            self._risk_scale = Scale(_log_odds(self.critic.risk(obs, actions)))
        self.budget.start(np.maximum(*self._scaled(obs, actions)))

    def scores(self, view: View) -> np.ndarray:
        novelty, risk = self._scaled(flat(view.obs, self.keys), host(view.proposals))
        self._risky = risk > novelty
        return np.where(np.isnan(risk), np.nan, np.maximum(novelty, risk))

    def reason(self, index: int, score: float) -> str:
        kind = "risk" if self._risky[index] else "novelty"
        return f"{kind} {score:.3g} above {self.budget.threshold:.3g}"

    def _scaled(self, obs: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return novelty and risk (N,) each; risk -inf where it is not known."""
        novelty = self._novelty_scale(_log(self.novelty.score(obs)))
        if self.critic is None:
            return novelty, np.full(len(obs), -np.inf)
        return novelty, self._risk_scale(_log_odds(self.critic.risk(obs, actions)))


def _rehearsed(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Return states like those that the policy will meet (R, D), as `rehearsal`, and what was done there (R, A)."""
    obs = rehearsal(records)
    driven = [record.actions[record.modes == ActionMode.POLICY] for record in records]
    actions = np.concatenate(driven)
    return obs, actions if len(actions) else np.concatenate([record.actions for record in records])


def _log(variance: np.ndarray) -> np.ndarray:
    return np.log(variance + 1e-8)


def _log_odds(risk: np.ndarray) -> np.ndarray:
    kept = np.clip(risk, LEAST_RISK, 1.0 - LEAST_RISK)
    return np.log(kept / (1.0 - kept))
