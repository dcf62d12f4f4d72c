"""CUDA graphs: recorded updates against eager ones, on a card, and anywhere with a stand-in for what a card does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import PPOConfig, QConfig, SACConfig
from robolearn.rl import off_policy, ppo, sac
from robolearn.rl.engine import graphs, loss_optimiser
from robolearn.rl.engine.compiling import CHANGING
from robolearn.rl.engine.graphs import GraphedCalls
from tests.rl import test_off_policy as off, test_ppo as on
from tests.rl.toys import Ledger

CRITIC = QConfig(hidden_sizes=(16,))


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a device on which calls are recorded."""
    if request.param != "stand-in":
        return request.param

    def record(recording: Any) -> None:
        recording.graph = True

    def replay(recording: Any) -> None:
        """Do what was recorded, with results in the same memory each time."""
        results = recording.function(*recording.arguments)
        recording.outputs = results if recording.outputs is None else recording.outputs
        for name, value in results.items() if isinstance(results, dict) else ():
            recording.outputs[name].copy_(value)
        if isinstance(results, Tensor):
            recording.outputs.copy_(results)

    monkeypatch.setattr(graphs, "CARD", "cpu")
    monkeypatch.setattr(graphs.Recording, "record", record)
    monkeypatch.setattr(graphs.Recording, "replay", replay)
    return "cpu"


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "redq"])
def test_recorded_updates_equal_eager_ones(algorithm: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels in the same order, without a compiler: the same parameters, metrics and actions."""
    made: list[GraphedCalls] = []

    def recorded(method: Any) -> GraphedCalls:
        made.append(GraphedCalls(method, method.__self__, CHANGING))
        return made[-1]

    for module in (loss_optimiser, ppo, off_policy, sac):
        monkeypatch.setattr(module, "compiled", recorded)

    def learn(compile: bool) -> list[Tensor]:
        torch.manual_seed(0)
        common: dict[str, Any] = {"compile": compile, "max_grad_norm": 0.5, "learning_rate": 3e-3}
        found: list[Tensor] = []
        if algorithm == "ppo":
            settings = PPOConfig(num_steps=16, epochs=2, batch_size=24, normalise_obs=True, **common)
            collector, learner = on.make(Ledger(4), settings, device=device)
            for _ in range(5):
                metrics = learner.update(collector.next())
            found.append(torch.tensor([metrics[name] for name in ("policy_loss", "value_loss", "kl", "grad_norm")]))
        else:
            critic = CRITIC if algorithm == "sac" else replace(CRITIC, members=4, subset=2)
            settings = SACConfig(critic=critic, policy_delay=2, **common)
            _, learner = off.make(Ledger(1), settings, device=device)
            learner.generator = None
            torch.manual_seed(0)
            onto = lambda field: field.to(device)  # noqa: E731
            for _ in range(8):
                found.append(learner.explore({k: onto(v) for k, v in off.some_batch(3).obs.items()}))
                found += learner.update([off.some_batch(64).map(onto)]).values()
        return [learner.actor_optimiser.adam.vector, learner.critic_optimiser.adam.vector, *found]

    eager = learn(compile=False)
    assert not made
    for one, other in zip(eager, learn(compile=True), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    replayed = [r for calls in made for r in calls.recordings.values() if r.graph is not None]
    assert len(replayed) >= 2, "critic and actor of PPO; the two kinds of SAC's step, and its samples"


def test_a_kind_of_arguments_has_a_recording_of_its_own(device: str) -> None:
    """Shapes, plain arguments, the mode of gradients and what modules are set to; results outlive the next call."""

    class Owner:
        def __init__(self) -> None:
            self.layer = nn.Dropout(0.5).to(device).eval()
            self.total = torch.zeros((), device=device)

        def scaled(self, x: Tensor, factor: float) -> Tensor:
            self.total += 1.0
            return self.layer(x) * factor

    owner = Owner()
    calls = GraphedCalls(owner.scaled, owner, ("training",))
    ones = torch.ones(64, device=device)
    results = [calls(k * ones, 2.0) for k in range(4)]
    for k, result in enumerate(results):
        torch.testing.assert_close(result, 2.0 * k * ones)
    assert len(calls.recordings) == 1
    assert torch.equal(calls(ones, 3.0), 3.0 * ones)
    assert torch.equal(calls(ones[:2], 3.0), 3.0 * ones[:2])
    with torch.no_grad():
        calls(ones, 3.0)
    assert len(calls.recordings) == 4
    owner.layer.train()
    assert (calls(ones, 2.0) == 0.0).any(), "dropout"
    assert len(calls.recordings) == 5
    assert float(owner.total) == 8.0


def test_other_devices_record_nothing() -> None:
    calls = GraphedCalls(lambda x: 2.0 * x)
    assert [float(calls(torch.tensor(float(k)))) for k in range(3)] == [0.0, 2.0, 4.0]
    assert not calls.recordings
