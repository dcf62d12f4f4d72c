"""Run a policy, a controller or an expert on fixed seeds: a reduction over the loop of episodes.

The outcome of a seed depends on the policy and the seed alone: not on how many environments or workers there are, nor
on which seeds run beside it. Environments are seeded per episode, and policies act through `PolicyRunner`, which
computes on a fixed number of rows and draws an episode's noise from a generator of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import Observation, VectorEnv
from robolearn.episodes.actor import ActorDriver, as_actor, env_for
from robolearn.episodes.episode_loop import EpisodeLoop, Slot, Tick
from robolearn.episodes.watch import Watch
from robolearn.errors import TaskError
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult, Trajectory
from robolearn.policies.policy import Policy
from robolearn.specs import Actor
from robolearn.training.threads import fitting_threads, start_thread_pool

Record = Literal["none", "trajectory", "full"]

KEEP_EVERY_S = 10.0
"""Wall time between two parts that are kept of an evaluation under way."""


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
    keep: Callable[[EvaluationResult], object] = lambda part: None,
    part: EvaluationResult | None = None,
) -> EvaluationResult:
    """Run one episode per seed; the result lists them in the order of the seeds.

    Args:
        deterministic: take the policy's mode instead of a sample.
        on_episode: told of each episode as it ends (not in the order of the seeds), for progress.
        record: keep "trajectory" (low-dimensional observations, actions, rewards) or "full" (images and physics states
            too) of the first `record_limit` seeds.
        keep: given what is finished, every `KEEP_EVERY_S` seconds and where Ctrl-C ends the evaluation.
        part: what was kept of this evaluation; its episodes are not run again, and the result is the same as without.

    A policy acts in the units of its own limits; raises PolicyError where it is not for this environment.
    """
    if part is not None and part.seeds == tuple(seeds):
        return part
    if isinstance(policy, Policy):
        env = env_for(policy, env)
    began = kept = time.perf_counter()
    known = {episode.seed: episode for episode in part.episodes} if part else {}
    finished = {order: known[seed] for order, seed in enumerate(seeds) if seed in known}
    left = [order for order in range(len(seeds)) if order not in finished]
    watch = Watch()
    watch.ended, watch.ended_at_once = len(finished), sum(episode.steps == 1 for episode in finished.values())
    start_thread_pool()
    actor = as_actor(policy, env, deterministic=deterministic)

    def result(noticed: tuple[str, ...]) -> EvaluationResult:
        driving = actor.notes if isinstance(actor, PolicyRunner) else ()
        return EvaluationResult(
            name=name,
            env_args=env.env_args,
            control_hz=env.control_hz,
            deterministic=deterministic,
            episodes=tuple(finished[order] for order in sorted(finished)),
            seconds=(part.seconds if part else 0.0) + time.perf_counter() - began,
            notes=tuple(dict.fromkeys((*(part.notes if part else ()), *noticed, *driving))),
        )

    limit = sum(order < record_limit for order in left)
    again = [seeds[order] for order in left]
    try:
        with fitting_threads(*([policy] if isinstance(policy, Policy) else []), rows=env.num_envs):
            for place, episode in rollouts(actor, env, again, record=record, record_limit=limit, watch=watch):
                finished[left[place]] = episode
                on_episode(episode)
                # Not where all are finished: a part with every episode would pass for the whole, without its notes.
                if len(finished) < len(seeds) and time.perf_counter() - kept >= KEEP_EVERY_S:
                    keep(result(watch.spikes))
                    kept = time.perf_counter()
    except KeyboardInterrupt:
        if len(finished) < len(seeds):
            keep(result(watch.spikes))
        raise
    return result(watch.notes)


def rollouts(
    actor: Actor,
    env: VectorEnv,
    seeds: Sequence[int],
    *,
    record: Record = "none",
    record_limit: int = 8,
    watch: Watch | None = None,
) -> Iterator[tuple[int, EpisodeRecord]]:
    """Yield (index into `seeds`, record) as episodes end."""
    if not seeds:
        raise TaskError("an evaluation needs at least one seed, received none")
    loop = EpisodeLoop(env, ActorDriver(actor, env.num_envs), seeds, states=record == "full", scores=True)
    loop.watch = watch or loop.watch
    running: dict[int, _Running] = {}
    for tick in loop:
        for slot in tick.slots:
            kept = record if slot.order < record_limit else "none"
            running.setdefault(slot.order, _Running(kept)).advance(tick, slot, env.control_hz)
        for slot in tick.ended:
            yield slot.order, running.pop(slot.order).finish(tick, slot)


@dataclass
class _Running:
    """The account of an episode while it runs."""

    record: Record
    total: float = 0.0
    success_s: float | None = None
    obs: list[dict[str, np.ndarray]] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)

    def advance(self, tick: Tick, slot: Slot, control_hz: float) -> None:
        i, reward = slot.index, float(tick.reward[slot.index])
        self.total += reward
        if slot.success and self.success_s is None:
            self.success_s = slot.steps / control_hz
        if self.record != "none":
            self.obs.append(self._keep(tick.obs, i))
            self.actions.append(np.clip(tick.decision.actions[i].cpu().numpy(), -1.0, 1.0))
            self.rewards.append(reward)
            if tick.states is not None:
                self.states.append(tick.states[i].copy())

    def finish(self, tick: Tick, slot: Slot) -> EpisodeRecord:
        return EpisodeRecord(
            seed=slot.seed,
            success=slot.success,
            steps=slot.steps,
            episode_return=self.total,
            time_to_success_s=self.success_s,
            score=slot.score,
            terminated=bool(tick.terminated[slot.index]),
            truncated=bool(tick.truncated[slot.index]),
            trajectory=None if self.record == "none" else self._trajectory(tick, slot.index),
        )

    def _trajectory(self, tick: Tick, i: int) -> Trajectory:
        frames = [*self.obs, self._keep(tick.step.obs, i)]
        return Trajectory(
            obs={key: np.stack([frame[key] for frame in frames]) for key in frames[0]},
            actions=np.stack(self.actions),
            rewards=np.asarray(self.rewards, np.float32),
            states=np.stack(self.states) if self.states else None,
        )

    def _keep(self, obs: Observation, i: int) -> dict[str, np.ndarray]:
        kept = obs if self.record == "full" else {k: v for k, v in obs.items() if v.dtype != torch.uint8}
        return {key: value[i].cpu().numpy().copy() for key, value in kept.items()}
