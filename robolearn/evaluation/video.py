"""H.264 videos of episodes. Everything here needs the extra `video` (PyAV) and, for MuJoCo's pictures, OpenGL."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.interface import VectorEnv
from robolearn.envs.providers.lookup import provider_of
from robolearn.episodes.actor import ActorDriver, as_actor, env_for
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.errors import RobolearnError
from robolearn.policies.policy import Policy
from robolearn.specs import Actor
from robolearn.storage import atomic_file

MAX_FPS = 30.0


@dataclass(frozen=True, kw_only=True)
class Film:
    """A video, or the reason why there is none."""

    path: Path | None
    note: str
    """What it shows, or one sentence that says how to get it."""


def film_task(task: TaskConfig) -> TaskConfig:
    """Return a task with the same episodes, seen by a camera that shows them well, in this process."""
    kwargs = {**provider_of(task.gym_id or "").camera, **task.kwargs}
    return replace(task.in_this_process(), kwargs=kwargs)


def film(policy: Policy | Actor, env: VectorEnv, seeds: Sequence[int], path: str | Path) -> Film:
    """Film one episode per seed, one after the other, in simulated real time.

    Where OpenGL or PyAV is missing, nothing is written and the note says how to get it.
    """
    path = Path(path)
    try:
        _av()
        if isinstance(policy, Policy):
            env = env_for(policy, env)
        frames, outcomes = [], []
        stride = max(1, round(env.control_hz / MAX_FPS))
        for seed, (pictures, success) in zip(seeds, _pictures(as_actor(policy, env), env, seeds, stride)):
            # A second's rest on the last picture shows the outcome and tells episodes apart.
            frames += pictures + pictures[-1:] * max(1, round(env.control_hz / stride))
            outcomes.append(f"seed {seed} {'solved' if success else 'not solved'}")
        write_video(path, frames, fps=env.control_hz / stride)
    except RobolearnError as error:
        return Film(path=None, note=f"No video: {error}")
    return Film(path=path, note=", ".join(outcomes))


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: float) -> None:
    """Write (H, W, 3) uint8 frames as an H.264 mp4 that browsers play; odd sizes lose their last row or column.

    Frames closer together than 1/30 s are thinned out, so that the video keeps real time.
    Raises RobolearnError where PyAV is missing or there is no frame.
    """
    av = _av()
    path = Path(path)
    stride = max(1, round(fps / MAX_FPS))
    with atomic_file(path) as fresh:
        with av.open(str(fresh), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            count = _encode(av, container, itertools.islice(frames, 0, None, stride), fps / stride)
        if not count:
            raise RobolearnError(f"a video needs at least one frame, received none for {path}")


def _encode(av: Any, container: Any, frames: Iterable[np.ndarray], fps: float) -> int:
    """Encode the frames; returns how many there were."""
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
    stream.pix_fmt, stream.options = "yuv420p", {"crf": "23", "preset": "veryfast"}
    count = 0
    for count, picture in enumerate(frames, 1):
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        if count == 1:
            stream.height, stream.width = height, width
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        container.mux(stream.encode(frame))
    if count:
        container.mux(stream.encode(None))
    return count


def _pictures(actor: Actor, env: VectorEnv, seeds: Sequence[int], stride: int) -> list[tuple[list[np.ndarray], bool]]:
    """Return each seed's pictures, one every `stride` steps and the last, and whether the task was solved."""
    loop = EpisodeLoop(env, ActorDriver(actor, env.num_envs), seeds)
    episodes: list[tuple[list[np.ndarray], bool]] = [([], False) for _ in seeds]
    while True:
        for slot in loop.begin():
            episodes[slot.order][0].append(env.render(slot.index))
        if not loop.running:
            return episodes
        tick = loop.advance()
        for slot in tick.slots:
            pictures, _ = episodes[slot.order]
            if slot in tick.ended or slot.steps % stride == 0:
                pictures.append(env.render(slot.index))
            episodes[slot.order] = (pictures, slot.success)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise RobolearnError(f'videos need PyAV ({error}): pip install "robolearn[video]"') from None
    return av
