"""Training episodes of fine-tuning, whatever the way."""

from __future__ import annotations

import math

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.envs.interface import VectorEnv
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.macro_steps import EpisodeDriver
from robolearn.rl.collecting.shared_seeds import SharedSeeds


def practice_driver(
    config: FinetuneConfig, env: VectorEnv, policy: Policy, *, gamma: float, device: torch.device
) -> EpisodeDriver:
    """Return a driver of training episodes that keeps the windows which the policy sees."""
    return EpisodeDriver(
        env,
        seeds=SharedSeeds(config.practice_seeds.start, len(config.practice_seeds)),
        gamma=gamma,
        obs_keys=tuple(policy.observation_spec),
        obs_steps=policy.config.obs_steps,
        reward=config.reward,
        largest_obs=math.inf,  # the policy's normalisers know the magnitudes
        device=device,
    )
