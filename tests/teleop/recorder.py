"""The recorder as a user starts it, in a process of its own, and a client that talks to its page over a bare socket."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0


class Recorder:
    """`robolearn record --device browser ...`, or another verb with a session, in `folder`."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        verb: str = "record",
        session: bool = True,
    ) -> None:
        """
        Args:
            session: the verb's own options name the device and the session; otherwise `arguments` say all.
        """
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        own = () if "--device" in arguments else ("--device", "browser")
        usual = (*own, "--session.port", "0") if session else ()
        command = [*prefix, sys.executable, "-m", "robolearn", verb, *usual, *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def link(self) -> str:
        """What it prints for the browser."""
        wait_until(lambda: re.search(r"http://\S+", self.text) or self.process.poll() is not None)
        found = re.search(r"http://\S+", self.text)
        assert found, self.text
        return found.group()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def wait(self) -> int:
        """Until it ends by itself; returns its exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))


@contextmanager
def recorder(
    folder: Path, *arguments: str, prefix: tuple[str, ...] = (), verb: str = "record", session: bool = True
) -> Iterator[Recorder]:
    running = Recorder(folder, *arguments, prefix=prefix, verb=verb, session=session)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


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


def wait_until(
    condition: Callable[[], Any], explain: Callable[[], str] = lambda: "", seconds: float = PATIENCE_S
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {explain()}"
        time.sleep(0.01)
