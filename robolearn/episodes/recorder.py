"""The one road of a step into the file.

    loop -> tick -> begin_episode, add_step, as it happens -> commit or discard, in the order of the seeds

What is committed survives anything; of the episodes in progress, also of several environments, a killed process loses
at most the last second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robolearn.datasets.recording.live_episode import LiveEpisode
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.episodes.episode_loop import EpisodeLoop, Slot, Tick
from robolearn.specs import ActionMode, Event, EventKind

NO_CLIP = 1e-5
"""Beyond the limits by less than this is rounding."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An episode that has ended."""

    seed: int
    success: bool
    steps: int
    name: str | None
    """Its name in the dataset; None where it was not kept."""
    clipped_steps: int = 0
    """Steps at which more was asked for than the limits allow."""
    clipped_share: float = 0.0
    """Part of the size of what was asked for at these steps that was cut off."""


class EpisodeRecorder:
    """Records the episodes of a loop as they happen.

    Episodes are committed in the order of their seeds, so the file does not depend on the number of environments; those
    that finish before their turn wait for it in their journals.
    """

    def __init__(
        self, writer: DatasetWriter, *, describe: Mapping[str, Any], model: str = "", remember: bool = False
    ) -> None:
        """
        Args:
            describe: what the file says about every episode: source, round, operator, device. The attribute of this
                name may be changed, for the episodes that begin from then on.
            model: name of the model that they run in, one of the writer's.
            remember: keep the steps of episodes in progress in memory, so that `rewind` can take some back.
        """
        self.writer, self.describe, self._model, self._remember = writer, dict(describe), model, remember
        self._live: dict[int, _Live] = {}
        self._next = 0

    def take(self, tick: Tick) -> None:
        """Record one control step of every running episode."""
        rows = _Rows.of(tick)
        for slot in tick.slots:
            live = self._live.get(slot.order) or self._begin(slot)
            live.add(rows, tick, slot)
        for slot in tick.ended:
            self._live[slot.order].end(slot)

    def settle(self, keep: Callable[[Slot], bool] = lambda slot: True) -> Iterator[Attempt]:
        """Yield the attempts whose turn has come, committed where `keep` says so."""
        while (live := self._live.get(self._next)) is not None and live.ended is not None:
            slot, kept = live.ended, keep(live.ended)
            name = live.settle(kept)
            del self._live[self._next]
            self._next += 1
            yield Attempt(seed=slot.seed, success=slot.success, steps=slot.steps, name=name, **live.clipping())

    def close(self, slot: Slot, *, keep: bool, success: bool, **changes: Any) -> str | None:
        """End an episode where it stands, whatever the environment says; returns its name where it is kept.

        Args:
            changes: what else of its `EpisodeInfo` is known only now.
        """
        live = self._live.pop(slot.order, None)
        if live is None:  # not one step was made
            return None
        if not keep:
            live.episode.discard()
            return None
        changes = live.clipping() | changes
        return live.episode.commit(live.next_obs(slot.index), success=success, closed=True, **changes)

    def add_event(self, slot: Slot, kind: EventKind, reason: str) -> None:
        """Note what happens between two steps of an episode; before its first step there is nothing to note it in."""
        live = self._live.get(slot.order)
        if live is not None and live.began is not None:
            time_s = time.perf_counter() - live.began
            live.add_event(Event(step=slot.steps, time_s=time_s, kind=kind, reason=reason))

    def rewind(self, slot: Slot, step: int) -> list[dict[str, Any]]:
        """Take all steps of an episode from `step` (at least 1) on back, as if they had not been made.

        The episode is recorded anew from memory and then takes the place of what is in its journal, so that a crash at
        any moment leaves one of the two. Returns what was recorded of every step, up to and with the first that is
        taken back, as `LiveEpisode.add_step` takes it.
        """
        old = self._live[slot.order]
        assert self._remember
        assert old.rows is not None
        assert 1 <= step < len(old.taken)
        fresh = self._begin(slot)
        fresh.began = old.began
        for event in old.events:
            if event.step <= step:
                fresh.add_event(event)
        for taken in old.taken[:step]:
            fresh.put(taken)
        after = {key: value.copy() for key, value in old.rows.next_obs.items()}
        for key, value in after.items():
            value[slot.index] = old.taken[step].values["obs"][key]
        fresh.rows = replace(old.rows, next_obs=after)
        old.episode.discard()
        return [taken.values for taken in old.taken[: step + 1]]

    def discard(self) -> None:
        """Forget the episodes in progress; after a failure of the disk their journals stay for `repair`."""
        for live in self._live.values():
            if live.episode.failure is None:
                live.episode.discard()
            else:
                live.episode.abandon()
        self._live.clear()

    def _begin(self, slot: Slot) -> _Live:
        episode = self.writer.begin_episode(seed=slot.seed, model=self._model, **self.describe)
        live = _Live(episode, remember=self._remember)
        self._live[slot.order] = live
        return live


