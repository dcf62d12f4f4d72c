"""Heads say truly what algorithms ask them for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from robolearn.configuration.parts.plugins import BaseHeadConfig
from robolearn.configuration.parts.policy import (
    AutoregressiveHeadConfig,
    DeterministicHeadConfig,
    GaussianHeadConfig,
    MixtureHeadConfig,
)
from robolearn.policies.heads.head import Head
from robolearn.policies.noise import BatchNoise
from tests.policies.toy import make_policy

WIDE: dict[str, Any] = {"initial_std": 1.5, "max_std": 3.0}
HEADS: dict[str, BaseHeadConfig] = {
    "tanh-gaussian": GaussianHeadConfig(**WIDE),
    "tanh-gaussian, one std": GaussianHeadConfig(state_dependent_std=False, **WIDE),
    "gaussian": GaussianHeadConfig(squash=False, **WIDE),
    "mixture": MixtureHeadConfig(num_modes=3),
    "autoregressive": AutoregressiveHeadConfig(width=16, num_layers=1),
}
FEATURES = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))


def head_of(config: BaseHeadConfig) -> Head:
    return make_policy(config, pred_steps=2).head


@pytest.mark.parametrize("name", HEADS)
def test_reparameterised_samples_are_bounded_and_carry_gradients(name: str) -> None:
    head = head_of(HEADS[name])
    sample = head.distribution(FEATURES).sample(BatchNoise(256, "cpu", torch.Generator().manual_seed(0)))
    bounded = bool((sample.abs() <= 1.0).all())
    assert head.reparameterised == (bounded and sample.requires_grad)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "autoregressive"])
def test_the_mode_depends_on_the_parameters_said(name: str) -> None:
    head = head_of(HEADS[name])
    head.distribution(FEATURES).mode().sum().backward()
    moved = {id(p) for p in head.parameters() if p.grad is not None}
    assert {id(p) for p in head.mode_parameters()} == moved


@pytest.mark.parametrize("name", HEADS)
def test_a_start_near_zero_or_as_before(name: str) -> None:
    head = head_of(HEADS[name])
    before = {key: value.clone() for key, value in head.state_dict().items()}
    head.start_near_zero()
    changed = {key for key, value in head.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == ({"mean.weight", "mean.bias"} if "gaussian" in name else set())
    if changed:
        assert head.distribution(FEATURES).mode().abs().max() < 0.1


@pytest.mark.parametrize("config", [GaussianHeadConfig(squash=False), MixtureHeadConfig()])
def test_a_floor_raises_deviations_and_keeps_weights_and_mode(config: BaseHeadConfig) -> None:
    floored = config.with_floor(0.2)
    low, high = head_of(config), head_of(floored)
    with torch.no_grad():
        for parameter in low.parameters():
            parameter.mul_(30.0)
    high.load_state_dict(low.state_dict())
    before, after = (head.distribution(FEATURES) for head in (low, high))
    assert before.std.min() < 0.2 <= after.std.min() * (1 + 1e-6)  # type: ignore[attr-defined]
    assert torch.equal(before.mode(), after.mode())
    assert floored.with_floor(0.1) is floored


@pytest.mark.parametrize("config", [DeterministicHeadConfig(), AutoregressiveHeadConfig()])
def test_heads_without_deviations_stay_as_they_are(config: BaseHeadConfig) -> None:
    assert config.with_floor(math.inf) is config
