"""Run a policy, a controller or an expert on fixed seeds, keeping every environment busy.

The outcome of a seed depends on the policy and the seed alone: not on how many environments or workers there are, nor
on which seeds run beside it. Environments are seeded per episode, and policies act through `PolicyRunner`, which
computes on a fixed number of rows and draws an episode's noise from a generator of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.errors import TaskError
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult, Trajectory
from robolearn.policies.policy import Policy
from robolearn.training.threads import fitting_threads

Record = Literal["none", "trajectory", "full"]


class Actor(Protocol):
    """Whatever acts: a `PolicyRunner`, an `Expert`, or anything else with these two methods (arguments by name)."""

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        """New episodes begin in the masked environments; `seeds` has one per such environment."""
        ...

    def act(self, obs: Observation) -> Tensor:
        """(N, ...) -> (N, A) in [-1, 1]."""
        ...


def as_actor(policy: Policy | Actor, env: VectorEnv, *, deterministic: bool = True) -> Actor:
    """A runner for a policy; anything that acts already is returned as it is."""
    if isinstance(policy, Policy):
        return PolicyRunner(policy, env.num_envs, deterministic=deterministic)
    return policy


def evaluate(
    policy: Policy | Actor,
    env: VectorEnv,
    seeds: Sequence[int],
    *,
    name: str = "policy",
    deterministic: bool = True,
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
    record: Record = "none",
    record_limit: int = 8,
) -> EvaluationResult:
    """One episode per seed; the result lists them in the order of the seeds.

    Args:
        deterministic: take the policy's mode instead of a sample.
        on_episode: told of each episode as it ends (not in the order of the seeds), for progress and so that an
            interrupted evaluation can keep what it has.
        record: keep "trajectory" (low-dimensional observations, actions, rewards) or "full" (images and physics states
            too) of the first `record_limit` seeds.
    """
    began = time.perf_counter()
    finished: dict[int, EpisodeRecord] = {}
    actor = as_actor(policy, env, deterministic=deterministic)
    with fitting_threads(*([policy] if isinstance(policy, Policy) else []), rows=env.num_envs):
        for order, episode in rollouts(actor, env, seeds, record=record, record_limit=record_limit):
            finished[order] = episode
            on_episode(episode)
    return EvaluationResult(
        name=name,
        env_args=env.env_args,
        control_hz=env.control_hz,
        deterministic=deterministic,
        episodes=tuple(finished[order] for order in range(len(seeds))),
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def rollouts(
    actor: Actor, env: VectorEnv, seeds: Sequence[int], *, record: Record = "none", record_limit: int = 8
) -> Iterator[tuple[int, EpisodeRecord]]:
    """Yields (index into `seeds`, record) as episodes end."""
    if not seeds:
        raise TaskError("an evaluation needs at least one seed, received none")
    queue = iter(enumerate(seeds))
    slots: list[_Slot | None] = [None] * env.num_envs
    obs: Observation = {}
    while True:
        idle = [i for i, slot in enumerate(slots) if slot is None]
        fresh = [(i, *place) for i, place in zip(idle, queue)]
        if fresh:
            mask = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
            mask[[i for i, _, _ in fresh]] = True
            starting = [seed for _, _, seed in fresh]
            actor.reset(seeds=starting, mask=mask)
            obs = env.reset(starting, mask)
            for i, order, seed in fresh:
                slots[i] = _Slot(order, seed, record if order < record_limit else "none")
        running = torch.tensor([slot is not None for slot in slots], device=env.device)
        if not running.any():
            return
        states = env.get_states() if any(slot and slot.record == "full" for slot in slots) else None
        actions = actor.act(obs).to(env.device)
        step = env.step(actions, running)
        rows = _Rows.of(obs, actions, step, states)
        obs = step.obs
        for i, slot in enumerate(slots):
            if slot is not None and slot.advance(rows, i, env.control_hz):
                slots[i] = None
                yield slot.order, slot.finish(rows, i)


@dataclass(frozen=True)
class _Rows:
    """One step of all environments on the host."""

    obs: Observation
    next_obs: Observation
    actions: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    states: np.ndarray | None

    @classmethod
    def of(cls, obs: Observation, actions: Tensor, step: Step, states: np.ndarray | None) -> _Rows:
        return cls(
            obs,
            step.obs,
            actions.cpu().numpy(),
            step.reward.cpu().numpy(),
            step.terminated.cpu().numpy(),
            step.truncated.cpu().numpy(),
            step.success.cpu().numpy(),
            states,
        )


@dataclass
class _Slot:
    """The episode in progress of one environment."""

    order: int
    seed: int
    record: Record
    steps: int = 0
    total: float = 0.0
    success_s: float | None = None
    obs: list[dict[str, np.ndarray]] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)

    def advance(self, rows: _Rows, i: int, control_hz: float) -> bool:
        """Take in one step; whether the episode ended."""
        self.steps += 1
        self.total += float(rows.reward[i])
        if rows.success[i] and self.success_s is None:
            self.success_s = self.steps / control_hz
        if self.record != "none":
            self.obs.append(self._keep(rows.obs, i))
            self.actions.append(np.clip(rows.actions[i], -1.0, 1.0))
            self.rewards.append(float(rows.reward[i]))
            if rows.states is not None and self.record == "full":
                self.states.append(rows.states[i].copy())
        return bool(rows.terminated[i] or rows.truncated[i])

    def finish(self, rows: _Rows, i: int) -> EpisodeRecord:
        return EpisodeRecord(
            seed=self.seed,
            success=self.success_s is not None,
            steps=self.steps,
            episode_return=self.total,
            time_to_success_s=self.success_s,
            terminated=bool(rows.terminated[i]),
            truncated=bool(rows.truncated[i]),
            trajectory=None if self.record == "none" else self._trajectory(rows, i),
        )

    def _trajectory(self, rows: _Rows, i: int) -> Trajectory:
        frames = [*self.obs, self._keep(rows.next_obs, i)]
        return Trajectory(
            obs={key: np.stack([frame[key] for frame in frames]) for key in frames[0]},
            actions=np.stack(self.actions),
            rewards=np.asarray(self.rewards, np.float32),
            states=np.stack(self.states) if self.states else None,
        )

    def _keep(self, obs: Observation, i: int) -> dict[str, np.ndarray]:
        picture = {key for key, value in obs.items() if value.dtype == torch.uint8}
        kept = obs if self.record == "full" else {key: value for key, value in obs.items() if key not in picture}
        return {key: value[i].cpu().numpy().copy() for key, value in kept.items()}
