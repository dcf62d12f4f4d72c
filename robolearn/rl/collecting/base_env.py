"""The environment around a base policy: it shows what the base would do next, and leaves the last word to the learner.

    obs_t, b_t ──▶ learner: a_t = b_t + scale c_t ──▶ environment ──▶ obs_t+1 ──▶ base ──▶ b_t+1

To an algorithm this is an environment like any other: the base's history and chunk queue are part of its state, and
a seed fixes an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import AdaptedEnv
from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION, with_action
from robolearn.rl.collecting.corrected_env import CorrectedEnv
from robolearn.specs import ObservationSpec


class BaseEnv(AdaptedEnv):
    """Another environment, with the action of a policy (`BASE_ACTION`) among what is observed.

    The base acts as it does when it is evaluated: by its mode.
    """

    def __init__(self, env: VectorEnv, base: Policy, corrections: CorrectedEnv | None = None) -> None:
        """
        Args:
            env: in the base's units (`robolearn.episodes.actor.env_for`).
            corrections: `env`, or the environment within it, in which a corrector may take over; as an `EpisodeDriver`
                is told it.
        """
        super().__init__(env)
        self.corrections = corrections
        self.runner = PolicyRunner(base, env.num_envs)
        self.proposed = torch.zeros(env.num_envs, env.action_spec.size, device=env.device)

    @property
    def observation_spec(self) -> ObservationSpec:
        return with_action(self.inner.observation_spec, self.inner.action_spec)

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        obs = self.inner.reset(seeds, mask)
        self.runner.reset(seeds, mask)
        return self._with_proposals(obs, mask)

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        step = self.inner.step(actions, mask)
        if self.corrections is not None and bool(self.corrections.corrected.any()):
            self.runner.replan(self.corrections.corrected)  # a plan is of the way that a corrector left
        return replace(step, obs=self._with_proposals(step.obs, mask))

    def _with_proposals(self, obs: Observation, mask: torch.Tensor | None) -> Observation:
        """Ask the base about the environments that moved; the others' proposals stay."""
        proposed = self.runner.act(obs, mask).to(self.device)
        self.proposed = proposed if mask is None else torch.where(mask[:, None], proposed, self.proposed)
        return obs | {BASE_ACTION: self.proposed}
