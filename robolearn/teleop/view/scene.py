"""The recorded states as a 3-D scene, drawn here by MuJoCo and sent as pictures.

The model comes from the task that is asked for, else from the file (`models/<hash>`), else from the task that the file
names. All drawing happens in one thread, which owns the OpenGL context.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.errors import DatasetError, RobolearnError
from robolearn.sim import rendering
from robolearn.teleop.view.library import Library, encode
from robolearn.teleop.view.point_of_view import View

if TYPE_CHECKING:
    from robolearn.teleop.view.stages import Stage


class Scene:
    """Draws states of a library's episodes. Call from any thread."""

    def __init__(self, library: Library, task: TaskConfig | None = None) -> None:
        self._library, self._task = library, task
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scene")
        self._stages: dict[str, Stage | str] = {}

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

    def _stage(self, index: int) -> Stage | str:
        """Return what draws an episode, or why nothing can."""
        if "states" not in self._library.dataset.array_names(index):
            return "The file holds no physics states for this episode."
        if rendering.find_backend() is None:
            return f"This machine cannot draw: {rendering.ADVICE}."
        model = self._library.dataset.summary(index)[0].model
        if model not in self._stages:
            try:
                # Only now: torch and MuJoCo take seconds to import, and the table of episodes waits for neither.
                from robolearn.teleop.view.stages import build_stage

                self._stages[model] = build_stage(
                    self._library.dataset, model, self._states(index).shape[1], self._task
                )
            except (RobolearnError, ValueError, OSError, ImportError) as error:
                self._stages[model] = f"The scene cannot be built: {error}"
        return self._stages[model]
