"""Several policies on the same seeds: who solves what the other does not, and how much faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from robolearn.errors import RobolearnError
from robolearn.evaluation.results import EvaluationResult
from robolearn.evaluation.statistics import Interval, PairedCounts, geometric_mean_ratio, mcnemar, paired_difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two results on the same seeds; differences and ratios are second against first."""

    first: str
    second: str
    counts: PairedCounts
    p_value: float
    """Exact McNemar test, two-sided."""
    difference: Interval
    """Of the success rates."""
    time_ratio: Interval | None
    """Geometric mean of the times to success, second over first, on the seeds that both solved; None where none."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "second": self.second,
            **{name: getattr(self.counts, name) for name in ("both", "only_first", "only_second", "neither")},
            "p_value": self.p_value,
            "difference": self.difference.to_dict(),
            "time_ratio": None if self.time_ratio is None else self.time_ratio.to_dict(),
        }

    def __str__(self) -> str:
        d, c = self.difference, self.counts
        parts = [
            f"{self.second} against {self.first}: {100 * d.estimate:+.1f} points",
            f"95% interval {100 * d.low:+.1f} to {100 * d.high:+.1f}",
            f"{c.only_second} seeds won and {c.only_first} lost",
            f"McNemar p = {self.p_value:.3g}",
        ]
        if self.time_ratio is not None:
            parts.append(f"{self.time_ratio.estimate:.2f} of the time")
        return ", ".join(parts)


def compare(first: EvaluationResult, second: EvaluationResult, confidence: float = 0.95) -> Comparison:
    """Pair two results by seed. Raises RobolearnError where their seeds or tasks differ, or seeds mean nothing."""
    if not (first.repeatable and second.repeatable):
        raise RobolearnError(
            f"{first.name} and {second.name} cannot be paired: their environment ignores the seeds of its episodes; "
            "compare their intervals"
        )
    if first.env_args != second.env_args:
        raise RobolearnError(
            f"{first.name} and {second.name} were evaluated in different environments, "
            f"{dict(first.env_args)} and {dict(second.env_args)}; evaluate both in one"
        )
    ours, theirs = ({e.seed: e for e in result.episodes} for result in (first, second))
    if set(ours) != set(theirs) or not ours:
        odd = sorted(set(ours) ^ set(theirs))
        raise RobolearnError(
            f"{first.name} and {second.name} must be evaluated on the same seeds to be paired; "
            f"{len(odd)} seeds are in only one of them (first: {odd[:3]})"
        )
    pairs = [(ours[seed], theirs[seed]) for seed in ours]
    counts = PairedCounts.of([a.success for a, _ in pairs], [b.success for _, b in pairs])
    times = [
        (a.time_to_success_s, b.time_to_success_s) for a, b in pairs if a.time_to_success_s and b.time_to_success_s
    ]
    return Comparison(
        first=first.name,
        second=second.name,
        counts=counts,
        p_value=mcnemar(counts),
        difference=paired_difference(counts, confidence),
        time_ratio=geometric_mean_ratio([a for a, _ in times], [b for _, b in times], confidence) if times else None,
    )


def compare_in_turn(results: Sequence[EvaluationResult]) -> list[Comparison]:
    """Compare each result against the one before it; results that no seed repeats are not paired."""
    return [compare(first, second) for first, second in pairwise(results) if first.repeatable and second.repeatable]
