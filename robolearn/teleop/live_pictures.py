"""The pictures that an operator sees, by whichever way the environment can be drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from robolearn.configuration.parts.session import SessionConfig
from robolearn.envs.interface import VectorEnv
from robolearn.errors import RobolearnError
from robolearn.teleop.picture_process import PictureProcess, encode

RENDER_HZ = 10.0
"""Pictures that only the environment itself can draw cost the control loop its time: so many a second, at most."""


class LivePictures:
    """The newest picture of each camera as JPEG; what a page shows and never waits for."""

    note = ""
    """Why there are no pictures, where there are none."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.frames: dict[str, tuple[int, bytes]] = {}
        """(number, JPEG) by camera."""
        self.watched = False
        """Whether anybody looks; `watch` sets it."""

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.frames)

    def watch(self, watched: bool) -> None:
        """Draw from now on, or draw no more: nothing is drawn that nobody looks at."""
        if watched != self.watched:
            self.frames.clear()  # who looks next would see the past at first; one that was under way comes late
        self.watched = watched

    def show(self, env: VectorEnv) -> None:
        """Take the present state of environment 0."""

    def rotation(self) -> np.ndarray:
        """Return (3, 3), from the frame of the camera shown (x into the picture, y left, z up) to the world's."""
        return np.eye(3)

    def project(self, env: VectorEnv, points: np.ndarray) -> list[list[list[float]]]:
        """Return where (P, 3) points of the world lie in each camera's picture: [x, y] from its upper left corner, in
        shares of width and height; a point behind a camera is left out. Empty where the cameras' places are unknown."""
        return []

    def close(self) -> None:
        """Free what draws."""


class DrawnPictures(LivePictures):
    """Drawn by MuJoCo in another process."""

    def __init__(self, env: VectorEnv, cameras: tuple[str, ...], size: tuple[int, int]) -> None:
        super().__init__()
        world = env.world(0)
        assert world is not None
        self._process = PictureProcess(world[0], cameras, size)
        self.changed, self.frames = self._process.changed, self._process.frames
        self._camera = world[0].camera(cameras[0]).id
        self._axes, self._aspect = np.eye(3), size[1] / size[0]

    @property
    def cameras(self) -> tuple[str, ...]:
        return self._process.cameras

    def show(self, env: VectorEnv) -> None:
        world = env.world(0)
        assert world is not None
        if self.watched:
            self._process.show(*world)
        right, up, back = world[1].cam_xmat[self._camera].reshape(3, 3).T
        self._axes = np.stack([-back, -right, up], axis=1)

    def rotation(self) -> np.ndarray:
        return self._axes

    def project(self, env: VectorEnv, points: np.ndarray) -> list[list[list[float]]]:
        world = env.world(0)
        assert world is not None
        model, data = world
        places = []
        for name in self.cameras:
            camera = model.camera(name).id
            right, up, back = ((points - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)).T
            right, up, depth = right[back < 0.0], up[back < 0.0], -back[back < 0.0]
            half = np.tan(0.5 * np.radians(model.cam_fovy[camera])) * depth  # metres, of the picture's height there
            shares = 0.5 + 0.5 * np.stack([right / (half * self._aspect), -up / half], axis=1)
            places.append(shares.round(4).tolist())
        return places

    def close(self) -> None:
        self._process.close()


class RenderedPictures(LivePictures):
    """Rendered by the environment itself, now and then, and packed in a thread."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__()
        env.reset([0])  # most environments show nothing before
        env.render(0)  # says at once what is missing
        self._due, self._picture, self._closed = 0.0, None, False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._pack, name="pictures", daemon=True)
        self._thread.start()

    @property
    def cameras(self) -> tuple[str, ...]:
        return ("view",)

    def show(self, env: VectorEnv) -> None:
        now = time.monotonic()
        if self.watched and now >= self._due:
            self._due = now + 1.0 / RENDER_HZ
            self._picture: Any = env.render(0)
            self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _pack(self) -> None:
        number = 0
        while self._wake.wait() and not self._closed:
            self._wake.clear()
            number += 1
            jpeg = encode(self._picture)
            with self.changed:
                self.frames["view"] = (number, jpeg)
                self.changed.notify_all()


@contextmanager
def make_pictures(env: VectorEnv, config: SessionConfig) -> Iterator[LivePictures]:
    """Yield what draws the cameras of `config`; where OpenGL is missing the session goes on and the page says so."""
    pictures = _make(env, config)
    try:
        yield pictures
    finally:
        pictures.close()


def _make(env: VectorEnv, config: SessionConfig) -> LivePictures:
    try:
        cameras = config.cameras or _own_cameras(env)
        if cameras:
            return DrawnPictures(env, cameras, config.image_size)
        return RenderedPictures(env)
    except RobolearnError as error:
        if config.cameras:
            raise
        none = LivePictures()
        none.note = str(error)
        return none


def _own_cameras(env: VectorEnv) -> tuple[str, ...]:
    """The task's cameras, or the first two of its model."""
    task: Any = getattr(env, "task", None)
    named = getattr(task, "cameras", ())
    if named:
        return tuple(named)
    world = env.world(0)
    known = [] if world is None else [world[0].camera(i).name for i in range(world[0].ncam)]
    return tuple(name for name in known if name)[:2]
