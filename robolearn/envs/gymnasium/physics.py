"""Full physics states of MuJoCo environments, which Gymnasium's interface does not give. Free of torch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


class Physics:
    """The full state of an environment's MuJoCo data: `mjSTATE_INTEGRATION` continues bit for bit."""

    def __init__(self, model: Any, data: Any) -> None:
        mujoco: Any = importlib.import_module("mujoco")  # loaded already by the environment that made `model`
        self._mujoco, self._model, self._data = mujoco, model, data
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION
        self.size = int(mujoco.mj_stateSize(model, self._kind))

    @classmethod
    def of(cls, unwrapped: Any) -> Physics | None:
        """Return the physics of an unwrapped environment, None where it is not one of MuJoCo's."""
        model, data = getattr(unwrapped, "model", None), getattr(unwrapped, "data", None)
        if type(model).__name__ != "MjModel" or type(data).__name__ != "MjData":
            return None
        return cls(model, data)

    def get(self) -> np.ndarray:
        """Return the state, (size,) float64."""
        state = np.empty(self.size)
        self._mujoco.mj_getState(self._model, self._data, state, self._kind)
        return state

    def set(self, state: np.ndarray) -> None:
        """Restore a (size,) state."""
        self._mujoco.mj_setState(self._model, self._data, state, self._kind)
        self._mujoco.mj_forward(self._model, self._data)  # positions for the observation; it may touch the warm start
        self._mujoco.mj_setState(self._model, self._data, state, self._kind)
