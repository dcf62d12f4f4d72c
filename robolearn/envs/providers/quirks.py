"""What lies outside Gymnasium's interface: full physics states, and what single packages need beside a seed."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym
import numpy as np


class Quirks:
    """What a package needs beyond Gymnasium's interface; this base needs nothing."""

    size = 0
    """Numbers that the package keeps between steps outside of its physics."""

    def __init__(self, env: gym.Env) -> None:
        self._env = env

    def before_reset(self, seed: int) -> None: ...

    def observed(self, obs: Any) -> None: ...

    def picture(self, rendered: np.ndarray) -> np.ndarray:
        """What the environment rendered, the right way up."""
        return rendered

    def get(self) -> np.ndarray:
        return np.zeros(0)

    def set(self, values: np.ndarray, elapsed: int) -> None:
        wrapper: Any = self._env
        while isinstance(wrapper, gym.Wrapper):
            if isinstance(wrapper, gym.wrappers.TimeLimit):
                wrapper._elapsed_steps = elapsed
            wrapper = wrapper.env


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


class Physics:
    """The full state of an environment's MuJoCo data: `mjSTATE_INTEGRATION` continues bit for bit."""

    def __init__(self, model: Any, data: Any) -> None:
        mujoco: Any = importlib.import_module("mujoco")  # loaded already by the environment that made `model`
        self._mujoco, self._model, self._data = mujoco, model, data
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION
        self.size = int(mujoco.mj_stateSize(model, self._kind))

    @classmethod
    def of(cls, unwrapped: Any) -> Physics | None:
        """None where the environment is not one of MuJoCo's."""
        model, data = getattr(unwrapped, "model", None), getattr(unwrapped, "data", None)
        if type(model).__name__ != "MjModel" or type(data).__name__ != "MjData":
            return None
        return cls(model, data)

    def get(self) -> np.ndarray:
        state = np.empty(self.size)
        self._mujoco.mj_getState(self._model, self._data, state, self._kind)
        return state

    def set(self, state: np.ndarray) -> None:
        self._mujoco.mj_setState(self._model, self._data, state, self._kind)
        self._mujoco.mj_forward(self._model, self._data)  # positions for the observation; it may touch the warm start
        self._mujoco.mj_setState(self._model, self._data, state, self._kind)
