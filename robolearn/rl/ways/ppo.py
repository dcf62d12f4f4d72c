"""PPO on the exact likelihood of a cloned policy: its own windows, chunks and density, and a fresh critic beside it."""

from __future__ import annotations

from dataclasses import replace

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.ways import PPOTuningConfig
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.learner import Learner
from robolearn.rl.networks import ValueNetwork
from robolearn.rl.ppo import PPO, check_exact_likelihood
from robolearn.rl.ways.practice import Practice, check_uncorrected, practice_driver, shown_windows
from robolearn.training import distributed
from robolearn.training.seeding import untouched_rng


def prepare(
    config: FinetuneConfig, method: PPOTuningConfig, policy: Policy, practice: Practice, device: torch.device
) -> Learner:
    """Return a learner of the policy. Raises PolicyError where its head has no exact likelihood."""
    check_uncorrected(policy, "ppo")
    check_exact_likelihood(policy)
    policy = with_min_std(policy, method.min_std)
    critic = ValueNetwork.beside(policy, method.critic).to(device)
    shown = shown_windows(config, policy, weight=method.cloning_coef, device=device)
    total = config.loop.total_steps
    algorithm = PPO(policy, critic, method, total_updates=total, seed=config.seed, shown=shown)
    driver = practice_driver(config, practice, policy, gamma=method.gamma, device=device)
    generator = torch.Generator(device).manual_seed(distributed.own_seed(config.seed))
    source = RolloutCollector(driver, policy, method.num_steps, generator=generator, compile=method.compile)
    # PPO's updates have threads of their own: what the loop itself computes is one step of the environments.
    return Learner(algorithm=algorithm, source=source, actor=policy, networks=(policy,), rows=practice.env.num_envs)


def with_min_std(policy: Policy, min_std: float | None) -> Policy:
    """Return the policy with the same weights and a head whose deviations are at least `min_std`, where it can."""
    head = policy.config.head if min_std is None else policy.config.head.with_floor(min_std)
    if head == policy.config.head:
        return policy
    with untouched_rng():
        floored = build_policy(replace(policy.config, head=head), policy.observation_spec, policy.action_spec)
    floored.load_state_dict(policy.state_dict())
    return floored.to(next(policy.parameters()).device).eval()
