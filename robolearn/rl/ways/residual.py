"""Off-policy residual learning (after ResFiT, arXiv 2509.19301): a small correction of a frozen policy of any head.

    base, frozen ──▶ environment that shows its next action ──▶ practice ────────┐ half and half
    demonstrations ──▶ the base's action on their way beside the one shown ──────┴──▶ SAC or TD3

The critics value executed actions, so that demonstrations enter as they are: what they did, however far from the base.
The scale of corrections grows once the critics know what the base's actions are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.ways import ResidualConfig, SACTuningConfig
from robolearn.policies.policy import Policy
from robolearn.policies.residual import Correction, ResidualPolicy, build_correction
from robolearn.rl.collecting.base_env import BaseEnv
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.learner import Learner
from robolearn.rl.networks import ExecutedActionValues
from robolearn.rl.sac import SAC
from robolearn.rl.td3 import TD3
from robolearn.rl.ways.practice import Practice, off_policy_learner
from robolearn.rl.ways.sac import half_entropy


def prepare(
    config: FinetuneConfig, method: ResidualConfig, policy: Policy, practice: Practice, device: torch.device
) -> Learner:
    """Return a learner of a correction of `policy`, which itself stays as it is.

    Raises PolicyError where the policy has no normalisers that the correction could take over.
    """
    correction = build_correction(method.policy, policy, method.first_scale)
    critic = ExecutedActionValues.beside(correction, method.algorithm.critic).to(device)
    algorithm = GrowingCorrection(correction, critic, method, seed=config.seed)
    corrected = ResidualPolicy(policy, correction)
    shown = replace(practice, env=BaseEnv(practice.env, policy, practice.corrections))
    return off_policy_learner(config, algorithm, algorithm.learner, actor=corrected, practice=shown, base=policy)


class GrowingCorrection:
    """SAC or TD3 of a correction whose scale grows from update to update; an algorithm of the training loop."""

    def __init__(
        self, correction: Correction, critic: ExecutedActionValues, method: ResidualConfig, *, seed: int = 0
    ) -> None:
        self.correction, self.method = correction, method
        algorithm = method.algorithm
        self.learner: SAC | TD3
        if isinstance(algorithm, SACTuningConfig):
            self.learner = SAC(correction, critic, half_entropy(algorithm, correction), seed=seed)
        else:
            self.learner = TD3(correction, critic, algorithm, seed=seed)
        self.corrections = tuple(part for part in self.learner.networks if isinstance(part, Correction))
        """The correction, and the target's, where there is one."""

    def update(self, batch: Sequence[ReplayBatch]) -> dict[str, Any]:
        """Learn from the batches at the scale of now; it is the same for all of them."""
        scale = self.scale
        for correction in self.corrections:
            correction.scale.fill_(scale)
        return self.learner.update(batch) | {"scale": scale}

    @property
    def scale(self) -> float:
        """Size of the largest correction after the gradient steps so far."""
        method = self.method
        return method.first_scale + self.learner.share_of(method.scale_steps) * (method.scale - method.first_scale)

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state)

    def rank_state_dict(self) -> dict[str, Any]:
        return self.learner.rank_state_dict()

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_rank_state_dict(state)
