"""The gizmo, dragged by a client that speaks viser's protocol on a real socket, as its page does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("viser")
pytest.importorskip("mjviser")

import msgspec
import viser
from viser import _messages as messages
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from robolearn.configuration.parts.session import SessionConfig
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.record import open_writer
from robolearn.errors import DeviceError
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import EpisodicDevice, SeeingDevice
from robolearn.teleop.devices.gizmo import DEAD_ZONE_M, SESSION_BUTTONS, Gizmo, twist_towards
from robolearn.teleop.devices.known_devices import make_device
from robolearn.teleop.session import Session

CAMERA = messages.ViewerCameraMessage(
    wxyz=(1, 0, 0, 0),
    position=(1, 1, 1),
    fov=1.0,
    near=0.1,
    far=10.0,
    image_height=100,
    image_width=100,
    look_at=(0, 0, 0),
    up_direction=(0, 0, 1),
)
"""A page sends this first; from then on viser counts it as connected."""


class Page:
    """What a browser's tab sends."""

    def __init__(self, line: Any, gizmo: Gizmo) -> None:
        self.line, self.gizmo = line, gizmo
        threading.Thread(target=self._swallow, daemon=True).start()
        clients = len(gizmo._server.get_clients())
        self.send(CAMERA)
        until(lambda: len(gizmo._server.get_clients()) > clients)

    def _swallow(self) -> None:
        try:
            for _ in self.line:
                pass
        except ConnectionClosed:
            pass

    def send(self, message: messages.Message) -> None:
        self.line.send(msgspec.msgpack.encode({"type": type(message).__name__} | vars(message)))

    def grab(self) -> None:
        self.send(messages.TransformControlsDragStartMessage("/gizmo"))

    def move(self, position: np.ndarray, wxyz: np.ndarray | None = None) -> None:
        turn = self.gizmo._handle.wxyz if wxyz is None else wxyz
        x, y, z = map(float, position)
        w, i, j, k = map(float, turn)
        self.send(messages.TransformControlsUpdateMessage("/gizmo", (w, i, j, k), (x, y, z)))

    def drop(self) -> None:
        self.send(messages.TransformControlsDragEndMessage("/gizmo"))

    def drag(self, position: np.ndarray, wxyz: np.ndarray | None = None) -> None:
        self.grab()
        self.move(position, wxyz)
        self.drop()
        until(lambda: self.gizmo._target is not None and np.allclose(self.gizmo._target[0], position))

    def click(self, label: str) -> None:
        handles = self.gizmo._server.gui._gui_input_handle_from_uuid.values()
        (uuid,) = (h._impl.uuid for h in handles if h.label == label)
        self.send(messages.GuiUpdateMessage(uuid, {"value": True}))


def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.005)


@contextmanager
def page_of(gizmo: Gizmo) -> Iterator[Page]:
    address = gizmo.address.replace("http", "ws")
    with connect(address, subprotocols=[f"viser-v{viser.__version__}"], max_size=None) as line:  # pyright: ignore[reportArgumentType]
        yield Page(line, gizmo)


@contextmanager
def gizmo_in(task: str) -> Iterator[tuple[VectorEnv, Gizmo]]:
    with make(task, 1) as env:
        env.reset([0])
        gizmo = make_device("gizmo", env=env, port=8793)
        assert isinstance(gizmo, Gizmo)
        gizmo.connect()
        try:
            gizmo.reset(0)
            yield env, gizmo
        finally:
            gizmo.close()


def tool(env: VectorEnv, site: str = "tcp") -> np.ndarray:
    world = env.world(0)
    assert world is not None
    return world[1].site(site).xpos.copy()


def follow(env: VectorEnv, gizmo: Gizmo, steps: int) -> None:
    mapper = CommandMapper(env.action_spec, str(env.env_args["env_name"]))
    for _ in range(steps):
        env.step(torch.from_numpy(mapper(gizmo.read(), -1.0))[None])


@pytest.mark.parametrize(
    ("task", "site", "goal"),
    [("Reach", "tcp", (0.50, 0.15, 0.12)), ("Reach", "tcp", (0.36, -0.2, 0.3)), ("PushT", "pusher", (0.2, -0.25, 0.0))],
)
def test_the_tool_arrives_at_the_handle(task: str, site: str, goal: tuple[float, ...]) -> None:
    with gizmo_in(task) as (env, gizmo), page_of(gizmo) as page:
        place = np.array(goal)
        if task == "PushT":
            place[2] = tool(env, site)[2]
        assert np.linalg.norm(tool(env, site) - place) > 0.05
        page.drag(place)
        follow(env, gizmo, 60)
        assert np.linalg.norm(tool(env, site) - place) < 0.01
        before = tool(env, site)
        follow(env, gizmo, 10)
        assert np.linalg.norm(tool(env, site) - before) < 0.002, "it stays there"
        assert not gizmo.read().twist.any(), "in the dead zone"


