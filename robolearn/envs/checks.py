"""Check what an environment promises and cannot be seen from outside: that a seed fixes an episode."""

from __future__ import annotations

import torch

from robolearn.configuration.parts.task import environment_name
from robolearn.envs.interface import Observation, VectorEnv

MOST_ENVS = 64
"""Of more environments only robolearn's own tasks are made, which keep the promise."""


def ignores_seeds(env: VectorEnv, seed: int) -> str:
    """Return how `env` breaks the promise that a seed fixes an episode, in a sentence; empty where it keeps it.

    Resets all environments with one seed, twice: all first observations must be the same. To be called before an
    episode runs. Environments on a GPU are not asked.
    """
    if env.device.type != "cpu" or env.num_envs > MOST_ENVS:
        return ""
    seeds = [seed] * env.num_envs
    first = {key: value.clone() for key, value in env.reset(seeds).items()}
    if key := _differs(first, env.reset(seeds)):
        return (
            f"{environment_name(env.env_args)} ignores the seed of reset: with seed {seed} its {key!r} began "
            "differently each time. Episodes cannot be repeated, resumed or paired between policies. Draw from "
            "self.np_random after super().reset(seed=seed), as Gymnasium's API has it"
        )
    return ""


def _differs(first: Observation, second: Observation) -> str:
    """Return a key whose rows are not all the same in both; empty where there is none."""
    for key, value in first.items():
        same = torch.equal(value, second[key]) and torch.equal(value, value[:1].expand_as(value))
        if not same:
            return key
    return ""
