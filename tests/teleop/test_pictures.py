"""Pictures drawn beside a control loop: what they show, that the loop never waits, and that no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import mujoco
import numpy as np
import pytest

from robolearn.configuration.parts.session import SessionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.sim.pictures import Pictures
from robolearn.teleop.live_pictures import LivePictures, make_pictures
from robolearn.teleop.plan_path import intended_path
from tests.envs.toy import COUNTER, POINT_REACH

ROOT = Path(__file__).parents[2]


def wait_for(pictures: LivePictures, camera: str, after: int = 0, seconds: float = 60.0) -> tuple[int, bytes]:
    deadline = time.monotonic() + seconds
    with pictures.changed:
        while pictures.frames.get(camera, (0, b""))[0] <= after:
            assert pictures.changed.wait(deadline - time.monotonic()), "no picture came"
        return pictures.frames[camera]


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_the_process_draws_what_mujoco_draws_here() -> None:
    with make("Lift", 1) as env, make_pictures(env, SessionConfig()) as pictures:
        pictures.watch(True)
        env.reset([3])
        world = env.world(0)
        assert world is not None
        assert pictures.cameras == ("front", "wrist")
        pictures.show(env)
        ours = Pictures(world[0], 240, 320, quick=True)
        for camera in pictures.cameras:
            shown = decoded(wait_for(pictures, camera)[1])
            assert shown.shape == (240, 320, 3)
            difference = np.abs(shown.astype(int) - ours.draw(*world, camera).astype(int))
            assert difference.mean() < 4.0, "only what JPEG takes away"


def test_a_point_of_the_world_is_found_where_it_is_drawn() -> None:
    """The red cube's middle lies in the middle of the red in each picture, and the plan begins at the tool."""
    with make("Lift", 1) as env, make_pictures(env, SessionConfig()) as pictures:
        env.reset([3])
        world = env.world(0)
        assert world is not None
        cube = world[1].body("cube").xpos
        plan = np.zeros((4, env.action_spec.size))
        plan[:, 0], plan[1:3, 2] = 1.0, -0.5
        path = intended_path(env, plan)
        np.testing.assert_allclose(path[0], world[1].site("tcp").xpos)
        np.testing.assert_allclose(path[-1] - path[0], [4 * 0.015, 0.0, -0.015], atol=1e-6)
        assert intended_path(env, plan[:0]).shape == (0, 3)
        drawn = Pictures(world[0], 240, 320).draw(*world, "front").astype(int)
        y, x = np.nonzero((drawn[..., 0] > 1.8 * drawn[..., 1]) & (drawn[..., 0] > 1.8 * drawn[..., 2]))
        ((found,), *_) = pictures.project(env, cube[None])
        np.testing.assert_allclose(found, [(x.mean() + 0.5) / 320, (y.mean() + 0.5) / 240], atol=0.01)


def test_the_control_loop_never_waits_for_a_picture() -> None:
    with make("Lift", 1) as env, make_pictures(env, SessionConfig()) as pictures:
        pictures.watch(True)
        env.reset([3])
        process = pictures._process._process.pid  # type: ignore[attr-defined]
        pictures.show(env)
        wait_for(pictures, "wrist")
        os.kill(process, signal.SIGSTOP)  # the slowest of all processes
        try:
            took = []
            for seed in range(400):
                env.reset([seed])
                began = time.process_time()
                pictures.show(env)
                took.append(time.process_time() - began)
        finally:
            os.kill(process, signal.SIGCONT)
        assert np.median(took) < 0.002
        number = pictures.frames["wrist"][0]
        env.reset([4])
        pictures.show(env)
        wait_for(pictures, "wrist", number)


@pytest.mark.parametrize("task", ["Lift", POINT_REACH])
def test_nothing_is_drawn_that_nobody_looks_at(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {} if task == "Lift" else {"worker_kind": "sync", "kwargs": {"render_mode": "rgb_array"}}
    with make(TaskConfig(id=task, **own), 1) as env, make_pictures(env, SessionConfig()) as pictures:
        env.reset([3])
        artist, name = (env, "render") if task == POINT_REACH else (pictures._process, "show")  # type: ignore[attr-defined]
        draw, drawn = getattr(artist, name), []
        monkeypatch.setattr(artist, name, lambda *what: (drawn.append(1), draw(*what))[1])
        pictures.show(env)
        assert not drawn
        pictures.watch(True)
        pictures.show(env)
        assert drawn
        wait_for(pictures, pictures.cameras[0])
        pictures.watch(False)
        assert not pictures.frames
        drawn.clear()
        time.sleep(0.15)  # so long that another one would be due
        pictures.show(env)
        assert not drawn
        pictures.frames["late"] = (7, b"")
        pictures.watch(True)
        assert not pictures.frames


def test_the_rotation_is_that_of_the_camera_shown() -> None:
    with make("Lift", 1) as env, make_pictures(env, SessionConfig(cameras=("front",))) as pictures:
        env.reset([3])
        pictures.show(env)
        world = env.world(0)
        assert world is not None
        model, data = world
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "front")
        forward = pictures.rotation() @ np.array([1.0, 0.0, 0.0])
        # What lies straight ahead of a camera is drawn in the middle of its picture: MuJoCo's camera looks along -z.
        np.testing.assert_allclose(forward, -data.cam_xmat[camera].reshape(3, 3)[:, 2], atol=1e-12)
        left, up = pictures.rotation()[:, 1], pictures.rotation()[:, 2]
        np.testing.assert_allclose(np.cross(forward, left), up, atol=1e-12)
        assert up[2] > 0


def test_an_unknown_camera_is_refused_with_the_list() -> None:
    with make("Lift", 1) as env:
        wanted = SessionConfig(cameras=("rear",))
        with pytest.raises(TaskError, match=r"no camera 'rear'; it has .*front"), make_pictures(env, wanted):
            pass


def test_what_only_the_environment_can_draw_is_rendered_by_it() -> None:
    task = TaskConfig(id=POINT_REACH, worker_kind="sync", kwargs={"render_mode": "rgb_array"})
    with make(task, 1) as env, make_pictures(env, SessionConfig()) as pictures:
        pictures.watch(True)
        env.reset([0])
        pictures.show(env)
        picture = decoded(wait_for(pictures, "view")[1])
        assert picture.shape == (64, 64, 3)


def test_an_environment_without_pictures_says_why() -> None:
    task = TaskConfig(id=COUNTER, worker_kind="sync", max_steps=5)
    with make(task, 1) as env, make_pictures(env, SessionConfig()) as pictures:
        env.reset([0])
        pictures.show(env)
        assert pictures.cameras == ()
        assert pictures.note


def test_a_killed_recorder_leaves_no_process_that_draws() -> None:
    script = """
import time
from robolearn.configuration.parts.session import SessionConfig
from robolearn.envs.make import make
from robolearn.teleop.live_pictures import make_pictures
with make("Lift", 1) as env, make_pictures(env, SessionConfig()) as pictures:
    env.reset([0])
    pictures.watch(True)
    pictures.show(env)
    while len(pictures.frames) < len(pictures.cameras):  # from then on the process has nothing to do
        time.sleep(0.05)
    print(pictures._process._process.pid, flush=True)
    time.sleep(600)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20.0
    while is_alive(child):
        assert time.monotonic() < deadline, "the process that draws outlived its parent"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
