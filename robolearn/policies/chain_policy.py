"""A diffusion or flow policy as PPO sees it (DPPO, Ren et al. 2024): every step of its chain is an action.

    x_0 .. x_first          early steps, run by a network that stays as it was cloned
    x_first -> ... -> x_S   trained steps, each a Gaussian with a floor under its deviation: K' actions of one decision

What is sampled is a chain (B, K' + 1, Tp, A) in normalised units, of which the last state is the chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.noise import Noise
from robolearn.policies.policy import Policy


class ChainDistribution:
    """The density of the trained part of a chain, step by step."""

    def __init__(self, head: ChainHead, features: Tensor, first: int, min_std: float) -> None:
        self.head, self.features, self.first, self.min_std = head, features, first, min_std

    def sample(self, noise: Noise) -> Tensor:
        """Return chains (B, K' + 1, Tp, A)."""
        return self.head.sample_chain(self.features, noise, min_std=self.min_std)[:, self.first :]

    def log_prob(self, chain: Tensor, executed: Tensor) -> Tensor:
        """Return the log-density (B, K') of every step, averaged over the numbers that were executed.

        Args:
            chain: (B, K' + 1, Tp, A).
            executed: (B, Tp) bool.
        """
        every = self.head.chain_log_prob(self.features, chain, min_std=self.min_std, first=self.first)
        weights = executed.float() / (executed.sum(-1, keepdim=True).clamp_min(1) * every.shape[-1])  # (B, Tp)
        return torch.einsum("bkta,bt->bk", every, weights)


class ChainPolicy(nn.Module):
    """Samples and values the trained steps of a policy's chain; its parameters are those that PPO trains."""

    def __init__(self, policy: Policy, *, min_std: float) -> None:
        """
        Args:
            policy: trained from step `policy.head.early_steps` on, see `with_early_steps`.
            min_std: floor under every step's deviation while exploring, in normalised units.
        """
        super().__init__()
        head = policy.head
        assert isinstance(head, ChainHead), "prepared by with_early_steps"
        self.policy, self.config, self.min_std, self.first = policy, policy.config, min_std, head.early_steps
        if self.first:
            # Early and trained steps share the features, which must stay what the early network knows.
            policy.requires_grad_(False)
            head.network.requires_grad_(True)

    @property
    def steps(self) -> int:
        """Number K' of trained steps."""
        head = self.policy.head
        assert isinstance(head, ChainHead)
        return head.chain_steps - self.first

    def distribution(self, obs: dict[str, Tensor]) -> ChainDistribution:
        """Return the density of chains given windows (B, To, ...)."""
        head = self.policy.head
        assert isinstance(head, ChainHead)
        return ChainDistribution(head, self.policy.features(obs), self.first, self.min_std)

    def chunk(self, chain: Tensor) -> Tensor:
        """Return the actions (B, Tp, A) in file units that chains (B, K' + 1, Tp, A) end in, unclipped."""
        return self.policy.action_normaliser.denormalise(chain[:, -1])
