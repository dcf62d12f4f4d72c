"""What the guard watches, and how batches are flattened for the post-mortem."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from robolearn.training.finite_guard import FiniteGuard, NonFinite, named_tensors
from tests.policies.toy import make_batch


@pytest.mark.parametrize("name", ["loss", "value_loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_watched_metrics_stop_the_run(name: str, value: float) -> None:
    guard = FiniteGuard()
    guard.watch(1, None, {name: 1.0, "episode_return": float("nan")})
    with pytest.raises(NonFinite) as caught:
        guard.watch(2, "the batch", {name: value})
    assert caught.value.step == 2
    assert caught.value.batch == "the batch"


@pytest.mark.gpu
def test_on_a_device_the_culprit_is_found_a_few_steps_later() -> None:
    guard = FiniteGuard()
    values = torch.ones(20, device="cuda")
    values[7] = float("nan")

    def run() -> None:
        for step in range(20):
            guard.watch(step, f"batch {step}", {"loss": values[step]})

    with pytest.raises(NonFinite) as caught:
        run()
    assert caught.value.step == 7
    assert caught.value.batch == "batch 7"
    guard = FiniteGuard()
    guard.watch(0, None, {"loss": values[7]})
    with pytest.raises(NonFinite):
        guard.flush()


def test_batches_of_every_kind_are_flattened_by_name() -> None:
    class Pair(NamedTuple):
        obs: dict[str, torch.Tensor]
        rest: list[torch.Tensor]

    found = named_tensors(Pair(obs={"state": torch.ones(2)}, rest=[torch.zeros(1), torch.ones(1)]))
    assert set(found) == {"obs.state", "rest.0", "rest.1"}
    batch = named_tensors(make_batch(4))
    assert set(batch) == {"obs.state", "obs.goal.xy", "actions", "valid", "weights", "episodes", "steps"}
