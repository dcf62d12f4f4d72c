"""The page of a session: status down, inputs up, pictures beside them, and who may drive.

Three threads meet here. The control loop calls `publish`, which costs it microseconds: it takes a status of the session
at most 30 times a second and obeys what pages asked for. The web server's thread talks to the pages. A third one
waits for pictures. What a page sends over `/control`, all parts optional:

    {"input": {...},                  the message of `devices/browser.py`, of which the driver's counts
     "seen": 17,                      number of the newest status that arrived; gives the round trip
     "ask": true, "give": true,       ask for the driver's seat; the driver's answer to it
     "notes": "...", "operator": ""}  for the episodes to come

No line ever queues: a page that has not said that it saw the last statuses or pictures gets no new ones, and then the
newest.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from robolearn.configuration.parts.session import SessionConfig
from robolearn.configuration.teleop import KEYS
from robolearn.teleop.devices.browser import BrowserDevice
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.messages import MANY, Malformed, button_names
from robolearn.teleop.live_pictures import LivePictures
from robolearn.teleop.seat import Seat
from robolearn.teleop.session import Session, State
from robolearn.teleop.web.server import WebServer, announce

PAGE = Path(__file__).parent / "session_page"
STATUS_HZ = 30.0
RATE = 250.0
"""Messages a second that a page may send, and how many of them at once; others are counted and left out."""
AHEAD = 3
"""Statuses, and pictures of each camera, that may be on their way to a page."""
DEAD_S = 0.5
"""A page acknowledges every status: one that is silent for so long has lost its line."""
LONGEST = {"notes": 2000, "operator": 100}
"""Characters."""
GOODBYE_S = 1.0
FRAME_HEAD = struct.Struct("<BI")
"""Camera and number of the picture that follows as JPEG."""
_STIRRING = 0.2
"""Travel of a stick from which its driver counts as busy."""
_FIELDS = frozenset(("input", "seen", "ask", "give", *LONGEST))


@dataclass(eq=False)
class _Viewer:
    """One open page."""

    socket: WebSocket
    page: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0
    seen: int = 0
    newest: int = 0
    """Number of the status that was sent last."""
    sent_at: dict[int, float] = field(default_factory=dict)
    rtt_ms: float | None = None
    room: float = RATE
    heard_at: float = field(default_factory=time.monotonic)

    def may_send(self) -> bool:
        """Take one from a bucket that fills at RATE."""
        now = time.monotonic()
        self.room = min(RATE, self.room + RATE * (now - self.heard_at)) - 1.0
        self.heard_at = now
        if self.room < 0.0:
            self.room = 0.0
            return False
        return True


class SessionPage:
    """Serves one session's page while it runs."""

    def __init__(
        self, session: Session, config: SessionConfig, *, path: Path | None = None, verb: str = "record"
    ) -> None:
        """
        Args:
            path: the file that is recorded into, for the page to name.
            verb: of the command line, whose session it is.
        """
        self.session, self.seat = session, Seat()
        self.counts: Counter[str] = Counter()
        """Messages that were left out, by what was wrong with them."""
        self._device = session.device if isinstance(session.device, BrowserDevice) else None
        self._pictures = session.pictures if isinstance(session.pictures, LivePictures) else LivePictures()
        self._path, self._verb = path, verb
        self._viewers: list[_Viewer] = []
        self._watching: list[asyncio.Event] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._status, self._number, self._due = session.status(), 1, 0.0
        self._buttons: deque[str] = deque(maxlen=MANY)
        self._texts: dict[str, str] = {}
        self._closed = threading.Event()
        self._hello = self._describe()
        routes = [WebSocketRoute("/control", self._control), WebSocketRoute("/pictures", self._show)]
        self.server = WebServer(routes, static=PAGE, host=config.host, port=config.port)

    def publish(self, session: Session) -> None:
        """Show the session's present state; called by the control loop at every tick, and never makes it wait."""
        while self._buttons:
            session.press(self._buttons.popleft())
        while self._texts:
            setattr(session, *self._texts.popitem())
        now = time.monotonic()
        changed = self._status["state"] != session.state
        if self._loop is None or not (changed or (self._viewers and now >= self._due)):
            return
        self._due = now + 1.0 / STATUS_HZ
        self._tell(session.status())

    def __enter__(self) -> SessionPage:
        self.server.start()
        threading.Thread(target=self._watch_pictures, name="page-pictures", daemon=True).start()
        what = f"{'Correct' if self.session.corrects else 'Record'} {self.session.task}"
        announce(what, self.server, open_page=self.session.config.open_page)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell the pages how it ended, and stop serving."""
        stopped = "the session was stopped" if isinstance(error, KeyboardInterrupt) else str(error or "")
        self._tell(self.session.status() | {"state": str(State.DONE), "error": stopped})
        deadline = time.monotonic() + GOODBYE_S
        while any(viewer.newest < self._number for viewer in list(self._viewers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._closed.set()
        self.server.stop()

    def _tell(self, status: dict[str, Any]) -> None:
        self._status = status
        self._number += 1
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self.seat.update()
        for viewer in self._viewers:
            viewer.wake.set()

    def _describe(self) -> dict[str, Any]:
        """Return what a page needs to know once."""
        session = self.session
        profile = getattr(session.device, "profile", None)
        keys = (self._device.profile if self._device is not None else load_profile("browser")).buttons
        return {
            "verb": self._verb,
            "task": session.task,
            "device": session.device_name,
            "drives": self._device is not None,
            "corrects": session.corrects,
            "profile": None if profile is None else asdict(profile),
            "keys": {key: button for key, button in keys.items() if key in KEYS},
            "axes": session.mapper.axes,
            "has_gripper": session.mapper.has_gripper,
            "hz": session.pacer.hz,
            "cameras": self._pictures.cameras,
            "no_pictures": self._pictures.note,
            "longest": LONGEST,
            "path": None if self._path is None else str(self._path),
        }

    async def _control(self, socket: WebSocket) -> None:
        """One page's statuses and inputs."""
        await socket.accept()
        self._loop = asyncio.get_running_loop()
        viewer = _Viewer(socket, await self._name(socket.query_params.get("page", "")))
        await socket.send_text(json.dumps({"hello": self._hello | {"cameras": self._pictures.cameras}}))
        self._viewers.append(viewer)
        self.seat.enter(viewer.page)
        viewer.wake.set()
        sending = asyncio.create_task(self._send_statuses(viewer))
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    if message.get("code") == 1009:
                        self.counts["too large"] += 1
                    return
                self._take(viewer, message.get("text"))
        finally:
            sending.cancel()
            if viewer in self._viewers:
                self._viewers.remove(viewer)
                self._let_go(viewer)

    def _let_go(self, viewer: _Viewer) -> None:
        if viewer.page == self.seat.driver and self._device is not None:
            self._device.close()
        self.seat.leave(viewer.page)

    async def _name(self, wanted: str) -> str:
        """A page that comes back keeps its name, and the seat with it; the copy of an open one gets another."""
        name = wanted if wanted.isalnum() and len(wanted) <= 64 else secrets.token_hex(8)
        for other in [viewer for viewer in self._viewers if viewer.page == name]:
            if time.monotonic() - other.heard_at < DEAD_S:
                return secrets.token_hex(8)
            self._viewers.remove(other)
            self._let_go(other)
            asyncio.get_running_loop().create_task(_hang_up(other.socket))
        return name

    async def _send_statuses(self, viewer: _Viewer) -> None:
        try:
            while True:
                await viewer.wake.wait()
                viewer.wake.clear()
                if viewer.newest == self._number or viewer.sent - viewer.seen >= AHEAD:
                    continue
                viewer.newest, status = self._number, self._status
                viewer.sent += 1
                viewer.sent_at[viewer.sent] = time.monotonic()
                await viewer.socket.send_text(json.dumps(status | self._personal(viewer)))
                await asyncio.sleep(0.8 / STATUS_HZ)
        except (WebSocketDisconnect, RuntimeError):  # the line broke while something was under way
            return

    def _personal(self, viewer: _Viewer) -> dict[str, Any]:
        """Return what differs from page to page."""
        seat = self.seat
        return {
            "n": viewer.sent,
            "rtt_ms": viewer.rtt_ms,
            "you_drive": viewer.page == seat.driver,
            "pages": len(self._viewers),
            "asked_for": seat.asking is not None and viewer.page == seat.driver,
            "you_ask": viewer.page == seat.asking,
            "patience_s": round(seat.patience_s, 1) if seat.asking else None,
            "refused": self.counts.total() - self.counts["only watching"],
        }

    def _take(self, viewer: _Viewer, text: str | None) -> None:
        """Take a page's message; one that means nothing is counted."""
        if not viewer.may_send():
            self.counts["too many"] += 1
            return
        try:
            message = _parsed(text)
            self._obey(viewer, message)
        except Malformed as fault:
            self.counts[str(fault)] += 1

    def _obey(self, viewer: _Viewer, message: Mapping[str, Any]) -> None:
        if "seen" in message:
            self._acknowledge(viewer, message["seen"])
        if message.get("ask"):
            self.seat.ask(viewer.page)
        driver = self.seat.driver
        if viewer.page != driver:
            if message.keys() & {"input", "give", *LONGEST}:
                self.counts["only watching"] += 1
            return
        texts = {name: _plain_text(message[name], most) for name, most in LONGEST.items() if name in message}
        self._texts.update(texts)
        if "input" in message:
            self._drive(viewer, message["input"])
        if "give" in message:
            self.seat.answer(viewer.page, give=message["give"] is True)
        if self.seat.driver != driver and self._device is not None:
            self._device.close()

    def _drive(self, viewer: _Viewer, told: Any) -> None:
        if not isinstance(told, Mapping):
            raise Malformed("input is not an object")
        if _stirs(told):
            self.seat.stir(viewer.page)
        if self._device is not None:
            self._device.feed(told)
        else:
            self._buttons.extend(button_names(told))

    def _acknowledge(self, viewer: _Viewer, seen: Any) -> None:
        sent_at = viewer.sent_at.pop(seen, None) if isinstance(seen, int) else None
        if sent_at is None:
            raise Malformed("no such status")
        trip = 1e3 * (time.monotonic() - sent_at)
        viewer.rtt_ms = round(trip if viewer.rtt_ms is None else 0.8 * viewer.rtt_ms + 0.2 * trip, 1)
        viewer.seen = max(viewer.seen, seen)
        viewer.wake.set()

    async def _show(self, socket: WebSocket) -> None:
        """One page's pictures, the newest of each camera whenever there is room on the line."""
        await socket.accept()
        self._loop = asyncio.get_running_loop()
        wake, room = asyncio.Event(), Counter[int]()
        self._watching.append(wake)
        self._pictures.watch(True)
        sending = asyncio.create_task(self._send_pictures(socket, wake, room))
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                camera = (message.get("text") or "")[:2]
                if camera.isdecimal() and room[int(camera)] > 0:
                    room[int(camera)] -= 1
                    wake.set()
        finally:
            sending.cancel()
            self._watching.remove(wake)
            self._pictures.watch(bool(self._watching))

    async def _send_pictures(self, socket: WebSocket, wake: asyncio.Event, under_way: Counter[int]) -> None:
        shown: dict[str, int] = {}
        wake.set()
        try:
            while True:
                await wake.wait()
                wake.clear()
                for index, camera in enumerate(self._pictures.cameras):
                    number, jpeg = self._pictures.frames.get(camera, (0, b""))
                    if number > shown.get(camera, 0) and under_way[index] < AHEAD:
                        shown[camera] = number
                        under_way[index] += 1
                        await socket.send_bytes(FRAME_HEAD.pack(index, number & 0xFFFFFFFF) + jpeg)
        except (WebSocketDisconnect, RuntimeError):  # the line broke while something was under way
            return

    def _watch_pictures(self) -> None:
        """Wait for pictures in the place of the server's thread, which may not wait."""
        changed = self._pictures.changed
        while not self._closed.is_set():
            with changed:
                changed.wait(0.2)
            if self._watching and self._loop is not None and not self._closed.is_set():
                self._loop.call_soon_threadsafe(self._wake_watching)

    def _wake_watching(self) -> None:
        for wake in self._watching:
            wake.set()


