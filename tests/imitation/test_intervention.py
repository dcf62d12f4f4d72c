"""Interventions: what is executed, logged and labelled when a gate hands control over, and what becomes of chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robolearn.configuration.parts.policy import GaussianHeadConfig
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import TaskError
from robolearn.imitation.gates.gate import BaseGate, Verdict, View
from robolearn.imitation.intervention import InterventionDriver
from robolearn.specs import ActionMode
from tests.policies.toy import ACTION, make_obs, make_policy

N = 3


class Scheduled(BaseGate):
    """Corrects environment 1 in steps 2 and 3, and remembers what it was told."""

    def __init__(self) -> None:
        self.step, self.views, self.heard = 0, [], []

    def judge(self, view: View) -> Verdict:
        self.views.append(view)
        correct = np.zeros(N, bool)
        correct[1] = self.step in (2, 3)
        self.step += 1
        back = (1,) if self.step == 4 else ()
        return Verdict(correct=correct, score=np.full(N, 0.25 * self.step), reasons={1: "on schedule"}, recovered=back)

    def told(self, corrected: np.ndarray, scores: np.ndarray, index: int | None) -> None:
        self.heard.append((index, corrected.tolist(), scores.tolist()))


class Corrector:
    """Always does the same."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def reset(self, seeds: object, mask: Tensor | None = None) -> None:
        """Nothing is kept."""

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        return torch.full((N, ACTION.size), self.value)


@pytest.fixture
def driver() -> InterventionDriver:
    policy = make_policy(GaussianHeadConfig(), pred_steps=4, exec_steps=4)
    made = InterventionDriver(PolicyRunner(policy, N), Corrector(), Scheduled(), N)
    made.reset(seeds=[7, 8, 9], mask=torch.ones(N, dtype=torch.bool))
    return made


def observations(steps: int) -> list[dict[str, Tensor]]:
    return [make_obs(N, seed=step) for step in range(steps)]


def test_who_acted_what_was_proposed_and_why_is_said(driver: InterventionDriver) -> None:
    decisions = [driver.decide(obs) for obs in observations(6)]
    modes = torch.stack([d.modes for d in decisions])
    assert modes[:, 1].tolist() == [0, 0, 1, 1, 0, 0]
    assert not modes[:, [0, 2]].any()
    for step, decision in enumerate(decisions):
        corrected = step in (2, 3)
        assert decision.policy_actions is not None
        assert torch.isfinite(decision.policy_actions).all()
        expected = torch.full((ACTION.size,), 0.5) if corrected else decision.policy_actions[1]
        assert torch.equal(decision.actions[1], expected)
        assert decision.expert_actions is not None
        labelled = torch.isfinite(decision.expert_actions).all(-1).tolist()
        assert labelled == [False, corrected, False]
        assert decision.gate is not None
        assert decision.gate.tolist() == [0.25 * (step + 1)] * N
    events = [(step, *event) for step, d in enumerate(decisions) for event in d.events]
    hand_overs = [(2, 1, "takeover", "on schedule"), (4, 1, "release", "on schedule")]
    assert events == [hand_overs[0], (3, 1, "mark", "recovered"), hand_overs[1]]


def test_a_takeover_drops_the_rest_of_the_chunk(driver: InterventionDriver) -> None:
    """Environment 1 plans anew while corrected and after; its neighbours execute their chunks to the end."""
    chunks: list[list[int]] = []
    plan = driver.policy._plan
    driver.policy._plan = lambda rows: (chunks.append(list(rows)), plan(rows))[1]  # type: ignore[method-assign]
    for obs in observations(8):
        driver.decide(obs)
    #       step 0       3    4                  7 (the chunk of step 4 ends)
    assert chunks[0] == [0, 1, 2]
    assert chunks[1:] == [[1], [0, 1, 2]]


def test_the_gate_hears_of_every_finished_episode(driver: InterventionDriver) -> None:
    for obs in observations(4):
        driver.decide(obs)
    mask = torch.tensor([False, True, False])
    driver.reset(seeds=[10], mask=mask)
    gate = driver.gate
    assert isinstance(gate, Scheduled)
    assert gate.heard == [(1, [False, False, True, True], [0.25, 0.5, 0.75, 1.0])]
    driver.decide(observations(1)[0])
    driver.finish()
    assert [(index, len(corrected)) for index, corrected, _ in gate.heard] == [(1, 4), (0, 5), (1, 1), (2, 5)]


def test_an_expert_that_returns_nan_is_named(driver: InterventionDriver) -> None:
    driver.corrector = Corrector(float("nan"))
    steps = observations(3)
    driver.decide(steps[0])  # nobody is corrected: the label is not used
    driver.decide(steps[1])
    with pytest.raises(TaskError, match="not finite at step 2 of the episode with seed 8"):
        driver.decide(steps[2])


def test_modes_of_a_mixture_are_turns_and_no_interventions(driver: InterventionDriver) -> None:
    driver.gate.mode, driver.gate.labels_everything = ActionMode.EXPERT, True  # type: ignore[misc]
    decisions = [driver.decide(obs) for obs in observations(4)]
    assert [int(d.modes[1]) for d in decisions] == [0, 0, 2, 2]
    assert not any(d.events for d in decisions)
    assert all(torch.isfinite(d.expert_actions).all() for d in decisions if d.expert_actions is not None)


def test_an_expert_that_returns_too_few_labels_is_named(driver: InterventionDriver) -> None:
    driver.corrector.act = lambda obs: torch.zeros(N - 1, ACTION.size)  # type: ignore[method-assign]
    with pytest.raises(TaskError, match=rf"for each of {N} environments, received \({N - 1}, {ACTION.size}\)"):
        driver.decide(observations(1)[0])


def test_an_expert_that_asks_for_more_than_the_limits_is_clipped_for_the_gate(driver: InterventionDriver) -> None:
    driver.corrector = Corrector(3.0)
    for obs in observations(3):
        driver.decide(obs)
    gate = driver.gate
    assert isinstance(gate, Scheduled)
    assert float(gate.views[-1].labels.max()) == 1.0