def test_the_tool_turns_with_the_handle() -> None:
    with gizmo_in("Lift") as (env, gizmo), page_of(gizmo) as page:
        place, before = tool(env), gizmo._handle.wxyz.copy()
        half = np.pi / 8  # a turn of 45 degrees to the left: q = (cos half, 0, 0, sin half) before
        w, x, y, z = before
        turned = np.array([np.cos(half) * w - np.sin(half) * z, np.cos(half) * x - np.sin(half) * y,
                           np.cos(half) * y + np.sin(half) * x, np.cos(half) * z + np.sin(half) * w])  # fmt: skip
        page.drag(place, turned)
        twist = gizmo.read().twist
        assert twist[5] > 0.9
        assert not twist[:5].any(), "the task has no roll and pitch"
        follow(env, gizmo, 60)
        world = env.world(0)
        assert world is not None
        axis = world[1].site("tcp").xmat.reshape(3, 3)[:, 0]
        w, x, y, z = turned
        expected = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z)])
        assert np.arccos(np.clip(axis[:2] @ expected, -1, 1)) < 0.06


def test_it_holds_still_until_somebody_drags_and_again_when_they_are_gone() -> None:
    with gizmo_in("Reach") as (env, gizmo):
        assert not gizmo.read().engaged
        with page_of(gizmo) as page:
            assert not gizmo.read().engaged, "connected, but nothing was dragged"
            page.drag(tool(env) + np.array([0, 0, 0.1]))
            assert gizmo.read().engaged
            assert gizmo.read().twist[2] == pytest.approx(1.0)
        until(lambda: not gizmo._server.get_clients())
        assert not gizmo.read().engaged
        gizmo.read()
        np.testing.assert_allclose(gizmo._handle.position, tool(env), atol=1e-6)
        with page_of(gizmo):
            assert not gizmo.read().engaged, "who comes back drags anew"


def test_a_watcher_who_leaves_stops_nobody() -> None:
    with gizmo_in("Reach") as (env, gizmo), page_of(gizmo) as page:
        with page_of(gizmo):
            page.drag(tool(env) + np.array([0, 0, 0.1]))
        until(lambda: len(gizmo._server.get_clients()) == 1)
        assert gizmo.read().engaged


def test_a_new_episode_puts_the_handle_back_even_under_a_drag() -> None:
    with gizmo_in("Lift") as (env, gizmo), page_of(gizmo) as page:
        page.grab()
        page.move(tool(env) + np.array([0.1, 0, 0]))
        page.click("gripper closed")
        until(lambda: gizmo._target is not None and gizmo.read().gripper == 1.0)
        env.reset([1])
        gizmo.reset(1)
        np.testing.assert_allclose(gizmo._handle.position, tool(env), atol=1e-6)
        page.move(tool(env) + np.array([0.2, 0, 0]))  # the same drag goes on
        page.click("start")
        until(lambda: gizmo._presses)
        command = gizmo.read()
        assert (command.engaged, command.buttons) == (False, ("start",))
        page.drag(tool(env) + np.array([0.1, 0, 0]))
        assert gizmo.read().engaged
        assert gizmo.read().gripper == -1.0


def test_every_button_of_the_panel_arrives_once_and_in_order() -> None:
    with gizmo_in("Reach") as (_, gizmo), page_of(gizmo) as page:
        for button in SESSION_BUTTONS:
            page.click(button)
        until(lambda: len(gizmo._presses) == len(SESSION_BUTTONS))
        assert gizmo.read().buttons == SESSION_BUTTONS
        assert gizmo.read().buttons == ()


def test_a_session_waits_for_the_person_and_records_what_they_drag(tmp_path) -> None:
    with gizmo_in("Reach") as (env, gizmo), page_of(gizmo) as page, open_writer(tmp_path / "d.hdf5", env) as writer:
        config = SessionConfig(start="motion")
        session = Session(env, gizmo, writer, task="Reach", config=config, target=1, sleep=lambda _: None)
        for _ in range(5):
            session.tick()
        assert session.state == "ready", "a person's device starts nothing by itself"
        page.drag(session.obs["goal"][0, :3].numpy())
        for _ in range(env.max_steps):
            session.tick()
            if session.state == "review":
                break
        assert session.outcome is True
        session.press("start")
        assert session.kept == 1


def test_the_twist() -> None:
    still = np.array([1.0, 0, 0, 0])
    place = np.array([0.4, 0.0, 0.2])
    assert not twist_towards(place + np.array([0, DEAD_ZONE_M * 0.9, 0]), still, place, still).any()
    near = twist_towards(place + np.array([0.01, 0, 0]), still, place, still)
    assert twist_towards(place + np.array([0.02, 0, 0]), still, place, still) == pytest.approx(2 * near)
    far = twist_towards(place + np.array([0.2, -0.1, 0]), still, place, still)
    np.testing.assert_allclose(far, [1, -0.5, 0, 0, 0, 0])
    minus = -np.array([np.cos(0.05), 0, 0, np.sin(0.05)])  # a turn of 0.1, by the other quaternion that means it
    np.testing.assert_allclose(twist_towards(place, minus, place, still), [0, 0, 0, 0, 0, 0.1 / 0.5], atol=1e-9)


def test_it_is_a_persons_device_and_says_what_it_cannot_do() -> None:
    with gizmo_in("Reach") as (env, gizmo):
        assert isinstance(gizmo, EpisodicDevice)
        assert not isinstance(gizmo, SeeingDevice)
        with pytest.raises(
            DeviceError, match=r"does not know the tool of Reach: none of its sites is nose.*it has tcp"
        ):
            make_device("gizmo", env=env, site="nose")
        with pytest.raises(DeviceError, match=r"device gizmo: .*'host'; its options: port, site"):
            make_device("gizmo", env=env, host="0.0.0.0")
    with pytest.raises(DeviceError, match="the device gizmo needs the environment"):
        make_device("gizmo")
