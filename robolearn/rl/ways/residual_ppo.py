"""On-policy residual learning (after ResIP, arXiv 2407.16677): PPO of a small correction of a frozen policy, any head.

    base, frozen ──▶ environment that shows its next action ──▶ rollouts of base and correction ──▶ PPO

The density is the correction's, which is exact whatever the base is; nothing asks for that of the base.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.ways import ResidualPPOConfig
from robolearn.policies.policy import Policy
from robolearn.policies.residual import ResidualPolicy, build_correction
from robolearn.rl.collecting.base_env import BaseEnv
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.learner import Learner
from robolearn.rl.networks import ValueNetwork
from robolearn.rl.ppo import PPO
from robolearn.rl.ways.practice import Practice, practice_driver
from robolearn.training import distributed


def prepare(
    config: FinetuneConfig, method: ResidualPPOConfig, policy: Policy, practice: Practice, device: torch.device
) -> Learner:
    """Return a learner of a correction of `policy`, which itself stays as it is.

    Raises PolicyError where the policy has no normalisers that the correction could take over.
    """
    correction = build_correction(method.policy, policy, method.scale)
    critic = ValueNetwork.beside(correction, method.critic).to(device)
    algorithm = PPO(correction, critic, method, total_updates=config.loop.total_steps, seed=config.seed)
    shown = replace(practice, env=BaseEnv(practice.env, policy))
    driver = practice_driver(config, shown, correction, gamma=method.gamma, device=device)
    generator = torch.Generator(device).manual_seed(distributed.own_seed(config.seed))
    source = RolloutCollector(driver, correction, method.num_steps, generator=generator, compile=method.compile)
    actor, rows = ResidualPolicy(policy, correction), practice.env.num_envs
    return Learner(algorithm=algorithm, source=source, actor=actor, networks=(correction,), rows=rows)