async def _hang_up(socket: WebSocket) -> None:
    """Close a line that is likely dead already."""
    if socket.application_state is WebSocketState.CONNECTED:
        try:
            await socket.close(1001, "the page came back")
        except (WebSocketDisconnect, RuntimeError):
            return


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(message, dict):
        raise Malformed("not an object")
    if not message.keys() <= _FIELDS:
        raise Malformed("unknown field")
    return message


def _plain_text(value: Any, most: int) -> str:
    """A text that can be stored: no control characters but line ends, nothing that is not Unicode."""
    if not isinstance(value, str) or len(value) > most:
        raise Malformed("text too long or none")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise Malformed("text is not Unicode")
    return "".join(letter for letter in value if letter.isprintable() or letter in "\n\u200d\u200c")


def _stirs(told: Mapping[str, Any]) -> bool:
    """Return whether somebody is at the inputs of a message."""
    if told.get("keys") or told.get("buttons") or told.get("gripper") is not None:
        return True
    pad, touch, mouse = told.get("gamepad"), told.get("touch"), told.get("mouse")
    values: list[Any] = []
    for part in (pad, touch, mouse):
        if isinstance(part, Mapping):
            for value in part.values():
                values.extend(value if isinstance(value, list) else [value])
    return any(isinstance(value, (int, float)) and abs(value) > _STIRRING for value in values)
