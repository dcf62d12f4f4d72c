"""The environment as a success classifier judges it: a task is solved where the classifier says so.

What the environment itself calls solved is not looked at; on a real robot nobody says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.contract import Interface, check_observations
from robolearn.envs.adapted import AdaptedEnv, interface_of
from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.envs.make import make
from robolearn.errors import PolicyError
from robolearn.rl.reward.classifier import SuccessClassifier, load_classifier


class ClassifiedEnv(AdaptedEnv):
    """Another environment whose success is a classifier's: as many steps in a row as it asks for.

    To be put around an environment that goes on where it is solved.
    """

    def __init__(self, env: VectorEnv, classifier: SuccessClassifier) -> None:
        """Raises PolicyError where the classifier does not see what the environment shows."""
        offers = interface_of(env)
        needs = Interface(
            name="the success classifier",
            observation_spec=classifier.observation_spec,
            action_spec=offers.action_spec,
        )
        check_observations(needs, offers)
        super().__init__(env)
        self.classifier = classifier
        self._device = next(classifier.parameters()).device
        self._held = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        self._held = torch.zeros_like(self._held) if mask is None else self._held.masked_fill(mask, 0)
        return self.inner.reset(seeds, mask)

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        step = self.inner.step(actions, mask)
        seen = {key: step.obs[key].to(self._device) for key in self.classifier.observation_spec}
        solved = (self.classifier.probability(seen) >= self.classifier.config.threshold).to(self.device)
        held = torch.where(solved, self._held + 1, 0)
        self._held = held if mask is None else torch.where(mask, held, self._held)
        return replace(step, success=self._held >= self.classifier.config.hold_steps)


def make_judged(task: TaskConfig, num_envs: int, reward_from: str, *, device: str, networks: torch.device) -> VectorEnv:
    """Return environments to practise in, judged by the classifier in the folder `reward_from`, or by themselves.

    Args:
        device: of the physics.
        networks: where the classifier computes.
    """
    if not reward_from:
        return make(task, num_envs, device=device)
    classifier = load_classifier(reward_from, networks)
    env = make(replace(task, terminate_on_success=False), num_envs, device=device)
    try:
        return ClassifiedEnv(env, classifier)
    except PolicyError:
        env.close()
        raise
