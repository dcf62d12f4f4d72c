"""The budget against streams of scores whose law is known."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.imitation.gates.budget import Budget


def spent(
    budget: Budget, num_envs: int, episodes: int, *, memory: float, cost: float, seed: int, shift: float = 0.0
) -> float:
    """Return the share of the corrector where scores are an AR(1) process, and a request takes `cost` steps or so."""
    rng = np.random.default_rng(seed)
    done, values, left = 0, rng.normal(size=num_envs), np.zeros(num_envs, int)
    lengths, offsets = rng.integers(50, 150, num_envs), rng.normal(size=num_envs) * 0.5
    rows: list[list[tuple[bool, float]]] = [[] for _ in range(num_envs)]
    budget.begin(np.arange(num_envs))
    while done < episodes:
        values = memory * values + np.sqrt(1 - memory**2) * rng.normal(size=num_envs)
        scores, could_ask = values + offsets + shift, left == 0
        asks = could_ask & (scores > budget.threshold)
        left[asks] = np.maximum(1, rng.exponential(cost, num_envs)[asks].astype(int))
        corrects = left > 0
        left -= corrects
        budget.step(could_ask, corrects)
        for i in range(num_envs):
            rows[i].append((bool(corrects[i]), float(scores[i])))
            if len(rows[i]) == lengths[i]:
                corrected, met = zip(*rows[i], strict=True)
                budget.told(np.array(corrected), np.array(met), i)
                done, rows[i], left[i], values[i] = done + 1, [], 0, rng.normal()
                lengths[i], offsets[i] = rng.integers(50, 150), rng.normal() * 0.5
                budget.begin(np.array([i]))
    return budget.share


@pytest.mark.parametrize("num_envs", [1, 8])
@pytest.mark.parametrize("budget", [0.1, 0.3])
@pytest.mark.parametrize(
    ("memory", "cost"),
    [(0.9, 10), *(pytest.param(*c, marks=pytest.mark.long) for c in ((0.0, 5), (0.9, 1), (0.98, 30)))],
)
def test_the_share_meets_the_budget(num_envs: int, budget: float, memory: float, cost: float) -> None:
    shares = [spent(Budget(budget, num_envs), num_envs, 50, memory=memory, cost=cost, seed=s) for s in range(5)]
    assert np.abs(np.array(shares) / budget - 1.0).max() < 0.2


def test_scores_that_were_guessed_wrong_are_mended() -> None:
    """All scores that come are higher than all that were expected."""
    for num_envs in (1, 8):
        budget = Budget(0.2, num_envs)
        budget.start(np.random.default_rng(0).normal(size=500))
        assert spent(budget, num_envs, 40, memory=0.9, cost=10, seed=1, shift=8.0) == pytest.approx(0.2, rel=0.2)


def test_nothing_is_asked_on_a_budget_of_nothing_and_always_on_all() -> None:
    assert spent(Budget(0.0, 4), 4, 20, memory=0.9, cost=5, seed=0) == 0.0
    assert spent(Budget(1.0, 4), 4, 20, memory=0.9, cost=5, seed=0) == 1.0
    for budget, expected in ((0.0, np.inf), (1.0, -np.inf)):
        made = Budget(budget)
        made.start(np.arange(10.0))
        assert made.threshold == expected


def test_without_scores_nothing_is_asked() -> None:
    budget = Budget(0.3, 2)
    assert budget.threshold == np.inf
    budget.told(np.zeros(5, bool), np.full(5, np.nan), None)
    assert budget.threshold == np.inf
    budget.told(np.zeros(5, bool), np.arange(5.0), None)
    assert np.isfinite(budget.threshold)


def test_the_threshold_is_the_quantile() -> None:
    """r = b / (1 - b) / L = 1 / 10 at first, with L = 10 before any request was answered."""
    budget = Budget(0.5)
    budget.start(np.arange(101.0))
    assert budget.threshold == 90.0


def test_a_threshold_can_rise_again() -> None:
    """The scores at which the policy asked are remembered: else the threshold could only fall."""
    budget = Budget(0.1)
    budget.told(np.array([False, True, True, False]), np.array([1.0, 9.0, 8.0, 2.0]), None)
    np.testing.assert_array_equal(budget._ordered, [1.0, 9.0])  # 8 and 2 came while the corrector drove
    assert (budget.steps, budget.corrected, budget.requests) == (4, 2, 1)


def test_episodes_of_an_interrupted_round_count() -> None:
    """A gate that is told of them later knows the same scores and has spent the same."""
    rng = np.random.default_rng(0)
    live, later = Budget(0.2, 1), Budget(0.2, 1)
    for _ in range(5):
        corrected, scores = rng.random(30) < 0.3, rng.normal(size=30)
        live.begin(np.array([0]))
        live.told(corrected, scores, 0)
        later.told(corrected, scores, None)
    assert live.threshold == later.threshold
    assert live.share == later.share
