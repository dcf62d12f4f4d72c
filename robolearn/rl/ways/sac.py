"""SAC that goes on from a cloned tanh-Gaussian, demonstrations in half of each batch (RLPD, Ball et al. 2023).

The policy keeps its weights, windows and chunks; a chunk is one action to the critics. They learn alone at first, from
the policy's own practice and the demonstrations, so that the actor does not climb values of chance.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.ways import SACTuningConfig
from robolearn.errors import PolicyError
from robolearn.policies.folder import policy_folder
from robolearn.policies.policy import Policy
from robolearn.rl.learner import Learner
from robolearn.rl.networks import QEnsemble
from robolearn.rl.offline.saved_critics import load_critics
from robolearn.rl.sac import SAC
from robolearn.rl.ways.ppo import with_min_std
from robolearn.rl.ways.practice import Practice, check_uncorrected, off_policy_learner
from robolearn.training import distributed


def prepare(
    config: FinetuneConfig, method: SACTuningConfig, policy: Policy, practice: Practice, device: torch.device
) -> Learner:
    """Return a learner of the policy. Raises PolicyError where it is no tanh-Gaussian."""
    check_uncorrected(policy, "sac")
    if not policy.head.reparameterised:
        raise PolicyError(
            "method sac climbs values through the policy's own actions, which needs a cloned tanh-Gaussian (train "
            f"--policy.head gaussian), this policy has head {policy.config.head.name!r}; method residual takes any "
            "policy as its base"
        )
    policy = with_min_std(policy, method.min_std)
    critic = QEnsemble.beside(policy, method.critic)
    saved = load_critics(policy_folder(config.policy), policy)
    if saved is not None and (saved.gamma, saved.reward) == (method.gamma, config.reward):
        critic, method = saved.critic, replace(method, critic=saved.config)
        _say(f"the critics that {config.policy} was learned with go on, {saved.config.members} of them")
    elif saved is not None:
        _say(
            f"the critics in {config.policy} learned reward {saved.reward} with gamma {saved.gamma:g}, practice has "
            f"reward {config.reward} with gamma {method.gamma:g}: new critics"
        )
    critic = critic.to(device)
    algorithm = SAC(policy, critic, half_entropy(method, policy), seed=config.seed)
    return off_policy_learner(config, algorithm, algorithm, actor=policy, practice=practice)


def half_entropy(method: SACTuningConfig, policy: Policy) -> SACTuningConfig:
    """Return the configuration with a target entropy: minus half the number of action dimensions where none is set."""
    if method.target_entropy is not None:
        return method
    return replace(method, target_entropy=-0.5 * policy.config.pred_steps * policy.action_spec.size)


def _say(note: str) -> None:
    if distributed.is_main():
        print(f"note: {note}", file=sys.stderr, flush=True)
