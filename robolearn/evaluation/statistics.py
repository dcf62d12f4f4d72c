"""Intervals and paired tests for success rates and times; every function is a formula with its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from robolearn.errors import RobolearnError

RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """Outcomes of two policies on the same seeds."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> PairedCounts:
        """Counts from outcomes in the same order of seeds."""
        if len(first) != len(second):
            raise RobolearnError(
                f"paired outcomes need the same seeds, received {len(first)} and {len(second)} of them"
            )
        a, b = np.asarray(first, bool), np.asarray(second, bool)
        return cls(
            both=int((a & b).sum()),
            only_first=int((a & ~b).sum()),
            only_second=int((~a & b).sum()),
            neither=int((~a & ~b).sum()),
        )

    @property
    def total(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) with the estimate NaN where n is 0."""
    if not 0 <= successes <= n:
        raise RobolearnError(f"successes must lie between 0 and the number of trials, received {successes} of {n}")
    z = _normal_quantile(confidence)
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and n the bounds are 0 and 1 in exact arithmetic.
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return Interval(p, 0.0 if successes == 0 else low, 1.0 if successes == n else high)


def mcnemar(counts: PairedCounts) -> float:
    """Two-sided p-value of the exact McNemar test: the discordant pairs are a fair coin if both are equally good."""
    discordant = counts.only_first + counts.only_second
    return 1.0 if discordant == 0 else float(stats.binomtest(counts.only_first, discordant, 0.5).pvalue)


def paired_difference(counts: PairedCounts, confidence: float = 0.95) -> Interval:
    """Second success rate minus the first, with Newcombe's interval for paired proportions (1998, method 10).

    The square-and-add interval of the two Wilson intervals, with the correlation of the pairs taken into account.
    """
    a, b, c, d, n = counts.both, counts.only_first, counts.only_second, counts.neither, counts.total
    if n == 0:
        return Interval(float("nan"), -1.0, 1.0)
    first, second = wilson(a + b, n, confidence), wilson(a + c, n, confidence)
    determinant = a * d - b * c
    if determinant > 0:
        determinant = max(determinant - n / 2, 0.0)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = determinant / np.sqrt(margins) if margins else 0.0

    def half(up: float, down: float) -> float:
        return float(np.sqrt(max(0.0, up * up - 2 * phi * up * down + down * down)))

    difference = second.estimate - first.estimate
    return Interval(
        difference,
        max(-1.0, difference - half(second.estimate - second.low, first.high - first.estimate)),
        min(1.0, difference + half(second.high - second.estimate, first.estimate - first.low)),
    )


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean with Student's t interval; no width where there is a single value."""
    x = np.asarray(values, np.float64)
    if len(x) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, mean, mean)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half)


def iqm(values: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half, robust and still efficient (Agarwal et al. 2021, rliable)."""
    return float(stats.trim_mean(np.asarray(values, np.float64).reshape(-1), 0.25))


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], float] = iqm,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """`statistic` with its percentile bootstrap interval; the same seed gives the same interval."""
    x = np.asarray(values, np.float64)
    if len(x) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    replicates = [statistic(x[row]) for row in draws]
    low, high = np.quantile(replicates, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(statistic(x)), float(low), float(high))


def geometric_mean_ratio(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """Geometric mean of second/first over pairs of positive values, with the t interval of the log ratios."""
    if len(first) != len(second):
        raise RobolearnError(f"ratios need pairs, received {len(first)} and {len(second)} values")
    logs = mean_interval(np.log(second) - np.log(first), confidence)
    return Interval(*(float(np.exp(v)) for v in (logs.estimate, logs.low, logs.high)))


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise RobolearnError(f"a confidence level lies between 0 and 1, received {confidence}")
    return float(stats.norm.ppf(0.5 + confidence / 2))
