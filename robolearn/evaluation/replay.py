"""Replay a recorded episode: by its actions, which must give the same states again, or by the states themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from robolearn.contract import Interface
from robolearn.datasets.dataset import Dataset
from robolearn.envs.adapted import fitted
from robolearn.envs.interface import Observation, VectorEnv
from robolearn.episodes.actor import ActorDriver
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.errors import DatasetError, count
from robolearn.specs import Episode


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay compared with its recording."""

    steps: int
    exact: bool
    """Whether every state (every observation, where no states are recorded) is the recorded one bit for bit."""
    first_difference: int | None
    """First step whose state differs."""
    largest_difference: float
    success: bool
    recorded_success: bool
    restored: bool = False
    """Whether every state was restored, and no action made."""
    observation_difference: float | None = None
    """Largest difference of what restored states look like, pictures apart, from the recorded observations."""
    frames: list[np.ndarray] = field(default_factory=list, repr=False)
    """(H, W, 3) uint8 each, where asked for."""

    def __str__(self) -> str:
        outcome = "success" if self.success else "no success"
        if self.restored:
            off = "exactly as recorded" if self.exact else f"off by at most {self.largest_difference:.3g}"
            seen = (
                ""
                if self.observation_difference is None
                else f"; observations off by {self.observation_difference:.3g}"
            )
            return f"{count(self.steps, 'state')} restored, {off}{seen}; recorded as {outcome}"
        if self.exact:
            return f"{count(self.steps, 'step')}, every state exactly as recorded, {outcome}"
        agreement = "as recorded" if self.success == self.recorded_success else "not as recorded"
        return (
            f"{count(self.steps, 'step')}, states differ from step {self.first_difference} on "
            f"(at most {self.largest_difference:.3g}), {outcome} {agreement}"
        )


class RecordedActions:
    """Acts as an episode says, step by step."""

    def __init__(self, actions: np.ndarray) -> None:
        """
        Args:
            actions: (T, A) in [-1, 1].
        """
        self.actions, self.step = torch.as_tensor(actions), 0

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        self.step = 0

    def act(self, obs: Observation) -> torch.Tensor:
        """Return the next actions, the same (A,) for every environment: (N, A)."""
        self.step += 1
        rows = len(next(iter(obs.values())))
        return self.actions[self.step - 1].expand(rows, -1)


def replay(env: VectorEnv, episode: Episode, *, render: bool = False) -> Replay:
    """Replay in environment 0 of `env` from the episode's seed and, where recorded, its first physics state.

    Where the environment ends the episode earlier than the recording did, the replay stops there.
    """
    loop = EpisodeLoop(env, ActorDriver(RecordedActions(episode.actions), env.num_envs), [episode.info.seed])
    (slot,) = loop.begin()
    if episode.states is not None:
        mask = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        mask[slot.index] = True
        loop.obs = env.set_states(episode.states[:1], mask)
    differences, frames = [], []
    while loop.running and slot.steps < len(episode):
        differences.append(_difference(env, loop.obs, episode, slot.steps))
        if render:
            frames.append(env.render(slot.index))
        loop.advance()
    off = [t for t, difference in enumerate(differences) if difference > 0]
    return Replay(
        steps=slot.steps,
        exact=not off and slot.steps == len(episode),
        first_difference=off[0] if off else None if slot.steps == len(episode) else slot.steps,
        largest_difference=max(differences),
        success=slot.success,
        recorded_success=episode.info.success,
        frames=frames,
    )


def restore(env: VectorEnv, episode: Episode, *, render: bool = False) -> Replay:
    """Restore every recorded state in environment 0 of `env`, one after the other; no action is made.

    Raises DatasetError where the episode has no states, TaskError where the environment cannot take them.
    """
    if episode.states is None:
        raise DatasetError("this episode holds no physics states to restore; replay its actions: --by action")
    mask = torch.arange(env.num_envs, device=env.device) == 0
    env.reset([episode.info.seed], mask)  # what no state holds, as the goal of some environments
    differences, unlike, frames = [], [], []
    for t in range(len(episode)):
        obs = env.set_states(episode.states[t : t + 1], mask)
        differences.append(_difference(env, obs, episode, t))
        unlike.append(_unlike(obs, episode, t, pictures=False))
        if render:
            frames.append(env.render(0))
    off = [t for t, difference in enumerate(differences) if difference > 0]
    return Replay(
        steps=len(episode),
        exact=not off,
        first_difference=off[0] if off else None,
        largest_difference=max(differences),
        success=episode.info.success,
        recorded_success=episode.info.success,
        restored=True,
        observation_difference=max((x for x in unlike if x is not None), default=None),
        frames=frames,
    )


def in_units_of(dataset: Dataset, env: VectorEnv) -> VectorEnv:
    """Return `env` in the units of a file's actions. Raises PolicyError where the file's are not for it."""
    name, seen = str(dataset.paths[0]), env.observation_spec  # a replay acts and reads no observations
    return fitted(env, Interface(name=name, observation_spec=seen, action_spec=dataset.action_spec))


def _difference(env: VectorEnv, obs: Observation, episode: Episode, t: int) -> float:
    """Largest absolute difference of the state (or of the observation) before step t from the recorded one."""
    states = env.get_states()
    if episode.states is not None and states is not None:
        return float(np.abs(states[0] - episode.states[t]).max())
    return _unlike(obs, episode, t, pictures=True) or 0.0


def _unlike(obs: Observation, episode: Episode, t: int, *, pictures: bool) -> float | None:
    """Largest absolute difference of the observation before step t from the recorded one; None of nothing."""
    keys = [key for key, value in episode.obs.items() if key in obs and (pictures or value.dtype != np.uint8)]
    pairs = [(obs[key][0].cpu().numpy(), episode.obs[key][t]) for key in keys]
    return max((float(np.abs(now.astype(np.float64) - then).max()) for now, then in pairs), default=None)
