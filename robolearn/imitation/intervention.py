"""Driving during a DAgger round: the policy, corrected where a gate says so. Every proposal and hand-over is kept.

A takeover drops what is left of the policy's chunk. While the corrector drives, the policy proposes afresh at every
step, so that its proposals in the file answer the state at hand and it goes on with a fresh plan after the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.episodes.actor import Decision
from robolearn.errors import TaskError
from robolearn.imitation.gates.gate import Gate, Verdict, View
from robolearn.specs import ActionMode, Actor, EventKind, Observation

RECOVERED = "recovered"
"""Reason of the mark at which a correction ends its recovery."""


class Proposer(Protocol):
    """Drives where nobody takes over: a `PolicyRunner`, or a learner in the middle of its practice."""

    @property
    def window(self) -> Observation:
        """(N, To, ...) per key, what it sees."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should hear of, a sentence each."""
        ...

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        """Begin new episodes in the masked environments."""
        ...

    def replan(self, mask: Tensor) -> None:
        """Drop what is left of the chunks in the masked environments."""
        ...

    def act(self, obs: Observation) -> Tensor:
        """Return (N, A), what it would do."""
        ...


class InterventionDriver:
    """Lets a policy drive and a corrector take over where the gate says so."""

    def __init__(self, policy: Proposer, corrector: Actor, gate: Gate, num_envs: int) -> None:
        self.policy, self.corrector, self.gate = policy, corrector, gate
        self._correcting = np.zeros(num_envs, bool)
        self._running = np.zeros(num_envs, bool)
        self._seeds = np.zeros(num_envs, np.int64)
        self._corrected: list[list[bool]] = [[] for _ in range(num_envs)]
        self._scores: list[list[float]] = [[] for _ in range(num_envs)]

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        rows = mask.nonzero()[:, 0].tolist()
        self.finish(rows)
        self.policy.reset(seeds, mask)
        self.corrector.reset(seeds, mask)
        self.gate.reset(seeds, mask)
        self._seeds[rows] = seeds
        self._correcting[rows] = False
        self._running[rows] = True

    def decide(self, obs: Observation) -> Decision:
        if self._correcting.any():
            self.policy.replan(torch.from_numpy(self._correcting))
        proposals, labels = self.policy.act(obs), self.corrector.act(obs)
        if labels.shape != proposals.shape:
            raise TaskError(
                f"expected an action of {proposals.shape[1]} numbers from the expert for each of {len(proposals)} "
                f"environments, received {tuple(labels.shape)}; episodes so far are kept"
            )
        before = self._correcting
        allowed = labels.clamp(-1.0, 1.0)  # what would be executed; what was asked for beyond is counted in the file
        view = View(obs=obs, proposals=proposals, labels=allowed, correcting=before.copy(), window=self.policy.window)
        verdict = self.gate.judge(view)
        self._correcting = correct = np.asarray(verdict.correct, bool)
        self._account(correct, verdict.score)
        labelled = np.ones_like(correct) if self.gate.labels_everything else correct
        self._check_labels(labels, labelled)
        chosen = torch.as_tensor(correct, device=labels.device)[:, None]
        known = torch.as_tensor(labelled, device=labels.device)[:, None]
        return Decision(
            actions=torch.where(chosen, labels, proposals),
            modes=torch.from_numpy(np.where(correct, int(self.gate.mode), int(ActionMode.POLICY)).astype(np.int8)),
            policy_actions=proposals,
            expert_actions=torch.where(known, labels, torch.nan),
            gate=None if verdict.score is None else torch.as_tensor(verdict.score, dtype=torch.float32),
            events=self._events(before, correct, verdict),
        )

    def finish(self, rows: Sequence[int] | None = None) -> None:
        """Tell the gate of the episodes that have ended in these environments (all where None)."""
        for row in range(len(self._corrected)) if rows is None else rows:
            if self._corrected[row]:
                self.gate.told(np.array(self._corrected[row]), np.array(self._scores[row]), row)
            self._corrected[row], self._scores[row] = [], []
            self._running[row] = False

    def _account(self, correct: np.ndarray, score: np.ndarray | None) -> None:
        for row in np.flatnonzero(self._running):
            self._corrected[row].append(bool(correct[row]))
            self._scores[row].append(float("nan") if score is None else float(score[row]))

    def _events(
        self, before: np.ndarray, correct: np.ndarray, verdict: Verdict
    ) -> tuple[tuple[int, EventKind, str], ...]:
        """Hand-overs, and where a correction has recovered; the expert's turns in DAgger's mixture are none."""
        if self.gate.mode is not ActionMode.INTERVENTION:
            return ()
        changes: list[tuple[int, EventKind, str]] = [
            (int(row), "takeover" if correct[row] else "release", verdict.reasons.get(int(row), ""))
            for row in np.flatnonzero(correct != before)
        ]
        return (*changes, *((row, "mark", RECOVERED) for row in verdict.recovered))

    def _check_labels(self, labels: Tensor, labelled: np.ndarray) -> None:
        bad = ~torch.isfinite(labels).all(-1).cpu().numpy() & labelled
        if bad.any():
            row = int(bad.argmax())
            raise TaskError(
                f"the expert's action is not finite at step {len(self._corrected[row]) - 1} of the episode with seed "
                f"{int(self._seeds[row])}: {labels[row].tolist()}; mend the expert, episodes so far are kept"
            )
