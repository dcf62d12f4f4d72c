"""One loop over environments and seeds, whoever acts and whatever is made of it.

Recording, DAgger, evaluation, videos, replay, contact sheets and the viewers are all reductions over its ticks:

    loop = EpisodeLoop(env, driver, seeds)
    for tick in loop:                # one control step of every environment that has an episode
        for slot in tick.ended:
            print(slot.seed, slot.steps)

Every environment is kept busy: where an episode ends, the next seed begins. The outcome of a seed does not depend on
how many environments there are, nor on which seeds run beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.episodes.actor import Decision, Driver
from robolearn.episodes.watch import Watch


@dataclass
class Slot:
    """An episode in one of the environments."""

    index: int
    """The environment."""
    order: int
    """Place of its seed among the seeds."""
    seed: int
    steps: int = 0
    """Control steps made."""
    success: bool = False
    """Whether the task has counted as solved at any step."""
    score: float | None = None
    """Largest score of any step; None where the task has none, or nobody asked."""


@dataclass(frozen=True)
class Tick:
    """One control step of N environments; rows of environments without an episode are meaningless."""

    slots: tuple[Slot, ...]
    """The episodes that made the step, by environment; `steps` and `success` include it."""
    ended: tuple[Slot, ...]
    """Those of them that the environment ended here."""
    obs: Observation
    """(N, ...) per key, before the action."""
    decision: Decision
    step: Step
    states: np.ndarray | None
    """(N, S) float64, before the action; None where the loop was not asked for them."""
    decided_at: float
    """`time.perf_counter()` when the actions were known."""

    @cached_property
    def reward(self) -> np.ndarray:
        """(N,) float32, on the host."""
        return self.step.reward.cpu().numpy()

    @cached_property
    def terminated(self) -> np.ndarray:
        """(N,) bool, on the host."""
        return self.step.terminated.cpu().numpy()

    @cached_property
    def truncated(self) -> np.ndarray:
        """(N,) bool, on the host."""
        return self.step.truncated.cpu().numpy()


class EpisodeLoop:
    """Runs one episode for each seed. Iterate over it, or call `begin` and `advance` in turn."""

    def __init__(
        self, env: VectorEnv, driver: Driver, seeds: Iterable[int], *, states: bool = False, scores: bool = False
    ) -> None:
        """
        Args:
            seeds: taken as environments become free, so that they may be endless.
            states: take the physics states before each step, where the environment has any.
            scores: ask for the score after each step, where the task has one.
        """
        self.env, self.driver, self.states, self.scores = env, driver, states, scores
        self.obs: Observation = {}
        self.watch = Watch()
        self._queue = enumerate(seeds)
        self._slots: list[Slot | None] = [None] * env.num_envs

    @property
    def running(self) -> list[Slot]:
        """The episodes that have begun and not ended, by environment."""
        return [slot for slot in self._slots if slot is not None]

    def __iter__(self) -> Iterator[Tick]:
        """Yield ticks until every seed's episode has ended."""
        while True:
            self.begin()
            if not self.running:
                return
            yield self.advance()

    @torch.no_grad()
    def begin(self) -> list[Slot]:
        """Give each environment without an episode the next seed; returns the new episodes."""
        idle = [i for i, slot in enumerate(self._slots) if slot is None]
        fresh = [Slot(i, order, seed) for i, (order, seed) in zip(idle, self._queue)]
        if fresh:
            mask = torch.zeros(self.env.num_envs, dtype=torch.bool, device=self.env.device)
            mask[[slot.index for slot in fresh]] = True
            seeds = [slot.seed for slot in fresh]
            self.driver.reset(seeds=seeds, mask=mask)
            self.obs = self.env.reset(seeds, mask)
            for slot in fresh:
                self._slots[slot.index] = slot
        return fresh

    @torch.no_grad()
    def advance(self) -> Tick:
        """Make one control step of the running episodes."""
        slots = tuple(self.running)
        mask = torch.tensor([slot is not None for slot in self._slots], device=self.env.device)
        states = self.env.get_states() if self.states else None
        decision = self.driver.decide(self.obs)
        decided_at = time.perf_counter()
        step = self.env.step(decision.actions.to(self.env.device), mask)
        done, success = step.done.cpu().numpy(), step.success.cpu().numpy()
        for slot in slots:
            slot.steps += 1
            slot.success |= bool(success[slot.index])
        if self.scores and (scores := self.env.scores()) is not None:
            for slot, score in zip(slots, scores.cpu()[[slot.index for slot in slots]].tolist(), strict=True):
                slot.score = score if slot.score is None else max(slot.score, score)
        ended = tuple(slot for slot in slots if done[slot.index])
        for slot in ended:
            self.end(slot)
        before, self.obs = self.obs, step.obs
        self.watch.look(step, slots, ended)
        return Tick(slots, ended, before, decision, step, states, decided_at)

    @torch.no_grad()
    def restore(self, slot: Slot, steps: int, state: np.ndarray) -> None:
        """Put an episode in progress back to what it was after `steps` steps, before the next: (S,) physics state."""
        mask = torch.zeros(self.env.num_envs, dtype=torch.bool, device=self.env.device)
        mask[slot.index] = True
        self.obs = self.env.set_states(state[None], mask)
        slot.steps, slot.success, slot.score = steps, False, None

    def end(self, slot: Slot) -> None:
        """Leave an episode, also before the environment ends it; the next `begin` takes another seed there."""
        self._slots[slot.index] = None
