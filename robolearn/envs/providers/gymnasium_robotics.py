"""Gymnasium-Robotics (Farama): states that continue exactly, and a scripted expert for two tasks of the Fetch robot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from robolearn.envs.providers.provider import Provider, Quirks, Script, ScriptedExpert
from robolearn.errors import TaskError

if TYPE_CHECKING:
    from robolearn.envs.interface import VectorEnv

METRES = 0.05
"""Distance that an action of one moves the gripper, about."""
GRASPED = 0.055
"""Gap between the fingers, in metres, once they hold the 50 mm block."""


class LaggedFrames(Quirks):
    """The body frames that the last physics substep left behind.

    They lag behind the joint positions, so they are no function of the physics state, and Gymnasium-Robotics' arms
    (Fetch) turn actions into targets relative to them.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        unwrapped: Any = env.unwrapped
        self._data = unwrapped.data
        self.size = self._data.xpos.size + self._data.xquat.size

    def get(self) -> np.ndarray:
        return np.concatenate([self._data.xpos.reshape(-1), self._data.xquat.reshape(-1)])

    def set(self, values: np.ndarray, elapsed: int) -> None:
        super().set(values, elapsed)
        positions = self._data.xpos.size
        self._data.xpos[:] = values[:positions].reshape(self._data.xpos.shape)
        self._data.xquat[:] = values[positions:].reshape(self._data.xquat.shape)


def quirks(env: gym.Env, gym_id: str) -> Quirks | None:
    """Return the quirks of all that derive from Gymnasium-Robotics' arms, whatever their ids."""
    return LaggedFrames(env) if hasattr(env.unwrapped, "_mujoco_step") else None


def reach(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Go straight to the goal; (4,) action."""
    return _towards(obs["desired_goal"] - obs["achieved_goal"], 0.0)


def pick_and_place(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Go above the block, down to it, close, and to the goal, each from where gripper and block are; (4,) action."""
    state = obs["observation"]
    to_block, gap = state[6:9], float(state[9:11].sum())
    aligned = np.linalg.norm(to_block[:2]) < 0.008
    if np.linalg.norm(to_block) < 0.012:
        held = gap < GRASPED
        return _towards(obs["desired_goal"] - obs["achieved_goal"] if held else np.zeros(3), -1.0)
    above = np.zeros(3) if aligned else np.array([0.0, 0.0, 0.06])
    return _towards(to_block + above, 1.0)


def _towards(offset: np.ndarray, gripper: float) -> np.ndarray:
    """Return a proportional step (3 metres) and the gripper: 1 opens, -1 closes."""
    return np.clip(np.append(offset / METRES, gripper), -1.0, 1.0).astype(np.float32)


SCRIPTS: dict[str, Script] = {"FetchReach": reach, "FetchPickAndPlace": pick_and_place}


def prepare_script(env: VectorEnv) -> Callable[[], Script]:
    """Return what makes the script of the Fetch task that `env` runs; it sees what the task observes, nothing else."""
    name = str(env.env_args["env_name"])
    for task, script in SCRIPTS.items():
        if name.startswith(task):
            return lambda: script
    raise TaskError(f"the expert 'fetch' knows {' and '.join(SCRIPTS)}, received {name}")


PROVIDER = Provider(
    prefixes=("Fetch", "Hand", "Adroit", "Franka", "PointMaze", "AntMaze"),
    package="gymnasium_robotics",
    extra="robotics",
    quirks=quirks,
    expert=ScriptedExpert(name="fetch", tasks=tuple(SCRIPTS), prepare=prepare_script),
)
