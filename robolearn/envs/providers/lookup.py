"""Third parties by the ids of their environments; a new one is one file in this folder and one entry here."""

from __future__ import annotations

import gymnasium as gym

from robolearn.envs.providers import gymnasium_robotics, metaworld
from robolearn.envs.providers.provider import Provider, Quirks, ScriptedExpert

PROVIDERS = (metaworld.PROVIDER, gymnasium_robotics.PROVIDER)
EXPERTS: dict[str, ScriptedExpert] = {p.expert.name: p.expert for p in PROVIDERS if p.expert is not None}
"""By name."""

_ANY = Provider()


def provider_of(gym_id: str) -> Provider:
    """Return who makes the environment `gym_id` (`Name-v0` or `module:Name-v0`); for all others a plain provider."""
    name = gym_id.rpartition(":")[2]
    return next((p for p in PROVIDERS if name.startswith(p.prefixes)), _ANY)


def expert_of(env_name: str) -> ScriptedExpert | None:
    """Return the scripted expert of a task, None where nobody brings one."""
    return next((expert for expert in EXPERTS.values() if env_name.startswith(expert.tasks)), None)


def quirks_of(env: gym.Env, gym_id: str) -> Quirks:
    """Return what a made environment needs; every provider is asked, for packages build on each other's classes."""
    found = (provider.quirks(env, gym_id) for provider in PROVIDERS)
    return next((quirks for quirks in found if quirks is not None), None) or Quirks(env)
