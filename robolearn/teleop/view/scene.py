"""The recorded states as a 3-D scene, drawn here by MuJoCo and sent as pictures.

The model comes from the file (`models/<hash>`), else from the task that the file names. All drawing happens in one
thread, which owns the OpenGL context.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.envs.task_env import TaskEnv
from robolearn.errors import DatasetError, RobolearnError
from robolearn.sim import rendering
from robolearn.sim.pictures import Pictures
from robolearn.teleop.view.library import Library, encode

HEIGHT, WIDTH = 360, 480
FREE = "free"
ZOOM = (0.2, 5.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """A point of view: a camera of the model by name, or a free one around its centre."""

    camera: str = FREE
    azimuth: float = 140.0
    elevation: float = -25.0
    zoom: float = 1.0


class Scene:
    """Draws states of a library's episodes. Call from any thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scene")
        self._stages: dict[str, _Stage | str] = {}

    def describe(self, index: int) -> dict[str, Any]:
        """Return whether the scene can be shown (`reason` says why not), its cameras, and whether it can be turned."""
        return self._thread.submit(self._describe, index).result()

    def picture(self, index: int, step: int, view: View) -> bytes:
        """Return the scene before the action of a step as JPEG. Raises DatasetError where it cannot be shown."""
        return self._thread.submit(self._draw, index, step, view).result()

    def close(self) -> None:
        def end() -> None:
            for stage in self._stages.values():
                if not isinstance(stage, str):
                    stage.close()

        self._thread.submit(end).result()
        self._thread.shutdown()

    def _describe(self, index: int) -> dict[str, Any]:
        stage = self._stage(index)
        if isinstance(stage, str):
            return {"available": False, "reason": stage, "cameras": [], "turns": False}
        return {"available": True, "reason": "", "cameras": stage.cameras, "turns": stage.turns}

    def _draw(self, index: int, step: int, view: View) -> bytes:
        stage = self._stage(index)
        if isinstance(stage, str):
            raise DatasetError(stage)
        states = self._states(index)
        if not 0 <= step < len(states):
            raise DatasetError(f"{self._library.names[index]} has steps 0 to {len(states) - 1}, asked for {step}")
        return encode(stage.draw(states[step], view, self._library.dataset.summary(index)[0].seed))

    def _states(self, index: int) -> np.ndarray:
        """(T, S) of an episode, the last one's kept."""
        if getattr(self, "_kept", (-1,))[0] != index:
            self._kept = (index, self._library.dataset.arrays(index, ["states"])["states"])
        return self._kept[1]

    def _stage(self, index: int) -> _Stage | str:
        """Return what draws an episode, or why nothing can."""
        if "states" not in self._library.dataset.array_names(index):
            return "The file holds no physics states for this episode."
        if rendering.find_backend() is None:
            return f"This machine cannot draw: {rendering.ADVICE}."
        model = self._library.dataset.summary(index)[0].model
        if model not in self._stages:
            try:
                self._stages[model] = self._build(model, self._states(index).shape[1])
            except (RobolearnError, ValueError, OSError, ImportError) as error:
                self._stages[model] = f"The scene cannot be built: {error}"
        return self._stages[model]

    def _build(self, model: str, size: int) -> _Stage:
        dataset = self._library.dataset
        if model:
            return _ModelStage(mujoco.MjModel.from_xml_string(dataset.model(model).decode("utf-8")), size)
        env = make(TaskConfig.from_env_args(dataset.env_args), 1)
        if isinstance(env, TaskEnv):
            return _ModelStage(env.task.model, size)
        return _EnvStage(env)


class _Stage:
    """Draws one state, in the scene's thread."""

    cameras: list[str]
    turns: bool

    def draw(self, state: np.ndarray, view: View, seed: int) -> np.ndarray:
        """(S,) -> (HEIGHT, WIDTH, 3) uint8."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _ModelStage(_Stage):
    """A model and a camera that can be turned around it."""

    turns = True

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION
        self._full = mujoco.mj_stateSize(model, self._kind)
        self._flat = size == 1 + model.nq + model.nv  # robosuite's: time, qpos, qvel
        if not self._flat and size < self._full:
            raise DatasetError(f"its states have {size} numbers, the model's {self._full}")
        self._pictures = Pictures(model, HEIGHT, WIDTH)
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


class _EnvStage(_Stage):
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
