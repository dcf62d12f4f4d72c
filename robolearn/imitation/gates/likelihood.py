"""The robot asks where its own policy spreads its bets: exact heads score their own state for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from robolearn.configuration.parts.gates import LikelihoodGateConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.windows import WindowSampler
from robolearn.errors import PolicyError
from robolearn.imitation.gates.asking import AskingGate
from robolearn.imitation.gates.gate import Setting, View, host
from robolearn.policies.policy import Policy
from robolearn.specs import Observation

REHEARSED = 256
"""Recorded steps whose scores stand for those to come until the first episode has ended."""


class LikelihoodGate(AskingGate):
    """Asks where the policy's own most likely action has the lowest likelihood, within the budget."""

    name = "likelihood"

    def __init__(self, config: LikelihoodGateConfig, setting: Setting) -> None:
        super().__init__(budget=config.budget, release=config.release, setting=setting)
        self.seed, self.reading = setting.seed, setting.reading

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        """Take the policy. Raises PolicyError where its head has no exact likelihood."""
        if not policy.exact_likelihood:
            raise PolicyError(
                f"the likelihood gate needs a head with an exact likelihood (gaussian, mixture or autoregressive), "
                f"received {policy.kind}; clone with one of these, or use the ensemble or thrifty gate"
            )
        self.policy = policy.eval()
        self.budget.start(self._score(self._rehearsal(files, round)))

    def scores(self, view: View) -> np.ndarray:
        return self._score(view.window)

    def _rehearsal(self, files: Sequence[Path], round: int) -> Observation:
        """Return windows (R, To, ...) of the newest file: of all, those most like what the policy will see."""
        config, device = self.policy.config, next(self.policy.parameters()).device
        with Dataset(list(files), reading=self.reading) as dataset:
            newest = len(dataset.files[-1].demos())
            windows = WindowSampler(
                dataset.select(range(len(dataset) - newest, len(dataset))),
                obs_steps=config.obs_steps,
                pred_steps=1,
                batch_size=REHEARSED,
                seed=self.seed + round,
                obs_keys=tuple(self.policy.observation_spec),
                drop_last=False,
                device=device,
            )
            return next(iter(windows)).obs

    @torch.no_grad()
    def _score(self, window: Observation) -> np.ndarray:
        distribution = self.policy.distribution(window)
        mode = distribution.mode()  # (N, Tp, A)
        executed = torch.arange(mode.shape[1], device=mode.device) < self.policy.config.exec_steps
        # -log p(mode) / (Ta A): nats per number that is going to be executed
        density = distribution.log_prob(mode, executed.expand(mode.shape[:2]))
        return host(-density / (self.policy.config.exec_steps * mode.shape[2]))
