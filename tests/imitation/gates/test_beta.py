"""The coin: who acts is a function of (episode seed, step)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.gates import BetaGateConfig
from robolearn.errors import ConfigError, TaskError
from robolearn.imitation.gates.beta import BetaGate
from robolearn.imitation.gates.gate import View
from robolearn.specs import ActionMode
from tests.imitation.gates.toy import setting


def view(num_envs: int, correcting: np.ndarray | None = None) -> View:
    return View(
        obs={},
        proposals=torch.zeros(num_envs, 2),
        labels=torch.zeros(num_envs, 2),
        correcting=np.zeros(num_envs, bool) if correcting is None else correcting,
        window={},
    )


def turns(gate: BetaGate, seeds: list[int], steps: int) -> np.ndarray:
    gate.reset(seeds, torch.ones(len(seeds), dtype=torch.bool))
    return np.stack([gate.judge(view(len(seeds))).correct for _ in range(steps)], axis=1)


def test_the_coins_are_those_of_earlier_rounds() -> None:
    gate = BetaGate(BetaGateConfig(start=0.4, schedule="constant"), setting(num_envs=2))
    for seed, row in zip([7, 100_003], turns(gate, [7, 100_003], 50), strict=True):
        rng = np.random.default_rng([seed, 0xDA66E5])
        np.testing.assert_array_equal(row, [rng.random() < 0.4 for _ in range(50)])


def test_environments_beside_an_episode_do_not_matter() -> None:
    config = BetaGateConfig(start=0.5)
    alone = turns(BetaGate(config, setting()), [5], 20)[0]
    gate = BetaGate(config, setting(num_envs=3))
    turns(gate, [1, 2, 3], 4)
    gate.reset([5], torch.tensor([False, True, False]))
    np.testing.assert_array_equal([gate.judge(view(3)).correct[1] for _ in range(20)], alone)


def test_whole_episodes() -> None:
    gate = BetaGate(BetaGateConfig(start=0.3, per="episode"), setting(num_envs=2000))
    rows = turns(gate, list(range(2000)), 3)
    assert (rows == rows[:, :1]).all()
    assert rows[:, 0].mean() == pytest.approx(0.3, abs=0.03)


def test_reasons_are_given_where_the_turn_changes() -> None:
    gate = BetaGate(BetaGateConfig(start=1.0), setting(num_envs=2))
    gate.reset([0, 1], torch.ones(2, dtype=torch.bool))
    assert gate.judge(view(2, np.array([True, False]))).reasons == {1: "beta=1"}
    assert gate.mode == ActionMode.EXPERT
    assert gate.labels_everything


def test_rounds_follow_the_schedule() -> None:
    config = BetaGateConfig(start=0.8, decay=0.5)
    assert [BetaGate(config, setting(round=i)).beta for i in (1, 2, 3)] == pytest.approx([0.8, 0.4, 0.2])
    linear = replace(config, schedule="linear")
    assert [BetaGate(linear, setting(round=i)).beta for i in (1, 2, 3)] == pytest.approx([0.8, 0.4, 0.0])


def test_bad_labels_and_bad_shares_are_named() -> None:
    gate = BetaGate(BetaGateConfig(), setting(num_envs=2))
    seen = view(2)
    seen.labels[1, 0] = torch.nan
    with pytest.raises(TaskError, match=r"finite actions from the expert.*environment 1"):
        gate.judge(seen)
    with pytest.raises(ConfigError, match=r"start must lie in \[0, 1\], received 1.5"):
        BetaGateConfig(start=1.5)