def record_episodes(
    loop: EpisodeLoop,
    recorder: EpisodeRecorder,
    keep: Callable[[Slot], bool] = lambda slot: True,
    on_tick: Callable[[Tick], None] = lambda tick: None,
) -> Generator[Attempt]:
    """Run and record a loop's episodes; yields attempts in the order of the seeds.

    Lazily: stop iterating, and close the iterator, and the rest is neither run nor kept.
    """
    try:
        for tick in loop:
            recorder.take(tick)
            on_tick(tick)
            yield from recorder.settle(keep)
    finally:
        recorder.discard()


@dataclass
class _Rows:
    """One control step of N environments on the host."""

    obs: dict[str, np.ndarray]
    next_obs: dict[str, np.ndarray]
    actions: np.ndarray
    modes: np.ndarray
    policy_actions: np.ndarray | None
    expert_actions: np.ndarray | None
    gate: np.ndarray | None
    asked: np.ndarray
    """(N,) size of what whoever demonstrates asked for: the sum of magnitudes, in units of [-1, 1]."""
    cut: np.ndarray
    """(N,) how much of it lies beyond the limits."""

    @classmethod
    def of(cls, tick: Tick) -> _Rows:
        decision = tick.decision
        optional = {
            name: None if value is None else value.cpu().numpy()
            for name in ("policy_actions", "expert_actions", "gate")
            for value in [getattr(decision, name)]
        }
        actions, labels = decision.actions.cpu().numpy(), optional["expert_actions"]
        meant = np.abs(actions if labels is None else labels)
        if labels is not None:
            optional["expert_actions"] = np.clip(labels, -1.0, 1.0)
        return cls(
            obs={key: value.cpu().numpy() for key, value in tick.obs.items()},
            next_obs={key: value.cpu().numpy() for key, value in tick.step.obs.items()},
            actions=np.clip(actions, -1.0, 1.0),
            modes=decision.modes.cpu().numpy(),
            asked=meant.sum(-1),
            cut=np.maximum(meant - 1.0, 0.0).sum(-1),
            **optional,
        )


@dataclass(frozen=True)
class _Step:
    """A recorded step."""

    values: dict[str, Any]
    """As `LiveEpisode.add_step` takes them."""
    asked: float
    cut: float


@dataclass
class _Live:
    """An episode in progress."""

    episode: LiveEpisode
    remember: bool = False
    taken: list[_Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    began: float | None = None
    rows: _Rows | None = None
    ended: Slot | None = None
    clipped: int = 0
    asked: float = 0.0
    cut: float = 0.0
    final_obs: Mapping[str, np.ndarray] | None = None

    def add(self, rows: _Rows, tick: Tick, slot: Slot) -> None:
        i, self.rows = slot.index, rows
        self.began = tick.decided_at if self.began is None else self.began
        time_s = tick.decided_at - self.began
        for index, kind, reason in tick.decision.events:
            if index == i:
                self.add_event(Event(step=slot.steps - 1, time_s=time_s, kind=kind, reason=reason))
        values = {
            "obs": {key: value[i] for key, value in rows.obs.items()},
            "action": rows.actions[i],
            "reward": float(tick.reward[i]),
            "terminated": bool(tick.terminated[i]),
            "truncated": bool(tick.truncated[i]),
            "timestamp": time_s,
            "state": None if tick.states is None else tick.states[i],
            "mode": ActionMode(rows.modes[i]),
            "policy_action": None if rows.policy_actions is None else rows.policy_actions[i],
            "expert_action": None if rows.expert_actions is None else rows.expert_actions[i],
            "gate": None if rows.gate is None else float(rows.gate[i]),
        }
        self.put(_Step(values, float(rows.asked[i]), float(rows.cut[i])))

    def put(self, step: _Step) -> None:
        if step.cut > NO_CLIP:
            self.clipped += 1
            self.asked += step.asked
            self.cut += step.cut
        self.episode.add_step(**step.values)
        if self.remember:
            self.taken.append(replace(step, values=_copied(step.values)))

    def add_event(self, event: Event) -> None:
        self.episode.add_event(event)
        self.events.append(event)

    def clipping(self) -> dict[str, Any]:
        """Return what `EpisodeInfo` says about demands beyond the limits."""
        return {"clipped_steps": self.clipped, "clipped_share": self.cut / self.asked if self.asked else 0.0}

    def next_obs(self, i: int) -> dict[str, np.ndarray]:
        """Return (...) per key, what environment `i` showed after the last step."""
        assert self.rows is not None
        return {key: value[i].copy() for key, value in self.rows.next_obs.items()}

    def end(self, slot: Slot) -> None:
        # Copies: the environment goes on with other episodes while this one waits for its turn.
        self.ended = slot
        self.final_obs = self.next_obs(slot.index)

    def settle(self, keep: bool) -> str | None:
        """Commit the episode, or discard it; returns its name in the dataset."""
        assert self.ended is not None
        assert self.final_obs is not None
        if keep:
            return self.episode.commit(self.final_obs, success=self.ended.success, **self.clipping())
        self.episode.discard()
        return None


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    """Return a step's values with arrays of their own: environments may go on to write into those that they gave."""
    obs = {key: np.array(value) for key, value in values["obs"].items()}
    return {name: np.array(v) if isinstance(v, np.ndarray) else v for name, v in values.items()} | {"obs": obs}
