"""The flat Adam against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robolearn.rl.engine.adam import FlatAdam


@pytest.mark.parametrize("limit", [0.0, 0.1])
def test_equals_torchs_adam(limit: float) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    theirs = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    theirs.load_state_dict(ours.state_dict())
    parameters = list(ours.parameters())
    flat = FlatAdam(parameters, learning_rate=0.01, eps=1e-5, max_grad_norm=limit)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    for i in range(20):
        x = torch.randn(8, 3)
        if i == 10:
            flat.learning_rate.fill_(0.002)
            reference.param_groups[0]["lr"] = 0.002
        norm = flat.step(torch.autograd.grad(ours(x).square().sum() * (i + 1), parameters))
        reference.zero_grad()
        (theirs(x).square().sum() * (i + 1)).backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), limit or torch.inf)
        reference.step()
        torch.testing.assert_close(norm, expected, rtol=1e-4, atol=0.0)
        for a, b in zip(parameters, theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_state_goes_on_where_it_was_and_the_module_stays_whole() -> None:
    def make() -> tuple[nn.Linear, FlatAdam]:
        torch.manual_seed(0)
        layer = nn.Linear(2, 2)
        return layer, FlatAdam(list(layer.parameters()), learning_rate=0.1)

    def run(layer: nn.Linear, adam: FlatAdam, steps: int) -> None:
        for _ in range(steps):
            adam.step(torch.autograd.grad(layer(torch.ones(1, 2)).exp().sum(), adam.parameters))

    whole, first, second = make(), make(), make()
    run(*whole, 6)
    run(*first, 3)
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    run(*second, 3)
    assert torch.equal(whole[0].weight, second[0].weight)
    assert torch.equal(second[1].vector, torch.cat([p.flatten() for p in second[0].parameters()]))
