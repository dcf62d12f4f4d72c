"""Gradient steps of a loss against torch's own, and what they leave alone."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.engine.minibatches import MinibatchGroup
from robolearn.rl.engine.saving import load_states, states_of
from robolearn.rl.engine.target_update import TargetUpdate


class Row(NamedTuple):
    x: Tensor

    def map(self, function):
        return Row(function(self.x))

    def split(self, size):
        return [Row(part) for part in self.x.split(size)]


class Loss(nn.Module):
    """Squared output of a network, one of whose layers is frozen and another is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.idle = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), nn.Linear(2, 2)
        self.network[0].requires_grad_(False)

    def forward(self, row: Row) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.network(row.x).square().mean()
        return loss, {"loss": loss.detach()}


def test_steps_are_those_of_torchs_adam_and_metrics_are_one_a_step() -> None:
    ours, theirs, x = Loss(), Loss(), torch.randn(12, 3)
    optimiser = LossOptimiser(ours, trainable(ours), learning_rate=0.01)
    reference = torch.optim.Adam(trainable(theirs), lr=0.01)
    groups = [MinibatchGroup(Row(x[:10]), 2, 5), MinibatchGroup(Row(x[10:]), 1, 2)]
    metrics = optimiser.steps(groups)
    losses, norms = [], []
    for part in (x[:5], x[5:10], x[10:]):
        reference.zero_grad()
        loss, _ = theirs(Row(part))
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(trainable(theirs), torch.inf))
        reference.step()
        losses.append(loss.detach())
    torch.testing.assert_close(metrics["loss"], torch.stack(losses))
    torch.testing.assert_close(metrics["grad_norm"], torch.stack(norms))
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
    for frozen in ("network.0.weight", "idle.weight"):
        assert torch.equal(ours.get_parameter(frozen), Loss().get_parameter(frozen))


@pytest.mark.parametrize("name", ["critic_grad_norm", None])
def test_the_norm_has_the_name_it_is_given(name: str | None) -> None:
    loss = Loss()
    metrics = LossOptimiser(loss, trainable(loss), learning_rate=0.1, norm_name=name).step(Row(torch.ones(2, 3)))
    assert set(metrics) == {"loss"} | ({name} if name else set())


def test_a_target_goes_its_share_of_the_way_where_weights_are_trained() -> None:
    loss, copy = Loss(), Loss()
    optimiser = LossOptimiser(loss, trainable(loss.network), learning_rate=0.1)
    update = TargetUpdate(copy, loss, optimiser.adam, 0.25)
    before = {name: p.clone() for name, p in copy.named_parameters()}
    with torch.no_grad():
        for p in loss.parameters():
            p += 1.0
    update.step()
    for name, p in copy.named_parameters():
        moved = 0.25 if name.startswith("network.2") else 0.0  # neither the frozen layer nor one not given to Adam
        torch.testing.assert_close(p, before[name] + moved, msg=name)


def test_parts_go_on_where_they_were_and_a_missing_one_is_told() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    states = states_of({"layer": first, "off": None})
    assert states["off"] == {}
    load_states({"layer": second, "off": None}, states)
    assert torch.equal(first.weight, second.weight)
    with pytest.raises(KeyError):
        load_states({"another": second}, states)
