"""Live recording of one episode, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.datasets.format.groups import coerce, decompress, frame_keys, step_dtype, unpack_rows
from robolearn.datasets.format.schema import Header, text
from robolearn.datasets.recording.durable_files import publish, uninterrupted
from robolearn.datasets.recording.step_pipeline import DiskThread, RecordingStats, StepPipeline
from robolearn.errors import DatasetError
from robolearn.specs import ActionMode, EpisodeInfo, Event


class LiveEpisode:
    """An episode being recorded; made by `DatasetWriter.begin_episode`.

    `add_step` checks and copies, and leaves compressing and writing to background threads. What fails there is raised
    by the next call here.
    """

    def __init__(
        self,
        *,
        name: str,
        header: Header,
        info: EpisodeInfo,
        parts: Path,
        pool: Executor,
        stats: RecordingStats,
        disk: DiskThread,
        next_name: Callable[[], str],
        on_end: Callable[[LiveEpisode, int], None],
    ) -> None:
        """
        Args:
            name: of its files while it is in progress.
            next_name: gives the name that it has in the dataset once it is committed.
            on_end: told when it is committed, with its steps, or discarded (0).
        """
        self.name, self.info = name, info
        self.ended = False
        self._header, self._parts, self._next_name, self._on_end = header, parts, next_name, on_end
        self._partial, self._journal = parts / f"{name}.partial", parts / f"{name}.journal"
        self._frame_keys = frame_keys(header.observation_spec)
        self._layout: np.dtype | None = None
        self._rows: list[np.ndarray] = []
        self._events: list[Event] = []
        self._last_time = -np.inf
        self._last_done = False
        self._pipeline = StepPipeline(
            partial=self._partial,
            journal=self._journal,
            name=name,
            header=header,
            info=info,
            pool=pool,
            stats=stats,
            disk=disk,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def add_step(
        self,
        obs: Mapping[str, Any],
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        timestamp: float,
        state: Any = None,
        mode: ActionMode = ActionMode.DEMONSTRATION,
        policy_action: Any = None,
        expert_action: Any = None,
        gate: float | None = None,
    ) -> None:
        """Record one step; the arrays are copied. Raises DatasetError naming a fault, leaving the episode as it was.

        Args:
            obs: (...) per key, the observation before the action.
            action: (A,) executed, in [-1, 1].
            reward: of the state reached.
            timestamp: measured seconds since the episode began, greater than the last one.
            state: (S,) physics state before the action; given at every step or at none.
            policy_action: (A,) what the policy proposed, where it was asked.
            expert_action: (A,) the label, where there is one.
            gate: the gate's score, where one ran.
        """
        self._check_open()
        values = self._check_obs(obs, f"step {len(self)}: obs")
        action = self._check_step(action, reward, timestamp)
        row = np.zeros((), self._step_layout(state))
        row["actions"], row["rewards"], row["timestamps"] = action, reward, timestamp
        row["terminated"], row["truncated"], row["action_modes"] = terminated, truncated, ActionMode(mode)
        for name, value in (("policy_actions", policy_action), ("expert_actions", expert_action)):
            row[name] = np.nan if value is None else self._check_action(value, name)
        row["gate"] = np.nan if gate is None else gate
        if state is not None:
            row["states"] = state
        for key, value in values.items():
            if key not in self._frame_keys:
                row[f"obs/{key}"] = value
        self._pipeline.put(row, [np.array(values[key]) for key in self._frame_keys])
        self._rows.append(row)
        self._last_time, self._last_done = timestamp, bool(terminated or truncated)

    def add_event(self, event: Event) -> None:
        """Record something that happened between two steps."""
        self._check_open()
        text(event.reason)
        self._events.append(event)
        self._pipeline.put_event(event)

    @property
    def shard(self) -> Path:
        """The file of the committed episode."""
        return self._parts / f"{self.name}.hdf5"

    def commit(self, final_obs: Mapping[str, Any], *, success: bool, closed: bool = False, **changes: Any) -> str:
        """Make the episode part of the dataset, durably; returns its name, the next free one.

        Args:
            final_obs: (...) per key, the true observation after the last action.
            closed: whoever records ends the episode here, although the environment went on: its last step is marked
                terminated where it is a success, else truncated.
            changes: what else of `info` is known only now.

        Raises DatasetError where the episode is empty, `final_obs` is wrong (the episode then goes on) or the disk
        fails (the journal then stays for `repair`).
        """
        self._check_open()
        final = self._check_obs(final_obs, "final_obs")
        if not self._rows:
            raise DatasetError("an episode needs at least one step before it is committed; received none")
        self.info = replace(self.info, success=success, **changes)
        if closed and not self._last_done:
            self._rows[-1]["terminated" if success else "truncated"] = True
        with uninterrupted():
            return self._finish(len(self), final)

    def discard(self) -> None:
        """Forget the episode."""
        if not self.ended:
            self._pipeline.abandon()
            for path in (self._partial, self._journal):
                path.unlink(missing_ok=True)
            self._end(0)

    def salvage(self) -> str | None:
        """Keep what a session leaves unfinished, as `repair` would: its last observation ends the episode.

        Returns its name, or None where there is not one complete step.
        """
        self._check_open()
        steps = len(self) - 1
        if steps < 1:
            self.discard()
            return None
        self._pipeline.drain()
        last, spec = self._rows[-1], self._header.observation_spec
        final = {key: last[f"obs/{key}"] for key in spec if key not in self._frame_keys}
        final |= {key: decompress(self._pipeline.last_frames[key], spec[key]) for key in self._frame_keys}
        self.info = replace(self.info, interrupted=True)
        return self._finish(steps, final)

    @property
    def failure(self) -> DatasetError | None:
        """Return what has gone wrong in the background; the journal then holds the steps up to there."""
        return self._pipeline.failure

    def abandon(self) -> None:
        """Stop, leaving the files as they are for `repair`."""
        if not self.ended:
            self._pipeline.abandon()
            self.ended = True

    def _finish(self, steps: int, final: Mapping[str, Any]) -> str:
        try:
            self._pipeline.drain()
            arrays = unpack_rows(np.array(self._rows[:steps]))
            if self.info.interrupted:
                arrays["truncated"][-1] = not arrays["terminated"][-1]
            events = [event for event in self._events if event.step <= steps]
            self.name = self._next_name()
            self._pipeline.name_group(self.name)
            self._pipeline.group.finish(self.info, arrays, final, events)
            self._pipeline.close()
            publish(self._partial, self.shard)
            self._end(steps)
        except BaseException as error:
            failure = error if isinstance(error, DatasetError) else DatasetError(f"committing {self.name}: {error!r}")
            self._pipeline.failure = self._pipeline.failure or failure
            self.abandon()
            if failure is error or not isinstance(error, Exception):
                raise
            raise failure from error
        self._journal.unlink(missing_ok=True)
        return self.name

    def _end(self, steps: int) -> None:
        """Tell the writer, which publishes the episode; `steps` is 0 for one that was discarded."""
        self._on_end(self, steps)
        self.ended = True

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.ended:
            raise DatasetError(f"{self.name} has been committed or discarded; begin a new episode")

    def _check_obs(self, obs: Mapping[str, Any], what: str) -> dict[str, np.ndarray]:
        spec = self._header.observation_spec
        if set(obs) != set(spec):
            raise DatasetError(f"{what} must have the keys {list(spec)}, received {list(obs)}")
        return {key: coerce(obs[key], array, f"{what}/{key}") for key, array in spec.items()}

    def _check_action(self, action: Any, what: str) -> np.ndarray:
        array, size = np.asarray(action, np.float32), self._header.action_spec.size
        if array.shape != (size,):
            raise DatasetError(f"step {len(self)}: {what} must have shape ({size},), received {array.shape}")
        return array

    def _check_step(self, action: Any, reward: float, timestamp: float) -> np.ndarray:
        step = len(self)
        if self._last_done:
            raise DatasetError(f"step {step}: the episode ended at step {step - 1}; commit it and begin a new one")
        array = self._check_action(action, "action")
        if not (np.abs(array) <= 1.0 + 1e-6).all():
            raise DatasetError(f"step {step}: actions must lie in [-1, 1], received {array.tolist()}")
        if not np.isfinite(reward):
            raise DatasetError(f"step {step}: the reward must be finite, received {reward}")
        if not (np.isfinite(timestamp) and timestamp > self._last_time):
            raise DatasetError(f"step {step}: timestamps must increase, received {timestamp} after {self._last_time}")
        return array

    def _step_layout(self, state: Any) -> np.dtype:
        """The record of a step; the first step decides whether there are states, and how large."""
        shape = () if state is None else np.shape(state)
        if state is not None and (len(shape) != 1 or not shape[0]):
            raise DatasetError(f"step {len(self)}: a state must have shape (S,), received {shape}")
        size = shape[0] if shape else 0
        if self._layout is None:
            self._layout = step_dtype(self._header, size)
            self._state_size = size
        if size != self._state_size:
            raise DatasetError(
                f"step {len(self)}: expected a state of size {self._state_size} as at the first step, received {size} "
                "(0: none)"
            )
        return self._layout
