"""The recorder as a user starts it, in a process of its own, and a client that talks to its page over a bare socket."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from robolearn.sim import rendering
from tests.commands import Fork, command
from tests.waiting import PATIENCE_S, wait_until


class Recorder:
    """`robolearn record --device browser ...`, or another verb with a session, in `folder`."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        verb: str = "record",
        session: bool = True,
        pictures: bool = True,
    ) -> None:
        """
        Args:
            session: the verb's own options name the device and the session; otherwise `arguments` say all.
            pictures: without them it is as on a machine without OpenGL, and begins seconds earlier.
        """
        own = () if "--device" in arguments else ("--device", "browser")
        usual = (*own, "--session.port", "0") if session else ()
        self.process = Fork(command if pictures else blind, [verb, *usual, *arguments], cwd=folder)

    @property
    def link(self) -> str:
        """What it prints for the browser."""
        wait_until(lambda: re.search(r"http://\S+", self.text) or self.process.poll() is not None)
        found = re.search(r"http://\S+", self.text)
        assert found, self.text
        return found.group()

    @property
    def text(self) -> str:
        return self.process.out + self.process.err

    def wait(self) -> int:
        """Until it ends by itself; returns its exit code."""
        return self.process.wait(PATIENCE_S)


@contextmanager
def recorder(folder: Path, *arguments: str, **options: Any) -> Iterator[Recorder]:
    """Yield a `Recorder`, of whose options these are."""
    running = Recorder(folder, *arguments, **options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def blind(words: list[str]) -> int:
    rendering.find_backend = lambda: None
    return command(words)


class Client:
    """A page without a browser: sends its inputs 20 times a second, remembers the newest status."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.hello: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        self.input: dict[str, Any] | None = {"keys": []}
        """Sent until it is changed; None is silent."""
        self.closed = threading.Event()
        for work in (self._listen, self._speak):
            threading.Thread(target=work, daemon=True).start()
        wait_until(lambda: self.status)

    def press(self, *buttons: str) -> None:
        self.say(input={"keys": [], "buttons": list(buttons)})

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """Until the status says all that; returns it."""
        wait_until(
            lambda: all(self.status.get(key) == value for key, value in wanted.items()), lambda: str(self.status)
        )
        return self.status

    def wait_for_step(self, step: int) -> None:
        wait_until(lambda: self.status["step"] >= step, lambda: str(self.status))

    def _listen(self) -> None:
        try:
            for text in self.socket:
                message = json.loads(text)
                if "hello" in message:
                    self.hello = message["hello"]
                else:
                    self.status = message
                    self.say(seen=message["n"])
        except ConnectionClosed:
            pass
        self.closed.set()

    def _speak(self) -> None:
        try:
            while not self.closed.wait(0.05):
                if self.input is not None:
                    self.say(input=self.input)
        except ConnectionClosed:
            pass


@contextmanager
def client(link: str, page: str = "test", **options: Any) -> Iterator[Client]:
    parts = urlsplit(link)
    query = f"page={page}" + (f"&{parts.query}" if parts.query else "")
    with connect(f"ws://127.0.0.1:{parts.port}/control?{query}", **options) as socket:
        yield Client(socket)
