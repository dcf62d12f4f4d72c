"""Replay a recorded episode: the same first state and the same actions must give the same states."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from robolearn.envs.interface import VectorEnv
from robolearn.specs import Episode


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a replay compares with its recording."""

    steps: int
    exact: bool
    """Whether every state (every observation, where no states are recorded) is the recorded one bit for bit."""
    first_difference: int | None
    """First step whose state differs."""
    largest_difference: float
    success: bool
    recorded_success: bool
    frames: list[np.ndarray] = field(default_factory=list, repr=False)
    """(H, W, 3) uint8 each, where asked for."""

    def __str__(self) -> str:
        outcome = "success" if self.success else "no success"
        if self.exact:
            return f"{self.steps} steps, every state exactly as recorded, {outcome}"
        agreement = "as recorded" if self.success == self.recorded_success else "not as recorded"
        return (
            f"{self.steps} steps, states differ from step {self.first_difference} on "
            f"(at most {self.largest_difference:.3g}), {outcome} {agreement}"
        )


def replay(env: VectorEnv, episode: Episode, *, render: bool = False) -> Replay:
    """Replay in environment 0 of `env` from the episode's seed and, where recorded, its first physics state."""
    mask = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    mask[0] = True
    obs = env.reset([episode.info.seed], mask)
    if episode.states is not None:
        obs = env.set_states(episode.states[:1], mask)
    actions = torch.zeros(env.num_envs, env.action_spec.size, device=env.device)
    differences, frames, success = [], [], False
    for t in range(len(episode)):
        differences.append(_difference(env, obs, episode, t))
        if render:
            frames.append(env.render(0))
        actions[0] = torch.as_tensor(episode.actions[t], device=env.device)
        step = env.step(actions, mask)
        obs, success = step.obs, success or bool(step.success[0])
    off = [t for t, difference in enumerate(differences) if difference > 0]
    return Replay(
        steps=len(episode),
        exact=not off,
        first_difference=off[0] if off else None,
        largest_difference=max(differences),
        success=success,
        recorded_success=episode.info.success,
        frames=frames,
    )


def _difference(env: VectorEnv, obs: dict[str, torch.Tensor], episode: Episode, t: int) -> float:
    """Largest absolute difference of the state (or of the observation) before step t from the recorded one."""
    states = env.get_states()
    if episode.states is not None and states is not None:
        return float(np.abs(states[0] - episode.states[t]).max())
    pairs = [(obs[key][0].cpu().numpy(), value[t]) for key, value in episode.obs.items() if key in obs]
    return max(float(np.abs(now.astype(np.float64) - then).max()) for now, then in pairs)
