"""Small dataset files for the tests of imitation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, ObservationSpec

OBSERVATION = ObservationSpec({"state": ArraySpec(shape=(4,)), "goal": ArraySpec(shape=(2,))})
ACTION = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))


def expert(state: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(T, 4), (T, 2) -> (T, 2): a smooth function that a small network can learn."""
    return np.clip(np.tanh(state[:, :2] - goal) * 0.8 + 0.3 * state[:, 2:], -1.0, 1.0).astype(np.float32)


def make_episode(seed: int, steps: int = 25) -> Episode:
    rng = np.random.default_rng(seed)
    state, goal = (rng.normal(size=(steps + 1, size)).astype(np.float32) for size in (4, 2))
    ended = np.arange(steps) == steps - 1
    return Episode(
        info=EpisodeInfo(success=True, seed=seed),
        obs={"state": state[:-1], "goal": goal[:-1]},
        final_obs={"state": state[-1], "goal": goal[-1]},
        actions=expert(state[:-1], goal[:-1]),
        rewards=ended.astype(np.float32),
        terminated=ended,
        truncated=np.zeros(steps, bool),
        timestamps=np.arange(steps) * 0.05,
    )


def write_dataset(
    path: Path,
    episodes: Sequence[Episode],
    *,
    masks: dict[str, list[int]] | None = None,
    observation_spec: ObservationSpec = OBSERVATION,
    action_spec: ActionSpec = ACTION,
    env_args: Mapping[str, Any] = MappingProxyType({"env_name": "toy", "type": 3, "env_kwargs": {}}),
) -> Path:
    """`masks` lists episodes by number."""
    with DatasetWriter(
        path,
        task="toy",
        env_args=dict(env_args),
        control_hz=20.0,
        action_spec=action_spec,
        observation_spec=observation_spec,
    ) as writer:
        names = [writer.write_episode(episode) for episode in episodes]
        for mask, numbers in (masks or {}).items():
            writer.add_mask(mask, [names[number] for number in numbers])
    return path
