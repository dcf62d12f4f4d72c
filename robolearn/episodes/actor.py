"""Acting: one protocol for experts, policies, people and mixtures of them.

An `Actor` (an expert, a `PolicyRunner`) knows what to do. A `Driver` decides, from any number of actors, what is
executed, and says who acted, what the policy proposed and what the right action would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import fitted
from robolearn.envs.interface import VectorEnv
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode, Actor, EventKind, Observation


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The next step of N environments, and its reasons."""

    actions: Tensor
    """(N, A) in [-1, 1], executed; (N,) int64 where actions are discrete."""
    modes: Tensor
    """(N,) int8 of ActionMode."""
    policy_actions: Tensor | None = None
    """(N, A), the policy's proposals; None where no policy was asked."""
    expert_actions: Tensor | None = None
    """(N, A), the labels; None where nobody labels."""
    gate: Tensor | None = None
    """(N,), the gate's score; None where no gate runs."""
    events: tuple[tuple[int, EventKind, str], ...] = ()
    """(environment index, kind, reason) of what happened just before this step."""


class Driver(Protocol):
    """Decides every step. `reset` is called for each episode before its first `decide`."""

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        """Begin new episodes in the masked environments; `seeds` has one for each of them."""
        ...

    def decide(self, obs: Observation) -> Decision:
        """Return what the environments that show (N, ...) observations do next."""
        ...


class ActorDriver:
    """Lets one actor do everything."""

    def __init__(self, actor: Actor, num_envs: int, mode: ActionMode = ActionMode.POLICY) -> None:
        self.actor = actor
        self._modes = torch.full((num_envs,), int(mode), dtype=torch.int8)

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        self.actor.reset(seeds=seeds, mask=mask)

    def decide(self, obs: Observation) -> Decision:
        return Decision(actions=self.actor.act(obs), modes=self._modes)


def env_for(policy: Policy, env: VectorEnv, place: object = "") -> VectorEnv:
    """Return `env` as the policy knows it: in the units of the policy's limits, where these are others.

    Args:
        place: the policy's folder, for messages.

    Raises PolicyError where the policy is not for this environment: `robolearn.contract.reconcile`.
    """
    return fitted(env, policy.interface(f"the policy {place}".strip()))


def as_actor(policy: Policy | Actor, env: VectorEnv, *, deterministic: bool = True) -> Actor:
    """Return a runner for a policy; anything that acts already is returned as it is."""
    if isinstance(policy, Policy):
        return PolicyRunner(policy, env.num_envs, deterministic=deterministic)
    return policy
