"""Statistics against scipy, published values, exact enumeration and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from robolearn.errors import RobolearnError
from robolearn.evaluation.statistics import (
    PairedCounts,
    auroc,
    bootstrap,
    geometric_mean_ratio,
    interquartile_mean,
    mcnemar,
    mean_interval,
    paired_difference,
    stratified_bootstrap,
    wilson,
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    theirs = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    ours = wilson(k, n, confidence)
    assert ours.estimate == k / n
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_known_values() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I: method 3."""
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = wilson(k, n)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_without_trials_knows_nothing_and_refuses_nonsense() -> None:
    interval = wilson(0, 0)
    assert math.isnan(interval.estimate)
    assert (interval.low, interval.high) == (0.0, 1.0)
    for k, n in ((3, 2), (-1, 2)):
        with pytest.raises(RobolearnError, match="received"):
            wilson(k, n)
    with pytest.raises(RobolearnError, match="confidence"):
        wilson(1, 2, 1.0)


@given(*[st.integers(0, 30)] * 4)
def test_mcnemar_is_the_sum_of_the_binomial_tails(both: int, first: int, second: int, neither: int) -> None:
    p = mcnemar(PairedCounts(both=both, only_first=first, only_second=second, neither=neither))
    n, k = first + second, min(first, second)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert p == pytest.approx(min(1.0, 2 * tail))


def test_paired_difference_known_values() -> None:
    """Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables (2017), table 8: Bentur et al. 2009."""
    interval = paired_difference(PairedCounts(both=1, only_first=1, only_second=7, neither=12))
    assert interval.estimate == pytest.approx(6 / 21)
    assert (interval.low, interval.high) == pytest.approx((0.026, 0.507), abs=5e-4)


def test_paired_difference_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.55, 0.1, 0.25, 0.1])
    truth = cells[2] - cells[1]
    hits = 0
    for table in rng.multinomial(60, cells, size=2000):
        interval = paired_difference(
            PairedCounts(**dict(zip(("both", "only_first", "only_second", "neither"), map(int, table))))
        )
        hits += interval.low <= truth <= interval.high
    assert 0.935 <= hits / 2000 <= 0.98  # nominal 0.95; four standard errors are 0.02


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_paired_difference_is_the_difference_and_turns_over_with_the_order(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = (paired_difference(PairedCounts.of(x, y)) for x, y in ((first, second), (second, first)))
    assert there.estimate == pytest.approx(np.mean(second) - np.mean(first))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= there.low <= there.estimate <= there.high <= 1


def test_pairs_need_the_same_seeds() -> None:
    with pytest.raises(RobolearnError, match="same seeds"):
        PairedCounts.of([True], [True, False])


def test_mean_interval_is_scipys() -> None:
    x = np.random.default_rng(1).normal(3, 2, 23)
    low, high = stats.t.interval(0.9, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
    ours = mean_interval(x, 0.9)
    assert (ours.estimate, ours.low, ours.high) == pytest.approx((x.mean(), low, high))
    assert mean_interval([4.0]).high == 4.0


def test_interquartile_mean() -> None:
    values = np.random.default_rng(0).normal(size=(7, 40))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1))
    assert interquartile_mean(np.array([0.0, 1.0, 2.0])) == pytest.approx((0.25 * 0 + 1 + 0.25 * 2) / 1.5)
    assert interquartile_mean(np.array([5.0])) == 5.0


def test_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = []
    for i in range(200):
        low, high = bootstrap(rng.normal(size=(30, 1)), 200, seed=i)[:, 0]
        hits.append(low < 0 < high)
    assert 0.86 < np.mean(hits) <= 1.0


def test_a_stratified_bootstrap_draws_within_each_task() -> None:
    """Tasks that differ but whose runs agree leave nothing to chance; drawing from all runs alike would."""
    strata = [np.full(5, 0.1), np.full(5, 0.9), np.full(3, 0.5)]
    low, high = stratified_bootstrap(strata, 300)
    assert low == pytest.approx(high) == pytest.approx(float(interquartile_mean(np.concatenate(strata))))
    loose = bootstrap(np.concatenate(strata)[:, None], 300)
    assert loose[1, 0] - loose[0, 0] > 0.2
    rng = np.random.default_rng(0)
    one = rng.normal(size=12)
    np.testing.assert_allclose(stratified_bootstrap([one], 500), bootstrap(one[:, None], 500)[:, 0])


def test_the_bootstrap_is_repeatable_and_agrees_with_scipy() -> None:
    x = np.random.default_rng(2).exponential(size=60)
    ours = bootstrap(x[:, None], 5000, seed=3)[:, 0]
    np.testing.assert_array_equal(ours, bootstrap(x[:, None], 5000, seed=3)[:, 0])
    theirs = stats.bootstrap(
        (x,), lambda v, axis: stats.trim_mean(v, 0.25, axis), method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    np.testing.assert_allclose(ours, (theirs.low, theirs.high), atol=0.03)


def test_geometric_mean_ratio_of_pairs() -> None:
    interval = geometric_mean_ratio([1.0, 2.0, 4.0], [0.5, 1.0, 2.0])
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))
    interval = geometric_mean_ratio([1.0, 1.0], [4.0, 1.0])
    assert interval.estimate == pytest.approx(2.0)
    assert interval.low < 1 < interval.high


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auroc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    """The share of pairs of a positive and a negative in which the positive scores higher, ties half."""
    positives, negatives = ([score for score, kind in pairs if kind is wanted] for wanted in (True, False))
    wins = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    area = auroc(*zip(*pairs, strict=True))
    assert area == pytest.approx(np.mean(wins)) if wins else math.isnan(area)


def test_auroc_refuses_what_is_no_number() -> None:
    with pytest.raises(RobolearnError, match=r"\(1 NaN\)"):
        auroc([0.0, math.nan], [True, False])
    with pytest.raises(RobolearnError, match=r"\(2,\) scores.*\(1,\) outcomes"):
        auroc([0.0, 1.0], [True])
