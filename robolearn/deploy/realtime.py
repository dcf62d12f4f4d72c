"""Real-time driving: inference runs beside the control loop, so that a slow policy never delays a control tick.

A chunk is timed by the observation it was predicted from. With Tp = 6, predicted at tick 2 and ready at tick 5:

    tick            2    3    4    5    6    7
    new chunk      c0   c1   c2   c3   c4   c5      c0 to c2 are past due and dropped
    executed       b3   b4   b5   c3   c4   c5      b is the chunk before
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil

import torch
from torch import Tensor

from robolearn.deploy.still_dimensions import StillDimensions
from robolearn.errors import PolicyError
from robolearn.policies.noise import RowNoise
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION

LATENCIES_REMEMBERED = 8
"""The next chunk is asked for as early as the slowest of the last few was late."""


class ChunkQueue:
    """The actions that are still to be executed, by tick."""

    def __init__(self) -> None:
        self._chunk: Tensor | None = None
        self._tick = 0

    def put(self, chunk: Tensor, predicted_at: int, now: int) -> int:
        """Replace what is left by (Tp, A) whose first action was due at tick `predicted_at`; returns how many of its
        actions are past due. A chunk that is past due as a whole is dropped, and the old one stays."""
        late = min(max(now - predicted_at, 0), len(chunk))
        if late < len(chunk):
            self._chunk, self._tick = chunk, predicted_at
        return late

    def get(self, now: int) -> Tensor | None:
        """Return the action (A,) due at tick `now`, or None where there is none."""
        index = now - self._tick
        if self._chunk is None or not 0 <= index < len(self._chunk):
            return None
        return self._chunk[index]

    def executed(self, now: int) -> int:
        """Return the number of ticks since the current chunk was predicted."""
        return now - self._tick


@dataclass
class RealtimeStats:
    """Counts since `start`."""

    ticks: int = 0
    chunks: int = 0
    dropped_actions: int = 0
    """Predicted actions that came after their tick."""
    dropped_chunks: int = 0
    """Chunks that came when all their actions were past due."""
    held_ticks: int = 0
    """Ticks without a predicted action, at which the last one was repeated."""
    latencies_s: list[float] = field(default_factory=list)


class RealtimeRunner:
    """Drives one robot; `act` answers at once, and a thread predicts the next chunk meanwhile.

    One chunk is predicted at a time, so actions never run out as long as Tp control periods cover two predictions.
    Use as a context manager, or call `close`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        control_hz: float,
        exec_steps: int | None = None,
        deterministic: bool = True,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            control_hz: how often `act` will be called.
            exec_steps: Ta, ticks after which a new chunk should take over; None takes the policy's own.
            threads: torch's threads for inference; None leaves them as they are. One core fewer than there are keeps
                the control loop's free.
        """
        self.policy, self.control_hz, self.deterministic, self.threads = policy, control_hz, deterministic, threads
        self.planner, self.corrections = policy.planner, policy.corrections
        Tp = self.planner.config.pred_steps
        self.exec_steps = policy.config.exec_steps if exec_steps is None else exec_steps
        if not 1 <= self.exec_steps <= Tp:
            raise PolicyError(f"exec_steps must be between 1 and the policy's pred_steps {Tp}, received {exec_steps}")
        if not control_hz > 0:
            raise PolicyError(f"control_hz must be positive, received {control_hz}")
        self.stats = RealtimeStats()
        self._still = StillDimensions(self.planner)
        self._generator, self._correcting = torch.Generator(), torch.Generator()
        self._history: deque[dict[str, Tensor]] = deque(maxlen=self.planner.config.obs_steps)
        self._queue = ChunkQueue()
        self._tick = 0
        self._last = torch.zeros(policy.action_spec.size)
        self._condition = threading.Condition()
        self._request: tuple[int, dict[str, Tensor]] | None = None
        self._results: deque[tuple[int, Tensor, float]] = deque()
        self._error: BaseException | None = None
        self._busy = self._closed = False
        self._worker = threading.Thread(target=self._serve, name="policy inference", daemon=True)
        self._worker.start()

    def __enter__(self) -> RealtimeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, obs: Mapping[str, Tensor], seed: int = 0) -> None:
        """Begin an episode; waits for the first chunk, so that the first tick finds an action.

        Args:
            obs: (...) per key, before the first tick.
        """
        self._wait_idle()
        self._results.clear()
        self._history.clear()
        self._generator.manual_seed(seed)
        self._correcting.manual_seed(seed + 1)
        self._queue, self._tick, self.stats = ChunkQueue(), 0, RealtimeStats()
        self._remember(obs)
        self._ask()
        self._wait_idle()

    def act(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the action (A,) for this tick, in [-1, 1], without waiting for the policy; call it once per tick.

        Raises whatever the policy raised in its thread.
        """
        if not self._history:
            raise PolicyError("an episode has not begun; call start(obs) before act")
        if self.stats.ticks:  # the first tick's observation is the one `start` was given
            self._remember(obs)
        self._collect()
        action = self._queue.get(self._tick)
        if action is None:
            self.stats.held_ticks += 1
            action = self._last
        lead = ceil(max(self.stats.latencies_s[-LATENCIES_REMEMBERED:], default=0.0) * self.control_hz)
        if not self._busy and self._tick > 0 and self._queue.executed(self._tick) >= self.exec_steps - lead:
            self._ask()
        self._last, self._tick = action, self._tick + 1
        self.stats.ticks += 1
        return self._corrected(action)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was odd while driving, for people; each is warned of as well."""
        return tuple(self._still.notes)

    def close(self) -> None:
        """End the inference thread."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._worker.join()

    def _remember(self, obs: Mapping[str, Tensor]) -> None:
        missing = [key for key in self.policy.observation_spec if key not in obs]
        if missing:
            raise PolicyError(f"the policy needs observations {missing}; received {list(obs)}")
        frame = {key: torch.as_tensor(obs[key]) for key in self.policy.observation_spec}
        for key, value in frame.items():
            self._still.look(key, value)
        while len(self._history) < self.planner.config.obs_steps - 1:
            self._history.append(frame)
        self._history.append(frame)

    @torch.inference_mode()
    def _corrected(self, action: Tensor) -> Tensor:
        """Return a planned action (A,) as the corrections, small networks of this tick's observation, have it."""
        for correction in self.corrections:
            seen = self._history[-1] | {BASE_ACTION: action}
            device = next(correction.parameters()).device
            window = {key: seen[key][None, None].to(device) for key in correction.observation_spec}
            noise = RowNoise([self._correcting], device)
            action = correction.act(window, deterministic=self.deterministic, noise=noise)[0, 0].cpu()
        return action

    def _ask(self) -> None:
        """Have a chunk predicted from the history as it is now."""
        window = {key: torch.stack([frame[key] for frame in self._history]).unsqueeze(0) for key in self._history[0]}
        with self._condition:
            self._request, self._busy = (self._tick, window), True
            self._condition.notify_all()

    def _collect(self) -> None:
        """Take over finished chunks."""
        if self._error is not None:
            raise self._error
        while self._results:
            predicted_at, chunk, latency = self._results.popleft()
            late = self._queue.put(chunk, predicted_at, self._tick)
            self.stats.chunks += 1
            self.stats.dropped_actions += late
            self.stats.dropped_chunks += late == len(chunk)
            self.stats.latencies_s.append(latency)

    def _wait_idle(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._busy)
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        """Predict whatever is asked for, in the inference thread."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = next(self.planner.parameters()).device
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._request is not None or self._closed)
                if self._closed:
                    return
                assert self._request is not None
                (tick, window), self._request = self._request, None
            began = time.perf_counter()
            try:
                with torch.inference_mode():
                    chunk = self.planner.act(
                        {key: window[key].to(device) for key in self.planner.observation_spec},
                        deterministic=self.deterministic,
                        noise=RowNoise([self._generator], device),
                    )[0].cpu()
                self._results.append((tick, chunk, time.perf_counter() - began))
            except BaseException as error:  # handed to the control loop, which raises it
                self._error = error
            with self._condition:
                self._busy = False
                self._condition.notify_all()


@dataclass
class LoopTiming:
    """Punctuality of a control loop."""

    ticks: int = 0
    missed: int = 0
    """Ticks whose action came a whole period late or more."""
    worst_s: float = 0.0
    """Longest delay of an action after its tick began."""


def control_loop(step: Callable[[Tensor], Mapping[str, Tensor]], runner: RealtimeRunner, *, ticks: int) -> LoopTiming:
    """Call `step(action) -> obs` at the runner's rate, by absolute deadlines, so that delays do not add up.

    `runner.start` must have been called with the observation that the first tick sees.
    """
    timing, period = LoopTiming(), 1.0 / runner.control_hz
    obs: Mapping[str, Tensor] = {}
    start = time.perf_counter()
    for tick in range(ticks):
        due = start + tick * period
        time.sleep(max(due - time.perf_counter(), 0.0))
        action = runner.act(obs)
        delay = time.perf_counter() - due
        timing.worst_s = max(timing.worst_s, delay)
        timing.missed += delay >= period
        timing.ticks += 1
        obs = step(action)
    return timing
