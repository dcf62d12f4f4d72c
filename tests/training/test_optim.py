"""Optimiser, schedules, clipping and averaging against plain PyTorch."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.errors import ConfigError
from robolearn.training.optim import MovingAverage, Optimiser, clip_gradients, ema_decay, schedule


def test_updates_equal_plain_adamw_with_the_same_step_sizes() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(4, 3)
    theirs = copy.deepcopy(ours)
    config = OptimiserConfig(learning_rate=0.02, weight_decay=0.1, warmup_steps=3, max_grad_norm=0.5, schedule="cosine")
    optimiser = Optimiser(ours, config, total_steps=20)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.02, weight_decay=0.1)
    for step in range(20):
        x = torch.randn(8, 4) * (3.0 if step % 2 else 0.1)
        norm = optimiser.step(ours(x).square().mean())
        reference.zero_grad()
        theirs(x).square().mean().backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        factor = (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 17))
        reference.param_groups[0]["lr"] = 0.02 * factor
        reference.step()
        torch.testing.assert_close(norm["grad_norm"], expected)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b)


def test_schedules_end_at_zero_and_start_after_warm_up() -> None:
    assert schedule(0, 100, 10, "cosine") == pytest.approx(0.1)
    for kind in ("cosine", "linear"):
        assert schedule(10, 100, 10, kind) == pytest.approx(1.0)
        assert schedule(55, 100, 10, kind) == pytest.approx(0.5)
        assert schedule(100, 100, 10, kind) == pytest.approx(0.0, abs=1e-12)
    assert schedule(99, 100, 0, "constant") == 1.0


def test_clipping_scales_only_what_is_too_large() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    for limit in (0.0, 100.0, 1.0):
        parameters[0].grad, parameters[1].grad = torch.full((3,), 2.0), torch.full((2,), -2.0)
        before = math.sqrt(5 * 4)
        assert float(clip_gradients(parameters, limit)) == pytest.approx(before)
        after = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))
        assert after == pytest.approx(1.0 if limit == 1.0 else before, rel=1e-5)


def test_moving_average_is_the_weighted_sum_of_past_weights() -> None:
    module = nn.BatchNorm1d(2)
    config = OptimiserConfig(ema_every=1, ema_power=0.75, ema_max_decay=0.9)
    average = MovingAverage(module, config)
    expected = module.weight.detach().clone()
    for n in range(1, 40):
        with torch.no_grad():
            module.weight.add_(1.0)
            module.running_mean.add_(1.0)  # type: ignore[union-attr]
        average.update()
        decay = min(0.9, 1 - (1 + n) ** -0.75)
        expected = decay * expected + (1 - decay) * module.weight.detach()
    result = average.average()
    torch.testing.assert_close(result.weight.detach(), expected)
    assert torch.equal(result.running_mean, module.running_mean)  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in result.parameters())
    assert ema_decay(10**9, 0.75, 0.9999) == 0.9999


def test_averaging_now_and_then_stays_close_to_averaging_always() -> None:
    module = nn.Linear(1, 1, bias=False)
    averages = [MovingAverage(module, OptimiserConfig(ema_every=every)) for every in (1, 10)]
    for n in range(1, 1001):
        with torch.no_grad():
            module.weight.fill_(math.sin(n / 200))
        for average in averages:
            average.update()
    a, b = (float(average.average().weight.detach()) for average in averages)
    assert a == pytest.approx(b, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (OptimiserConfig, {"learning_rate": 0.0}),
        (OptimiserConfig, {"betas": (0.9, 1.0)}),
        (OptimiserConfig, {"weight_decay": -1.0}),
        (OptimiserConfig, {"ema_max_decay": 1.0}),
        (OptimiserConfig, {"ema_every": 0}),
        (LoopConfig, {"total_steps": 0}),
        (LoopConfig, {"log_every": 0}),
        (LoopConfig, {"checkpoint_every": -1}),
    ],
)
def test_bad_settings_are_refused_with_the_value(kind: type, bad: dict) -> None:
    with pytest.raises(ConfigError, match="received"):
        kind(**bad)
