"""Figures of a round's file: outcomes, who drove, how often and how long, and what the labels cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robolearn.datasets.dataset import Dataset
from robolearn.evaluation.statistics import mean_interval, wilson
from robolearn.specs import ActionMode


def figures(dataset: Dataset) -> dict[str, Any]:
    """Return the figures of a round, as JSON values; times are in simulated seconds.

    An episode is autonomous where the policy alone drove it. What the gate caught are the solved episodes in which it
    let somebody take over; what it missed, the failed ones in which it did not.
    """
    hz = dataset.control_hz
    modes = [dataset.arrays(i, ["action_modes"])["action_modes"] for i in range(len(dataset))]
    success = np.array([info.success for info in dataset.info], bool)
    expert = [mode != ActionMode.POLICY for mode in modes]
    stretches = [_stretches(mode == ActionMode.INTERVENTION) for mode in modes]
    takeovers = np.array([len(stretch) for stretch in stretches])
    lengths = np.array([end - start for stretch in stretches for start, end in stretch])
    first = np.array([stretch[0][0] for stretch in stretches if stretch])
    recovery, correction = _parts(dataset, stretches)
    steps, expert_steps = sum(map(len, modes)), int(sum(map(np.sum, expert)))
    alone = np.array([not driven.any() for driven in expert])
    outcome = wilson(int(success.sum()), len(success))
    return {
        "episodes": len(success),
        "successes": int(success.sum()),
        "success_low": outcome.low,
        "success_high": outcome.high,
        "steps": steps,
        "expert_steps": expert_steps,
        "expert_seconds": expert_steps / hz,
        "expert_share": expert_steps / max(steps, 1),
        "labelled_steps": _labelled(dataset),
        "takeovers": int(takeovers.sum()),
        "takeovers_per_episode": float(takeovers.mean()),
        "takeovers_per_minute": float(takeovers.sum() / (steps / hz / 60)),
        "mean_takeover_s": float(lengths.mean() / hz) if len(lengths) else None,
        "recovery_seconds": recovery / hz,
        "correction_seconds": correction / hz,
        "time_to_takeover_s": float(first.mean() / hz) if len(first) else None,
        "time_between_failures_s": steps / hz / max(int((~success).sum() + takeovers.sum()), 1),
        "autonomous": int(alone.sum()),
        "autonomous_successes": int((alone & success).sum()),
        "caught": int((~alone & success).sum()),
        "missed": int((alone & ~success).sum()),
        "mean_disagreement": disagreement(dataset),
        "policy": sorted({info.policy for info in dataset.info}),
    }


def _stretches(mask: np.ndarray) -> list[tuple[int, int]]:
    """(T,) bool -> [start, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False]))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]


def _parts(dataset: Dataset, stretches: Sequence[Sequence[tuple[int, int]]]) -> tuple[int, int]:
    """Return the steps of all interventions before and after their first mark; one without a mark is all recovery."""
    before = total = 0
    for index, stretch in enumerate(stretches):
        marks = [event.step for event in dataset.events(index) if event.kind == "mark"]
        for start, end in stretch:
            before += min((mark for mark in marks if start <= mark < end), default=end) - start
            total += end - start
    return before, total - before


def _labelled(dataset: Dataset) -> int:
    """Steps that hold an expert's label."""
    labels = [dataset.arrays(i, ["expert_actions"])["expert_actions"] for i in range(len(dataset))]
    return int(sum(np.isfinite(label).all(1).sum() for label in labels))


def disagreement(dataset: Dataset) -> float | None:
    """Return the mean absolute difference of proposals and labels where both are known; None where they never are."""
    names = ["policy_actions", "expert_actions"]
    rows = [dataset.arrays(i, names) for i in range(len(dataset))]
    gaps = np.concatenate([np.abs(row[names[0]] - row[names[1]]).mean(1) for row in rows])
    known = gaps[np.isfinite(gaps)]
    return float(mean_interval(known).estimate) if len(known) else None
