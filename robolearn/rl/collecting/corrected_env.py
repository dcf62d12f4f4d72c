"""The environment in which somebody may take over (HIL-SERL, Luo et al. 2024): a learner's action, or the corrector's.

    obs_t ──▶ learner: a_t ──▶ gate ──▶ a_t, or what the corrector does ──▶ environment ──▶ obs_t+1

Who decides is the machinery of DAgger. To an algorithm this is an environment like any other: gate and corrector are
part of its state, and a seed and the learner's actions fix an episode.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.envs.adapted import AdaptedEnv
from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.episodes.actor import Decision
from robolearn.episodes.episode_loop import Slot, Tick
from robolearn.episodes.record import model_name, open_writer, recorded
from robolearn.episodes.recorder import EpisodeRecorder
from robolearn.imitation.gates.gate import Gate
from robolearn.imitation.intervention import InterventionDriver
from robolearn.specs import ActionMode, Actor


class CorrectedEnv(AdaptedEnv):
    """Another environment, whose steps a corrector makes where a gate says so."""

    def __init__(self, env: VectorEnv, corrector: Actor, gate: Gate, file: CorrectionsFile | None = None) -> None:
        """
        Args:
            env: in the learner's units (`robolearn.episodes.actor.env_for`), the corrector's and the gate's as well.
            file: where episodes are written; None writes none.
        """
        super().__init__(env)
        self._learner, self._file = _Learner(), file
        self._driver = InterventionDriver(self._learner, corrector, gate, env.num_envs)
        self._obs: Observation = {}
        self.executed = torch.zeros(env.num_envs, env.action_spec.size, device=env.device)
        """(N, A) in [-1, 1], the last step's actions."""
        self.corrected = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        """(N,) bool, whose last step the corrector made."""

    def reset(self, seeds: Sequence[int] | None = None, mask: Tensor | None = None) -> Observation:
        assert seeds is not None, "practice names its episodes"
        everyone = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask
        self._driver.reset(seeds=seeds, mask=everyone)
        self._obs = self.inner.reset(seeds, mask)
        if self._file is not None:
            self._file.begin(everyone.nonzero()[:, 0].tolist(), seeds)
        return self._obs

    @torch.no_grad()
    def step(self, actions: Tensor, mask: Tensor | None = None) -> Step:
        """Make a step; `actions` (N, A) are what the learner would do."""
        self._learner.actions = actions
        decision = self._driver.decide(self._obs)
        self.executed = decision.actions.to(self.device).clamp(-1.0, 1.0)
        self.corrected = (decision.modes != int(ActionMode.POLICY)).to(self.device)
        states = None if self._file is None else self.inner.get_states()
        decided_at = time.perf_counter()
        step = self.inner.step(self.executed, mask)
        if self._file is not None:
            self._file.take(self._obs, decision, step, mask, states, decided_at)
        self._obs = step.obs
        return step

    def close(self) -> None:
        """Close the file; the environment within is its maker's."""
        if self._file is not None:
            self._file.close()


class CorrectionsFile:
    """The practice episodes in which somebody took over, whole and as they happen, in one data set file.

    An episode that is there already is not written again: practice that goes on from a checkpoint repeats some.
    """

    def __init__(
        self,
        path: Path,
        env: VectorEnv,
        *,
        task: str,
        describe: dict[str, Any],
        success_ends: bool,
        every: bool = False,
    ) -> None:
        """
        Args:
            path: opened, or appended to, at the first step.
            task: what the demonstrations call the task, so that the files read as one.
            describe: what the file says about every episode.
            success_ends: an episode ends where it is solved, also where the environment would go on.
            every: keep the episodes in which nobody took over, too.
        """
        self.path, self.env, self.task, self.describe = path, env, task, describe
        self.success_ends, self.every = success_ends, every
        self._slots: list[Slot | None] = [None] * env.num_envs
        self._begun = 0
        self._corrected: set[int] = set()
        self._known: set[int] = set()
        self._writer: DatasetWriter | None = None
        self._recorder: EpisodeRecorder | None = None

    def begin(self, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin new episodes in these environments."""
        for row, seed in zip(rows, seeds, strict=True):
            self._slots[row] = Slot(row, -1, seed)  # its place among the others is that of its first step

    def take(
        self, obs: Observation, decision: Decision, step: Step, mask: Tensor | None, states: Any, decided_at: float
    ) -> None:
        """Record a control step of the masked environments; arguments as for `Tick`."""
        recorder = self._recorder or self._open()
        if self.success_ends:
            step = replace(step, terminated=step.terminated | step.success)
        done, success = step.done.tolist(), step.success.tolist()
        corrected = (decision.modes != int(ActionMode.POLICY)).tolist()
        moved = range(self.env.num_envs) if mask is None else mask.nonzero()[:, 0].tolist()
        slots = [slot for row in moved if (slot := self._slots[row]) is not None]
        for slot in slots:
            if slot.order < 0:
                slot.order, self._begun = self._begun, self._begun + 1
            slot.steps += 1
            slot.success |= success[slot.index]
            if corrected[slot.index]:
                self._corrected.add(slot.order)
        ended = tuple(slot for slot in slots if done[slot.index])
        for slot in ended:
            self._slots[slot.index] = None
        recorder.take(Tick(tuple(slots), (), obs, decision, step, states, decided_at))
        for slot in ended:  # kept as they end, not in the order of their seeds: a checkpoint knows no waiting ones
            recorder.close(slot, keep=self._keep(slot), success=slot.success)

    def close(self) -> None:
        """Forget the episodes in progress and close the file."""
        if self._recorder is not None:
            self._recorder.discard()
        if self._writer is not None:
            self._writer.close()
        self._recorder = self._writer = None

    def _keep(self, slot: Slot) -> bool:
        wanted = (self.every or slot.order in self._corrected) and slot.seed not in self._known
        self._corrected.discard(slot.order)
        if wanted:
            self._known.add(slot.seed)
        return wanted

    def _open(self) -> EpisodeRecorder:
        _, following = recorded(self.path)
        if following is not None:
            with Dataset(self.path) as dataset:
                self._known = {info.seed for info in dataset.info}
        self._writer = open_writer(self.path, self.env, append=following is not None, task=self.task)
        self._recorder = EpisodeRecorder(self._writer, describe=self.describe, model=model_name(self.env))
        return self._recorder


class _Learner:
    """A learner in the form in which a driver of corrections asks a policy: its actions are told before each step."""

    notes = ()

    def __init__(self) -> None:
        self.actions = torch.zeros(0)
        self.window: Observation = {}

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        """The learner knows."""

    def replan(self, mask: Tensor) -> None:
        """The learner's chunks are its own affair."""

    def act(self, obs: Observation) -> Tensor:
        self.window = {key: value[:, None] for key, value in obs.items()}
        return self.actions
