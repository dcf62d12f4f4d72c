"""PPO on diffusion and flow policies (DPPO, Ren et al. 2024): the last steps of the chain are the actions it learns.

    environment   s_t ------------------------------------> s_t+1    GAE; the critic sees observations only
    chain             x_first -> ... -> x_k+1 -> ... -> x_S          step k answers for A * gamma_d^(S - 1 - k)

Flow has no noise of its own, and DDIM need not have: the floor under each step's deviation is what explores. Once
trained, the policy acts as any of its kind, by its own sampler and by the steps that were trained.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.ways import ChainPPOConfig
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.chain_policy import ChainPolicy
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.learner import Learner
from robolearn.rl.networks import ValueNetwork
from robolearn.rl.ppo import PPO, ActorLoss
from robolearn.rl.ways.practice import Practice, check_uncorrected, practice_driver, shown_windows
from robolearn.training import distributed
from robolearn.training.seeding import untouched_rng


class ChainActorLoss(ActorLoss):
    """The clipped surrogate of every trained step, with a clip and a share of the advantage of its own."""

    shares: Tensor

    def __init__(self, policy: ChainPolicy, config: ChainPPOConfig) -> None:
        super().__init__(policy, config, None)
        device = next(policy.parameters()).device
        k = torch.arange(policy.steps, device=device)
        self.clip = config.clip * (config.first_clip / config.clip) ** _to_go(k)  # eps_k, growing geometrically
        self.register_buffer("shares", config.denoising_gamma ** (policy.steps - 1 - k).float())  # gamma_d^(K' - 1 - k)

    def credit(self, advantages: Tensor) -> Tensor:
        """Return (B, K'): the later a step, the more it decides."""
        return advantages[:, None] * self.shares


class ChainPPO(PPO):
    """PPO whose actions are the trained steps of a chain."""

    policy: ChainPolicy
    config: ChainPPOConfig

    def _make_actor_loss(self, generator: torch.Generator | None) -> ActorLoss:
        return ChainActorLoss(self.policy, self.config)


def prepare(
    config: FinetuneConfig, method: ChainPPOConfig, policy: Policy, practice: Practice, device: torch.device
) -> Learner:
    """Return a learner of the policy's last steps.

    Raises PolicyError where the policy is no chain whose steps have densities, ConfigError where it is too short.
    """
    divided = with_early_steps(policy, method.trained_steps)
    explorer = ChainPolicy(divided, min_std=method.min_std)
    critic = ValueNetwork.beside(divided, method.critic).requires_grad_(True).to(device)
    shown = shown_windows(config, divided, weight=method.cloning_coef, device=device)
    total = config.loop.total_steps
    algorithm = ChainPPO(explorer, critic, method, total_updates=total, seed=config.seed, shown=shown)
    driver = practice_driver(config, practice, divided, gamma=method.gamma, device=device)
    generator = torch.Generator(device).manual_seed(distributed.own_seed(config.seed))
    source = RolloutCollector(driver, explorer, method.num_steps, generator=generator)
    # PPO's updates have threads of their own: what the loop itself computes is one step of the environments.
    return Learner(algorithm=algorithm, source=source, actor=divided, networks=(divided,), rows=practice.env.num_envs)


def _to_go(k: Tensor) -> Tensor:
    """Return the share (K',) of the steps that are left after each, from one at the first to zero at the last."""
    return 1.0 - k / (len(k) - 1) if len(k) > 1 else torch.zeros_like(k, dtype=torch.float32)


def with_early_steps(policy: Policy, trained_steps: int | None) -> Policy:
    """Return the same policy whose last `trained_steps` are run by a network of their own.

    Args:
        trained_steps: None takes all that no earlier fine-tuning set apart.

    Raises PolicyError where the policy is no chain or its steps have no density, ConfigError where it has fewer steps.
    """
    check_uncorrected(policy, "chain_ppo")
    head = policy.head
    if not isinstance(head, ChainHead):
        remedy = "method ppo trains it" if policy.exact_likelihood else "method residual takes any policy as its base"
        raise PolicyError(
            f"method chain_ppo trains the steps of diffusion and flow heads, this policy has head "
            f"{policy.config.head.name!r}; {remedy}"
        )
    if not head.has_densities:
        raise PolicyError(
            f"method chain_ppo needs a density of each step, which those of this head's multistep solver do not have "
            f"({policy.config.head}); train the policy with policy.head.solver ddim or ddpm"
        )
    trained_steps = head.chain_steps - head.early_steps if trained_steps is None else trained_steps
    if not 1 <= trained_steps <= head.chain_steps - head.early_steps:
        raise ConfigError(
            f"trained_steps must lie between 1 and the {head.chain_steps - head.early_steps} steps of this policy that "
            f"no earlier fine-tuning set apart, received {trained_steps}"
        )
    early = head.chain_steps - trained_steps
    if early == head.early_steps:
        return policy
    if head.early_steps:
        raise ConfigError(
            f"this policy's first {head.early_steps} steps were set apart by an earlier fine-tuning; train the same "
            f"number again: trained_steps {head.chain_steps - head.early_steps}"
        )
    config = replace(policy.config, head=replace(policy.config.head, early_steps=early))
    with untouched_rng():
        divided = build_policy(config, policy.observation_spec, policy.action_spec)
    missing, unexpected = divided.load_state_dict(policy.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("head.early_network.") for name in missing)
    assert isinstance(divided.head, ChainHead)
    assert divided.head.early_network is not None
    divided.head.early_network.load_state_dict(head.network.state_dict())
    return divided.to(next(policy.parameters()).device).eval()
