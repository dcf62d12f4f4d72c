"""Small policies and batches for the tests of policies, training and imitation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robolearn.configuration.parts.policy import LSTMConfig, MLPConfig, PolicyConfig
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec, Batch, ObservationSpec

OBSERVATION = ObservationSpec({"state": ArraySpec(shape=(5,)), "goal.xy": ArraySpec(shape=(2,), dtype="float64")})
ACTION = ActionSpec(low=(-2.0, -1.0, 0.0), high=(2.0, 1.0, 0.5))


def statistics(rng: np.random.Generator | None = None) -> dict[str, dict[str, np.ndarray]]:
    rng = rng or np.random.default_rng(0)
    result = {}
    for key, size in {"state": 5, "goal.xy": 2, "actions": 3}.items():
        mean, std = rng.normal(size=size), rng.uniform(0.5, 2.0, size=size)
        result[key] = {"mean": mean, "std": std, "min": mean - 3 * std, "max": mean + 3 * std}
        result[key] |= {"q01": mean - 2 * std, "q99": mean + 2 * std}
    return result


def make_policy(head: Any, backbone: str = "mlp", *, seed: int = 0, **config: Any) -> Policy:
    torch.manual_seed(seed)
    network = {"mlp": MLPConfig(hidden_sizes=(64, 64)), "lstm": LSTMConfig(hidden_size=24, num_layers=2)}[backbone]
    return build_policy(PolicyConfig(head=head, backbone=network, **config), OBSERVATION, ACTION, statistics())


def make_obs(B: int, To: int | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """(B, To, ...) windows, or (B, ...) observations where To is None."""
    generator = torch.Generator().manual_seed(seed)
    lead = (B,) if To is None else (B, To)
    return {
        key: torch.randn(*lead, *spec.shape, generator=generator).to(getattr(torch, spec.dtype))
        for key, spec in OBSERVATION.items()
    }


def make_batch(B: int, To: int = 1, Tp: int = 1, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed + 1)
    steps = To - 1 + Tp
    return Batch(
        obs=make_obs(B, To, seed),
        actions=torch.rand(B, steps, ACTION.size, generator=generator) * 2 - 1,
        valid=torch.ones(B, steps, dtype=torch.bool),
        weights=torch.ones(B),
        episodes=torch.arange(B) // 4,
        steps=torch.arange(B) % 4,
    )
