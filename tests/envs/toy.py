"""Tiny analytic Gymnasium environments whose every number a test can work out by hand.

Ids, also from worker processes (Gymnasium imports the module before the colon):

    gym:tests.envs.toy:toy/PointReach-v0    reach a goal in the plane; bounds are not [-1, 1]
    gym:tests.envs.toy:toy/Counter-v0       observation = (seed, steps so far, sum of actions)
    gym:tests.envs.toy:toy/Walk-v0          discrete actions and observations on a line of 7 cells
    gym:tests.envs.toy:toy/Unbounded-v0     an action space without limits
    gym:tests.envs.toy:toy/Nested-v0        nested dictionary observation with an image
    gym:tests.envs.toy:toy/Faulty-v0        raises, dies or returns NaN at a chosen step
    gym:tests.envs.toy:toy/Team-v0          has only a vector form
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

POINT_REACH = "gym:tests.envs.toy:toy/PointReach-v0"
COUNTER = "gym:tests.envs.toy:toy/Counter-v0"
WALK = "gym:tests.envs.toy:toy/Walk-v0"
UNBOUNDED = "gym:tests.envs.toy:toy/Unbounded-v0"
NESTED = "gym:tests.envs.toy:toy/Nested-v0"
TEAM = "gym:tests.envs.toy:toy/Team-v0"
FAULTY = "gym:tests.envs.toy:toy/Faulty-v0"


class PointReach(gym.Env[np.ndarray, np.ndarray]):
    """A point mass without inertia: p' = p + 0.1 * action; solved within `tolerance` of the goal.

    Observation (p_x, p_y, goal_x, goal_y), float64; action in [-0.5, 0.5] x [0, 2] minus an offset of (0, 1), so that
    the unit action 0 keeps still; reward 1 on success, else 0; terminates only where `terminates` says so.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, tolerance: float = 0.05, terminates: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gym.spaces.Box(np.array([-0.5, 0.0]), np.array([0.5, 2.0]), dtype=np.float64)
        self.tolerance, self.terminates, self.render_mode = tolerance, terminates, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        self.goal = self.np_random.uniform(-1.0, 1.0, 2)
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self.position = self.position + 0.1 * (np.asarray(action) - (0.0, 1.0)) * (2.0, 1.0)
        distance = float(np.linalg.norm(self.position - self.goal))
        success = distance < self.tolerance
        info = {"is_success": success, "closeness": -distance}
        return self._observe(), float(success), success and self.terminates, False, info

    def render(self) -> np.ndarray:
        picture = np.full((64, 64, 3), 255, np.uint8)
        for (x, y), colour in ((self.goal, (0, 160, 0)), (self.position, (200, 0, 0))):
            column, row = (np.clip((np.array([x, -y]) + 1.5) / 3.0, 0, 1) * 59).astype(int)
            picture[row : row + 5, column : column + 5] = colour
        return picture

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.position, self.goal])


def point_reach_expert(state: np.ndarray) -> np.ndarray:
    """The shortest way: at most 0.1 per axis and step; `module:callable` expert of PointReach."""
    move = np.clip((state[2:4] - state[0:2]) / 0.1, -1.0, 1.0)
    return np.array([0.5 * move[0], move[1] + 1.0])


class Counter(gym.Env[np.ndarray, np.ndarray]):
    """Observation (seed % 1000, step, sum of actions), reward = step; terminates after `end` steps where given."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 20}

    def __init__(self, end: int | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.end = end

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.state = np.array([(seed or 0) % 1000, 0.0, 0.0])
        return self.state.astype(np.float32), {}

    def step(self, action: np.ndarray):
        self.state = self.state + np.array([0.0, 1.0, float(action[0])])
        count = self.state[1]
        return self.state.astype(np.float32), count, count == self.end, False, {}


class Walk(gym.Env[int, int]):
    """Seven cells, start in the middle, actions left and right, reward 1 at the right end; both ends terminate."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 1}

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Discrete(7)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.cell = 3
        return self.cell, {}

    def step(self, action: int):
        self.cell += 1 if action else -1
        return self.cell, float(self.cell == 6), self.cell in (0, 6), False, {}


