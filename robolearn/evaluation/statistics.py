"""Intervals and paired tests for success rates and times; every function is a formula with its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # not scipy.stats, which takes a second to import

from robolearn.errors import RobolearnError


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
        """Count outcomes that are in the same order of seeds. Raises RobolearnError where their numbers differ."""
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
    """Return the Wilson score interval of a proportion (Wilson 1927); (0, 1) with the estimate NaN where n is 0."""
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
    """Return the two-sided p-value of the exact McNemar test.

    The discordant pairs are tosses of a fair coin if both are equally good, whose tails are alike:
    p = 2 P(X <= fewer), X ~ Binomial(discordant, 1/2).
    """
    fewer, discordant = min(counts.only_first, counts.only_second), counts.only_first + counts.only_second
    return min(1.0, 2.0 * float(special.bdtr(fewer, discordant, 0.5)))


def paired_difference(counts: PairedCounts, confidence: float = 0.95) -> Interval:
    """Return the second success rate minus the first, with Newcombe's interval for paired proportions.

    Method 10 of Newcombe 1998: the square-and-add interval of the two Wilson intervals, with the correlation of the
    pairs taken into account.
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
    """Return the mean with Student's t interval; no width where there is a single value."""
    x = np.asarray(values, np.float64)
    if len(x) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, mean, mean)
    half = float(special.stdtrit(len(x) - 1, 0.5 + confidence / 2) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half)


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter (Agarwal et al. 2021): robust and still efficient.

    Fractions of a value count in proportion, so the figure is exact for any number of values.
    """
    ordered = np.sort(values, axis=axis)
    n = ordered.shape[axis]
    edges = np.clip(np.arange(n + 1), n / 4, 3 * n / 4)
    shape = [1] * ordered.ndim
    shape[axis] = n
    return (ordered * np.diff(edges).reshape(shape)).sum(axis) / (n / 2)


def bootstrap(values: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return (2, G): the 95% percentile interval of the interquartile mean of (R, G) values over R runs drawn anew."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(values), size=(count, len(values)))
    means = np.stack([interquartile_mean(values[draw], axis=0) for draw in draws])
    return np.quantile(means, [0.025, 0.975], axis=0)


def stratified_bootstrap(strata: Sequence[np.ndarray], count: int, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile interval of the interquartile mean over the runs of several tasks together.

    Runs are drawn anew within each task (Agarwal et al. 2021, rliable).

    Args:
        strata: (R_t,) values of the R_t runs of each task.
        count: how many times they are drawn anew.
    """
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([values[rng.integers(len(values), size=(count, len(values)))] for values in strata], axis=1)
    low, high = np.quantile(interquartile_mean(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def geometric_mean_ratio(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the geometric mean of second/first over pairs of positive values, with the log ratios' t interval."""
    if len(first) != len(second):
        raise RobolearnError(f"ratios need pairs, received {len(first)} and {len(second)} values")
    logs = mean_interval(np.log(second) - np.log(first), confidence)
    return Interval(*(float(np.exp(v)) for v in (logs.estimate, logs.low, logs.high)))


def auroc(scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> float:
    """Return the area under the ROC curve: the probability that a positive scores higher than a negative, ties half.

    NaN where there are no positives or no negatives. Raises RobolearnError where a score is NaN or numbers differ.
    """
    values, kind = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if values.shape != kind.shape or np.isnan(values).any():
        raise RobolearnError(
            f"a ROC curve needs one score, not NaN, for each outcome; received {values.shape} scores "
            f"({int(np.isnan(values).sum())} NaN) and {kind.shape} outcomes"
        )
    positives, negatives = int(kind.sum()), int((~kind).sum())
    if not positives or not negatives:
        return float("nan")
    # Mann-Whitney: U = sum of the positives' ranks - n (n + 1) / 2, area = U / (n m)
    _, which, alike = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(alike) - (alike - 1) / 2)[which]  # equal values share the mean of theirs
    return float((ranks[kind].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise RobolearnError(f"a confidence level lies between 0 and 1, received {confidence}")
    return float(special.ndtri(0.5 + confidence / 2))
