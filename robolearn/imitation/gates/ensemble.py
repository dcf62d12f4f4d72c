"""The robot asks where an ensemble disagrees about what to do (EnsembleDAgger, Menda et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from robolearn.configuration.parts.gates import EnsembleGateConfig
from robolearn.errors import DatasetError
from robolearn.imitation.gates.asking import AskingGate
from robolearn.imitation.gates.gate import Setting, View, flat, host
from robolearn.imitation.gates.records import Record, policy_keys, read_records
from robolearn.imitation.gates.small_networks import Bootstrap, Members, generator, train
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode


class Novelty:
    """Networks cloned from the labels of episodes drawn with replacement; they agree where there was data."""

    def __init__(self, records: Sequence[Record], *, members: int, updates: int, seed: Sequence[int]) -> None:
        """Raises DatasetError where the episodes have no labels."""
        labelled = [(r.obs[kept], r.labels[kept]) for r in records if (kept := np.isfinite(r.labels).all(1)).any()]
        if not labelled:
            raise DatasetError(f"expected episodes with labels to learn from, received {len(records)} without any")
        obs, labels = (torch.from_numpy(np.concatenate(arrays)).float() for arrays in zip(*labelled, strict=True))
        self._network = Members(obs, labels.shape[1], members, generator(seed))
        rows = Bootstrap([len(kept) for kept, _ in labelled], members, seed)
        # L = mean_m |pi_m(s) - a*|^2
        train(self._network, rows, lambda i: F.mse_loss(self._network(obs[i]), labels[i]), updates, lambda _: None)

    @torch.no_grad()
    def score(self, obs: np.ndarray) -> np.ndarray:
        """Return (N,), the variance of the members' actions at (N, D), mean over the action's dimensions."""
        return host(self._network(torch.from_numpy(obs).float()).var(0).mean(-1))


def rehearsal(records: Sequence[Record]) -> np.ndarray:
    """Return (R, D), states like those that the policy will meet: those that one drove to, else all there are."""
    driven = [record.obs[record.modes == ActionMode.POLICY] for record in records]
    met = np.concatenate(driven)
    return met if len(met) else np.concatenate([record.obs for record in records])


class EnsembleGate(AskingGate):
    """Asks where the ensemble disagrees most, within the budget."""

    name = "ensemble"

    def __init__(self, config: EnsembleGateConfig, setting: Setting) -> None:
        super().__init__(budget=config.budget, release=config.release, setting=setting)
        self.config, self.seed, self.reading = config, setting.seed, setting.reading

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        self.keys = policy_keys(policy)
        records = read_records(files, self.keys, self.reading)
        members, updates = self.config.members, self.config.updates
        self.novelty = Novelty(records, members=members, updates=updates, seed=(self.seed, round))
        self.budget.start(self.novelty.score(rehearsal(records)))

    def scores(self, view: View) -> np.ndarray:
        return self.novelty.score(flat(view.obs, self.keys))
