"""A gate that asks a person: what it sees, what it hears, and that the person decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.gates import BetaGateConfig, ThriftyGateConfig
from robolearn.errors import ConfigError
from robolearn.imitation.asker import GateAsker
from robolearn.imitation.gates.gate import BaseGate, Verdict, View

OBS = {"place": torch.zeros(1, 2)}
PROPOSAL = torch.zeros(1, 2)


class Wary(BaseGate):
    """Always wants the other to drive."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.begun: list[int] = []
        self.heard: list[tuple[list[bool], list[float], int | None]] = []

    def reset(self, seeds: object, mask: Tensor) -> None:
        self.begun += list(seeds)  # type: ignore[call-overload]

    def judge(self, view: View) -> Verdict:
        self.views.append(view)
        score = float(len(self.views))
        return Verdict(correct=~view.correcting, score=np.array([score]), reasons={0: f"novelty {score:g}"})

    def told(self, corrected: np.ndarray, scores: np.ndarray, index: int | None) -> None:
        self.heard.append((corrected.tolist(), scores.tolist(), index))


def test_the_gate_asks_but_does_not_take_back() -> None:
    gate = Wary()
    asker = GateAsker(gate)
    asker.reset(7)
    assert asker.judge(OBS, {}, PROPOSAL, None) == (1.0, "novelty 1")
    assert asker.judge(OBS, {}, PROPOSAL, torch.ones(1, 2)) == (2.0, "")
    assert [bool(view.correcting[0]) for view in gate.views] == [False, True]
    assert gate.views[0].labels.isnan().all(), "nobody has said what is right while the policy drives"
    assert torch.equal(gate.views[1].labels, torch.ones(1, 2))


def test_it_hears_who_drove_what_was_left_of_an_episode() -> None:
    gate = Wary()
    asker = GateAsker(gate)
    asker.reset(7)
    for by_hand in (False, True, True, False):
        asker.judge(OBS, {}, PROPOSAL, torch.ones(1, 2) if by_hand else None)
        asker.made(by_hand=by_hand)
    asker.rewind(2)
    asker.judge(OBS, {}, PROPOSAL, torch.ones(1, 2))
    asker.made(by_hand=True)
    asker.reset(8)
    asker.finish()
    assert gate.heard == [([False, True, True], [1.0, 2.0, 5.0], 0)]
    assert gate.begun == [7, 8]


def test_a_gate_by_which_the_robot_asks_goes_with_a_device_and_the_coin_does_not() -> None:
    common = {"policy": "p", "dataset": ("d",), "device": "browser"}
    assert DaggerConfig(**common, gate=ThriftyGateConfig()).robot_asks  # type: ignore[arg-type]
    assert not DaggerConfig(**common).robot_asks  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="or take a gate by which the robot asks"):
        DaggerConfig(**common, gate=BetaGateConfig(start=0.3))  # type: ignore[arg-type]
