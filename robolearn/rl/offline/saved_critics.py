"""Critics in a policy's folder, as `critic.safetensors`: what offline learning knew, for practice to go on from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from robolearn.configuration.parts.algorithms import QConfig
from robolearn.configuration.tree import from_dict, to_dict
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.policy import Policy
from robolearn.rl.networks import QEnsemble

CRITIC_FILE = "critic.safetensors"


@dataclass(frozen=True, kw_only=True)
class SavedCritics:
    """Critics of a policy's actions, as they were learned."""

    critic: QEnsemble
    config: QConfig
    gamma: float
    """Discount of one control step."""
    reward: str
    """Which reward they learned, `success` or `env`."""


def save_critics(folder: Path, critic: QEnsemble, config: QConfig, *, gamma: float, reward: str) -> None:
    """Write critics into a policy's folder."""
    weights = {name: value.detach().cpu().contiguous() for name, value in critic.state_dict().items()}
    facts = {"critic": json.dumps(to_dict(config)), "gamma": repr(gamma), "reward": reward}
    save_file(weights, folder / CRITIC_FILE, metadata=facts)


def load_critics(folder: Path, policy: Policy) -> SavedCritics | None:
    """Return the critics in a policy's folder; None where there are none.

    Raises PolicyError where they are damaged or not of this policy.
    """
    path = folder / CRITIC_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
        config = from_dict(QConfig, json.loads(facts["critic"]))
        critic = QEnsemble.beside(policy, config)
        critic.load_state_dict(load_file(path))
        gamma, reward = float(facts["gamma"]), facts["reward"]
    except (SafetensorError, ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PolicyError(f"{path} does not hold critics of this policy: {error}; remove it to begin anew") from None
    return SavedCritics(critic=critic, config=config, gamma=gamma, reward=reward)