class Unbounded(Counter):
    """Counter with an action space that has no limits."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Nested(gym.Env[dict[str, Any], np.ndarray]):
    """A nested observation of every supported kind, and an action of shape (2, 2)."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 5}

    def __init__(self) -> None:
        box = gym.spaces.Box
        self.observation_space = gym.spaces.Dict(
            {
                "robot": gym.spaces.Dict(
                    {"joints": box(-1, 1, (2, 2), np.float64), "mode": gym.spaces.Discrete(3, start=1)}
                ),
                "camera": box(0, 255, (4, 6, 3), np.uint8),
                "chw": box(0, 255, (1, 5, 7), np.uint8),
                "buttons": gym.spaces.MultiBinary(2),
            }
        )
        self.action_space = gym.spaces.Box(-2.0, 2.0, (2, 2), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.joints = np.zeros((2, 2))
        return self._observe(), {}

    def step(self, action: np.ndarray):
        assert action.shape == (2, 2)
        self.joints = self.joints + action
        return self._observe(), 0.0, False, False, {"solved": 1.0}

    def _observe(self) -> dict[str, Any]:
        level = int(self.joints.sum() * 10) % 256
        return {
            "robot": {"joints": self.joints.copy(), "mode": 2},
            "camera": np.full((4, 6, 3), level, np.uint8),
            "chw": np.arange(35, dtype=np.uint8).reshape(1, 5, 7),
            "buttons": np.array([1, 0], np.int8),
        }


class Faulty(Counter):
    """Counter that misbehaves at step `at` of episodes whose seed is `seed`: fault = raise, exit, nan, reward."""

    def __init__(self, fault: str, at: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.fault, self.at, self.seed = fault, at, seed

    def step(self, action: np.ndarray):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.state[0] == self.seed and self.state[1] == self.at:
            if self.fault == "raise":
                raise RuntimeError("the gripper fell off")
            if self.fault == "exit":
                os._exit(17)
            if self.fault == "nan":
                obs[1] = np.nan
            if self.fault == "reward":
                reward = float("nan")
        return obs, reward, terminated, truncated, info


class Team(gym.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A third party's batched environment, which resets all of its rows or none: row i ends after 2 + i steps.

    Observation (episodes of this row begun so far, step, sum of actions), reward = step.
    """

    def __init__(self, num_envs: int = 1, autoreset: str = "SameStep", tells: bool = True, **_: Any) -> None:
        self.num_envs, self.metadata, self.render_mode, self.tells = num_envs, {"render_fps": 20}, None, tells
        if autoreset:
            self.metadata["autoreset_mode"] = autoreset
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.state, self.episode, self.over = np.zeros((num_envs, 2)), np.zeros(num_envs), np.zeros(num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None):
        self._begin(np.ones(self.num_envs, bool))
        return self._observe(), {}

    def step(self, actions: np.ndarray):
        restart = self.over if self.metadata["autoreset_mode"] == "NextStep" else np.zeros_like(self.over)
        self.state += np.where(restart[:, None], 0.0, np.column_stack((np.ones(self.num_envs), actions[:, 0])))
        self._begin(restart)
        reward, self.over = self.state[:, 0].copy(), self.state[:, 0] == 2 + np.arange(self.num_envs)
        info: dict[str, Any] = {}
        if self.metadata["autoreset_mode"] == "SameStep" and self.over.any():
            info = {"final_obs": self._observe(), "_final_obs": self.over} if self.tells else {}
            self._begin(self.over)
        return self._observe(), reward, np.zeros_like(self.over), self.over, info

    def _begin(self, mask: np.ndarray) -> None:
        self.state[mask] = 0.0
        self.episode[mask] += 1.0

    def _observe(self) -> np.ndarray:
        return np.column_stack((self.episode, self.state)).astype(np.float32)


gym.register("toy/PointReach-v0", f"{__name__}:PointReach", max_episode_steps=50)
gym.register("toy/Counter-v0", f"{__name__}:Counter", max_episode_steps=10)
gym.register("toy/Walk-v0", f"{__name__}:Walk", max_episode_steps=100)
gym.register("toy/Unbounded-v0", f"{__name__}:Unbounded", max_episode_steps=10)
gym.register("toy/Nested-v0", f"{__name__}:Nested", max_episode_steps=10)
gym.register("toy/Team-v0", vector_entry_point=f"{__name__}:Team", max_episode_steps=50)
gym.register("toy/Faulty-v0", f"{__name__}:Faulty", max_episode_steps=10)
