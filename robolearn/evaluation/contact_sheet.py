"""One picture of all tasks: what each looks like at the start, on the way, solved, and through its second camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.episodes.actor import ActorDriver
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.errors import ConfigError, TaskError
from robolearn.tasks import registry

_HEIGHT, _WIDTH, _MARGIN, _TITLE = 288, 384, 6, 34


def write_contact_sheet(names: Sequence[str], path: Path, *, seed: int = 0) -> None:
    """Run each task's expert once and write the sheet as an image file.

    Raises ConfigError on another suffix than .png or .jpg, TaskError where OpenGL is missing or the file cannot be
    written.
    """
    if path.suffix not in (".png", ".jpg"):
        raise ConfigError(f"the contact sheet's name must end in .png or .jpg, received {path}")
    rows = [np.concatenate([_title(name), _row(name, seed)]) for name in names]
    sheet = np.concatenate(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not written:
        raise TaskError(f"cannot write {path}; is the folder writable?")


def _row(name: str, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: four pictures side by side."""
    env = make_task(name)
    if not isinstance(env, TaskEnv):
        raise TaskError(f"{name} is not one of robolearn's own kind of task and has no cameras known to it")
    first, second = env.task.cameras[0], env.task.cameras[-1]
    steps = _episode(env, seed)
    pictures = [_picture(env, steps[i], first) for i in (0, len(steps) // 2, len(steps) - 1)]
    pictures.append(_picture(env, steps[len(steps) // 3], second))
    env.close()
    gap = np.full((_HEIGHT, _MARGIN, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)], axis=1)


def _episode(env: TaskEnv, seed: int) -> list[np.ndarray]:
    """Return the states (1, S) of one episode of the expert."""
    loop = EpisodeLoop(env, ActorDriver(env.expert(), 1), [seed], states=True)
    states = [tick.states for tick in loop if tick.states is not None]
    return [*states, env.get_states()]


def _picture(env: TaskEnv, state: np.ndarray, camera: str) -> np.ndarray:
    env.set_states(state)
    return env.picture(0, camera, (_HEIGHT, _WIDTH))


def _title(name: str) -> np.ndarray:
    bar = np.full((_TITLE, 4 * (_WIDTH + _MARGIN), 3), 255, np.uint8)
    text = f"{name}: {registry.summary(name)}"
    cv2.putText(bar, text, (8, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.62, (40, 44, 52), 1, cv2.LINE_AA)
    return bar
