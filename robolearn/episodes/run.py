"""Collect episodes from a vector environment, whoever drives: an expert, a policy, or both in turn.

A `Driver` decides each step's actions and says who acted, what the policy proposed and what the right action would
have been; the collector keeps every environment busy and turns the steps into episodes, in order of their seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.errors import TaskError
from robolearn.specs import Episode, EpisodeInfo, Event, EventKind


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What N environments do next, and why."""

    actions: Tensor
    """(N, A) in [-1, 1], executed."""
    modes: Tensor
    """(N,) int8 of ActionMode."""
    policy_actions: Tensor | None = None
    """(N, A), the policy's proposals; None where no policy was asked."""
    expert_actions: Tensor | None = None
    """(N, A), the labels; None where nobody labels."""
    gate: Tensor | None = None
    """(N,), the gate's score; None where no gate runs."""
    events: tuple[tuple[int, EventKind, str], ...] = ()
    """(environment index, kind, reason) of what happened just before this step."""


class Driver(Protocol):
    """Who decides. `reset` is called for every environment before its first `decide`."""

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None: ...

    def decide(self, obs: Observation) -> Decision: ...


def collect(
    env: VectorEnv,
    driver: Driver,
    seeds: Iterable[int],
    *,
    info: Callable[[int, bool], EpisodeInfo],
    on_step: Callable[[int], None] = lambda count: None,
) -> Iterator[Episode]:
    """Run one episode per seed and yield them in the order of `seeds`, whatever the number of environments.

    Lazily: stop iterating and the rest of the seeds is never run.

    Args:
        seeds: episode seeds, possibly endless.
        info: (seed, success) -> what the file says about the episode.
        on_step: told how many environment steps were just made, for progress.
    """
    queue = enumerate(seeds)
    slots: list[_Slot | None] = [None] * env.num_envs
    finished: dict[int, Episode] = {}
    next_out = 0
    idle = np.ones(env.num_envs, bool)
    obs: Observation = {}
    while True:
        obs = _start(env, driver, queue, slots, idle, obs)
        running = np.array([slot is not None for slot in slots])
        if not running.any():
            break
        states = env.get_states()
        mask = torch.as_tensor(running, device=env.device)
        decision = driver.decide(obs)
        began = time.perf_counter()
        step = env.step(decision.actions, mask)
        rows = _Rows.of(obs, decision, step, states)
        obs = step.obs
        on_step(int(running.sum()))
        idle = np.zeros(env.num_envs, bool)
        for i, slot in enumerate(slots):
            if slot is None:
                continue
            slot.append(rows, i, began)
            if rows.done[i]:
                finished[slot.order] = slot.episode(rows, i, info)
                slots[i], idle[i] = None, True
        while next_out in finished:
            yield finished.pop(next_out)
            next_out += 1


def _start(
    env: VectorEnv,
    driver: Driver,
    queue: Iterator[tuple[int, int]],
    slots: list[_Slot | None],
    idle: np.ndarray,
    obs: Observation,
) -> Observation:
    """Give each idle environment the next seed; returns the observation to act on."""
    mask = np.zeros(env.num_envs, bool)
    seeds: list[int] = []
    for i in np.flatnonzero(idle):
        order, seed = next(queue, (None, None))
        if seed is None or order is None:
            break
        slots[i] = _Slot(order, seed)
        mask[i] = True
        seeds.append(seed)
    if not seeds:
        return obs
    device_mask = torch.as_tensor(mask, device=env.device)
    driver.reset(seeds, device_mask)
    return env.reset(seeds, device_mask)


@dataclass(frozen=True)
class _Rows:
    """One step of all environments on the host."""

    obs: dict[str, np.ndarray]
    next_obs: dict[str, np.ndarray]
    per_step: dict[str, np.ndarray]
    done: np.ndarray
    success: np.ndarray
    events: tuple[tuple[int, EventKind, str], ...]

    @classmethod
    def of(cls, obs: Observation, decision: Decision, step: Step, states: np.ndarray | None) -> _Rows:
        named: dict[str, Any] = {
            "actions": decision.actions,
            "action_modes": decision.modes,
            "policy_actions": decision.policy_actions,
            "expert_actions": decision.expert_actions,
            "gate": decision.gate,
            "rewards": step.reward,
            "terminated": step.terminated,
            "truncated": step.truncated,
        }
        per_step = {name: value.cpu().numpy() for name, value in named.items() if value is not None}
        per_step["actions"] = np.clip(per_step["actions"], -1.0, 1.0)
        if states is not None:
            per_step["states"] = states
        return cls(
            obs={k: v.cpu().numpy() for k, v in obs.items()},
            next_obs={k: v.cpu().numpy() for k, v in step.obs.items()},
            per_step=per_step,
            done=step.done.cpu().numpy(),
            success=step.success.cpu().numpy(),
            events=decision.events,
        )


@dataclass
class _Slot:
    """The episode in progress of one environment."""

    order: int
    seed: int
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    obs: list[dict[str, np.ndarray]] = field(default_factory=list)
    per_step: dict[str, list[np.ndarray]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    success: bool = False

    def append(self, rows: _Rows, i: int, now: float) -> None:
        # Copies: environments may hand out views of buffers that the next step overwrites.
        self.obs.append({k: v[i].copy() for k, v in rows.obs.items()})
        for name, value in rows.per_step.items():
            self.per_step.setdefault(name, []).append(value[i].copy())
        self.times.append(now)
        self.events += [
            Event(step=len(self.times) - 1, time_s=now - self.times[0], kind=kind, reason=reason)
            for index, kind, reason in rows.events
            if index == i
        ]
        self.success |= bool(rows.success[i])

    def episode(self, rows: _Rows, i: int, info: Callable[[int, bool], EpisodeInfo]) -> Episode:
        arrays = {name: np.stack(values) for name, values in self.per_step.items()}
        described = info(self.seed, self.success)
        if described.seed != self.seed or described.success != self.success:
            raise TaskError("the episode info must keep the seed and the outcome it was given")
        return Episode(
            info=EpisodeInfo(**{**vars(described), "started_at": self.started_at}),
            obs={k: np.stack([row[k] for row in self.obs]) for k in self.obs[0]},
            final_obs={k: v[i].copy() for k, v in rows.next_obs.items()},
            timestamps=np.asarray(self.times) - self.times[0],
            events=tuple(self.events),
            **arrays,
        )
