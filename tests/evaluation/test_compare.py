"""Pairing results by seed."""

from __future__ import annotations

import pytest

from robolearn.errors import RobolearnError
from robolearn.evaluation.compare import compare, compare_in_turn
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult

ENV = {"env_name": "toy", "type": 2, "env_kwargs": {}}


def result_of(name: str, times: dict[int, float | None], env: dict | None = None) -> EvaluationResult:
    """Times to success by seed; None is a failure."""
    episodes = tuple(
        EpisodeRecord(
            seed=seed,
            success=time is not None,
            steps=10 if time is None else round(10 * time),
            episode_return=float(time is not None),
            time_to_success_s=time,
            terminated=time is not None,
            truncated=time is None,
        )
        for seed, time in times.items()
    )
    return EvaluationResult(name=name, env_args=env or ENV, control_hz=10.0, deterministic=True, episodes=episodes)


def test_pairs_by_seed_whatever_the_order() -> None:
    first = result_of("a", {1: 1.0, 2: None, 3: 2.0, 4: None})
    second = result_of("b", {4: 1.0, 3: 1.0, 2: None, 1: 0.5})
    comparison = compare(first, second)
    counts = comparison.counts
    assert (counts.both, counts.only_first, counts.only_second, counts.neither) == (2, 0, 1, 1)
    assert comparison.difference.estimate == pytest.approx(0.25)
    assert comparison.p_value == 1.0
    assert comparison.time_ratio is not None
    assert comparison.time_ratio.estimate == pytest.approx(0.5)  # halved on both seeds that both solved
    assert "+25.0 points" in str(comparison)
    assert comparison.to_dict()["only_second"] == 1


def test_no_common_success_has_no_time_ratio() -> None:
    comparison = compare(result_of("a", {1: None, 2: 1.0}), result_of("b", {1: 1.0, 2: None}))
    assert comparison.time_ratio is None
    assert comparison.to_dict()["time_ratio"] is None


def test_other_seeds_or_environments_cannot_be_paired() -> None:
    with pytest.raises(RobolearnError, match=r"2 seeds are in only one of them \(first: \[2, 3\]\)"):
        compare(result_of("a", {1: None, 2: None}), result_of("b", {1: None, 3: None}))
    with pytest.raises(RobolearnError, match="different environments"):
        compare(result_of("a", {1: None}), result_of("b", {1: None}, env=ENV | {"env_name": "other"}))


def test_each_is_compared_with_the_one_before() -> None:
    results = [result_of(name, {1: 1.0}) for name in "abc"]
    assert [(c.first, c.second) for c in compare_in_turn(results)] == [("a", "b"), ("b", "c")]
    assert compare_in_turn(results[:1]) == []


def test_figures_follow_from_the_records() -> None:
    result = result_of("a", {1: 1.0, 2: None, 3: 3.0, 4: 2.0})
    assert (result.successes, result.success_rate, result.median_time_to_success_s) == (3, 0.75, 2.0)
    assert (result.mean_return, result.mean_steps) == (0.75, 17.5)
    assert str(result) == "a: 3/4 solved (75.0%, 95% interval 30.1 to 95.4%), median time to success 2.00 s"
    empty = result_of("none", {})
    assert empty.summary()["success_rate"] is None
    assert empty.median_time_to_success_s is None
