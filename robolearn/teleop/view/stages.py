"""What draws recorded states: the model in the file, the task that the file names, or somebody else's environment."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.envs.task_env import TaskEnv
from robolearn.errors import DatasetError
from robolearn.sim.pictures import Pictures
from robolearn.teleop.view.point_of_view import ZOOM, View

HEIGHT, WIDTH = 360, 480


def build_stage(dataset: Dataset, model: str, size: int, task: TaskConfig | None = None) -> Stage:
    """Return what draws the episodes of a dataset that were recorded in `model`, a name of the file's, or empty.

    Args:
        size: S of their states.
        task: whose scene it is to be; None takes the model, else the task that the file names.

    Raises RobolearnError, ValueError, OSError or ImportError where nothing can.
    """
    if model and task is None:
        return ModelStage(mujoco.MjModel.from_xml_string(dataset.model(model).decode("utf-8")), size)
    env = make(task or TaskConfig.from_env_args(dataset.env_args), 1)
    if isinstance(env, TaskEnv):
        return ModelStage(env.task.model, size)
    return EnvStage(env)


class Stage:
    """Draws one state, in the scene's thread."""

    cameras: list[str]
    turns: bool

    def draw(self, state: np.ndarray, view: View, seed: int) -> np.ndarray:
        """(S,) -> (HEIGHT, WIDTH, 3) uint8."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class ModelStage(Stage):
    """A model and a camera that can be turned around it."""

    turns = True

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION
        self._full = mujoco.mj_stateSize(model, self._kind)
        self._flat = size == 1 + model.nq + model.nv  # robosuite's: time, qpos, qvel
        if not self._flat and size < self._full:
            raise DatasetError(f"its states have {size} numbers, the model's {self._full}")
        self._pictures = Pictures(model, HEIGHT, WIDTH, quick=True)
        self.cameras = [model.camera(i).name or str(i) for i in range(model.ncam)]

    def draw(self, state: np.ndarray, view: View, seed: int) -> np.ndarray:
        if self._flat:
            nq = self._model.nq
            self._data.time, self._data.qpos[:], self._data.qvel[:] = state[0], state[1 : 1 + nq], state[1 + nq :]
        else:
            mujoco.mj_setState(self._model, self._data, np.ascontiguousarray(state[: self._full]), self._kind)
        mujoco.mj_forward(self._model, self._data)
        return self._pictures.draw(self._model, self._data, self._camera(view))

    def _camera(self, view: View) -> Any:
        if view.camera in self.cameras:
            return self.cameras.index(view.camera)
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self._model, camera)
        camera.azimuth, camera.elevation = view.azimuth % 360.0, float(np.clip(view.elevation, -89.0, 89.0))
        camera.distance *= float(np.clip(view.zoom, *ZOOM))
        return camera

    def close(self) -> None:
        self._pictures.close()


class EnvStage(Stage):
    """Somebody else's environment, from its own camera."""

    turns = False

    def __init__(self, env: VectorEnv) -> None:
        self.cameras = []
        self._env, self._seed = env, None
        if env.get_states() is None:
            raise DatasetError("the environment cannot be put into a recorded state")

    def draw(self, state: np.ndarray, view: View, seed: int) -> np.ndarray:
        if seed != self._seed:  # goals and scenes that are drawn at reset are no part of a state
            self._env.reset([seed])
            self._seed = seed
        self._env.set_states(state[None], torch.ones(1, dtype=torch.bool))
        return self._env.render(0)

    def close(self) -> None:
        self._env.close()
