"""The corrector in a round without a person: an expert by name, or a better policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from robolearn.contract import reconcile
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import interface_of
from robolearn.envs.experts import make_expert
from robolearn.envs.interface import VectorEnv
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.specs import Actor, Observation


def make_corrector(name: str, env: VectorEnv) -> Actor:
    """Return who corrects in `env`: the policy in the folder `name`, else the expert of that name (`make_expert`).

    Raises TaskError where there is no such expert, PolicyError where the policy is not for this environment.
    """
    if name != "auto" and Path(name).is_dir():
        return PolicyCorrector(load_policy(name), env, name)
    return make_expert(name, env)


class PolicyCorrector:
    """A policy that says at every step what it would do there, in the units of the environment's limits."""

    def __init__(self, policy: Policy, env: VectorEnv, place: object) -> None:
        self._actions = reconcile(policy.interface(f"the correcting policy {place}"), interface_of(env))
        self._runner = PolicyRunner(policy, env.num_envs, exec_steps=1)

    def reset(self, seeds: Sequence[int], mask: Tensor | None = None) -> None:
        self._runner.reset(seeds, mask)

    def act(self, obs: Observation) -> Tensor:
        return self._actions(self._runner.act(obs))
