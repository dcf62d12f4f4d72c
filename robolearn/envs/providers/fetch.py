"""A scripted expert for the Fetch robot's tasks (Gymnasium-Robotics): FetchReach and FetchPickAndPlace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robolearn.errors import TaskError

if TYPE_CHECKING:
    from robolearn.envs.interface import Actor, VectorEnv

TASKS = ("FetchReach", "FetchPickAndPlace")
METRES = 0.05
"""What an action of one moves the gripper by, about."""
GRASPED = 0.055
"""Gap between the fingers, in metres, once they hold the 50 mm block."""


def make_expert(env: VectorEnv) -> Actor:
    """The expert of the task that `env` runs; sees what the task observes, nothing else. Raises TaskError elsewhere."""
    from robolearn.envs.experts import CallableExpert

    name = str(env.env_args["env_name"])
    for task, expert in zip(TASKS, (reach, pick_and_place)):
        if name.startswith(task):
            return CallableExpert(env, expert)
    raise TaskError(f"the expert 'fetch' knows {' and '.join(TASKS)}, received {name}")


def reach(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Straight to the goal."""
    return _towards(obs["desired_goal"] - obs["achieved_goal"], 0.0)


def pick_and_place(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Above the block, down to it, close, and to the goal; each from where the gripper and the block are now."""
    state = obs["observation"]
    to_block, gap = state[6:9], float(state[9:11].sum())
    aligned = np.linalg.norm(to_block[:2]) < 0.008
    if np.linalg.norm(to_block) < 0.012:
        held = gap < GRASPED
        return _towards(obs["desired_goal"] - obs["achieved_goal"] if held else np.zeros(3), -1.0)
    above = np.zeros(3) if aligned else np.array([0.0, 0.0, 0.06])
    return _towards(to_block + above, 1.0)


def _towards(offset: np.ndarray, gripper: float) -> np.ndarray:
    """A proportional step (3 metres) and the gripper: 1 opens, -1 closes."""
    return np.clip(np.append(offset / METRES, gripper), -1.0, 1.0).astype(np.float32)
