"""A leader arm, a phone, a headset: whatever can send small JSON messages over a WebSocket drives the robot.

A message says what the operator wants now. It is sent at the sender's own rate, 20 to 200 times a second; after 200 ms
of silence the robot holds still until the next one:

    {"seq": 17,                        counts up by at least one for each message of a connection
     "time": 3.42,                     seconds on the sender's own clock, when it was measured
     "twist": [0, 0, 0.5, 0, 0, 0],    vx vy vz wx wy wz in [-1, 1], of which the profile makes what it says; or
     "action": [0, 0, 0.5, 0, 1],      the environment's own action in [-1, 1]
     "gripper": 1,                     -1 open .. 1 closed; may be left out
     "buttons": ["start"],             session buttons pressed since the last message; may be left out
     "engaged": true}                  false: hold still; may be left out

A message that is no such object changes nothing; the first one of each kind of fault is answered with {"error": kind}.
One client drives at a time. Pages cannot connect (they send an Origin), and other machines only with a token, in the
link: ws://HOST:PORT/?token=TOKEN. `teleop/examples/network_client.py` is a client.
"""

from __future__ import annotations

import hmac
import json
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from robolearn.configuration.teleop import AXES, Profile
from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices.messages import MANY, Malformed, button_names, number, numbers
from robolearn.teleop.devices.signals import STALE_S, SignalDevice, Signals

LARGEST_BYTES = 4096
"""Longest message; a longer one ends the connection."""
_FIELDS = frozenset(("seq", "time", "twist", "action", "gripper", "buttons", "engaged"))
_LOCAL = frozenset(("127.0.0.1", "localhost", "::1"))
_PING_S = 2.0
"""A client that is gone without a word makes room for another after twice this, seconds."""
_WINDOW = 100
"""Messages over which the sender's clock is compared with ours."""


class NetworkDevice(SignalDevice):
    """A WebSocket server in a thread of its own, of whose messages the newest counts."""

    summary: ClassVar = "a leader arm, phone or headset that sends WebSocket messages"
    needs: ClassVar = "a client (teleop/examples/network_client.py is one)"

    def __init__(self, profile: Profile, host: str = "127.0.0.1", port: int = 8765, token: str = "") -> None:
        """
        Args:
            port: 0 takes a free one; `address` says which.
            token: what a client must have in its link; needed where `host` can be reached from other machines.
        """
        super().__init__(profile)
        if host not in _LOCAL and not token:
            raise DeviceError(f"a network device on {host} can be reached by others and needs a token, received none")
        self.host, self.port, self.token = host, port, token
        self._server: Server | None = None
        self._lock = threading.Lock()
        self._client: ServerConnection | None = None
        self._counts: Counter[str] = Counter()
        self._buttons: deque[str] = deque(maxlen=MANY)
        self._forget()

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        return None

    @property
    def address(self) -> str:
        """The link for the client."""
        assert self._server is not None, "connect first"
        port = self._server.socket.getsockname()[1]
        return f"ws://{self.host}:{port}/" + (f"?token={quote(self.token)}" if self.token else "")

    @property
    def counts(self) -> dict[str, int]:
        """Messages taken ("accepted") and turned away, by what was wrong with them."""
        with self._lock:
            return dict(self._counts)

    def connect(self) -> None:
        """Start to listen. Raises DeviceError where the port is taken."""
        quiet = logging.getLogger("robolearn.network")
        quiet.setLevel(logging.CRITICAL)  # strangers' broken handshakes are counted, not logged
        try:
            self._server = serve(
                self._talk,
                self.host,
                self.port,
                origins=[None],
                process_request=self._refusal,
                compression=None,
                max_size=LARGEST_BYTES,
                ping_interval=_PING_S,
                ping_timeout=_PING_S,
                logger=quiet,
            )
        except OSError as error:
            raise DeviceError(
                f"cannot listen on {self.host}:{self.port} ({error.strerror}); choose another port"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="robolearn-network", daemon=True).start()

    def close(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        with self._lock:
            client = self._client
        if client is not None:
            client.close_socket()
        self._server = None

    def signals(self) -> Signals:
        if self._server is None:
            raise DeviceLost("the network device is closed; connect again")
        with self._lock:
            buttons = tuple(self._buttons)
            self._buttons.clear()
            gripper, self._gripper = self._gripper, None
            return Signals(
                values=self._values,
                buttons=buttons,
                gripper=gripper,
                action=self._action,
                live=self._engaged and time.monotonic() - self._sampled_at < STALE_S,
                sampled_at=self._sampled_at,
            )

    def _refusal(self, connection: ServerConnection, request: Request) -> Response | None:
        """Turn away whoever has not the token."""
        given = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if self.token and not hmac.compare_digest(given.encode(), self.token.encode()):
            self._count("refused: wrong token")
            return connection.respond(HTTPStatus.FORBIDDEN, "the link needs the token that the robot's side printed\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        """Take one client's messages until it goes."""
        with self._lock:
            busy, self._client = self._client is not None, self._client or connection
        if busy:
            self._count("refused: another client drives")
            connection.close(CloseCode.TRY_AGAIN_LATER, "another client drives")
            return
        told: set[str] = set()
        self._forget()
        try:
            for text in connection:
                fault = self._take(text)
                if fault is not None and fault not in told:
                    told.add(fault)
                    connection.send(json.dumps({"error": fault}))
        except ConnectionClosedError as closed:
            too_big = closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG
            self._count("too large" if too_big else "connection lost")
        except ConnectionClosed:
            pass
        finally:
            with self._lock:
                self._client, self._engaged = None, False

    def _take(self, text: str | bytes) -> str | None:
        """Take a message; returns what is wrong with it."""
        arrived = time.monotonic()
        try:
            message = _parsed(text)
            with self._lock:
                self._store(message, arrived)
        except Malformed as fault:
            self._count(str(fault))
            return str(fault)
        return None

    def _store(self, message: Mapping[str, Any], arrived: float) -> None:
        if message["seq"] <= self._sequence:
            raise Malformed("old sequence number")
        self._sequence = message["seq"]
        self._counts["accepted"] += 1
        self._sampled_at = self._when(message["time"], arrived)
        self._values = message["twist"]
        self._action = message["action"]
        self._engaged = message["engaged"]
        self._gripper = message["gripper"] if message["gripper"] is not None else self._gripper
        self._buttons.extend(message["buttons"])

    def _when(self, sent: float, arrived: float) -> float:
        """Return when it was measured on our clock, which is `arrived` for the fastest of the latest messages.

        So a message that waited somewhere on its way is as old as it is. A sender's clock that jumps back makes its
        messages seem old until it has sent _WINDOW of them; one that jumps ahead, nothing.
        """
        self._offsets.append(arrived - sent)
        return min(sent + min(self._offsets), arrived)

    def _forget(self) -> None:
        """Begin with a new client."""
        with self._lock:
            self._sequence = -math.inf
            self._sampled_at = -math.inf
            self._values: dict[str, float] = {}
            self._action: np.ndarray | None = None
            self._gripper: float | None = None
            self._engaged = False
            self._offsets: deque[float] = deque(maxlen=_WINDOW)

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def _parsed(text: str | bytes) -> dict[str, Any]:
    """A message, checked."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(message, dict):
        raise Malformed("not an object")
    if not message.keys() <= _FIELDS:
        raise Malformed("unknown field")
    seq, sent, engaged = message.get("seq"), message.get("time"), message.get("engaged", True)
    if isinstance(seq, bool) or not isinstance(seq, int) or abs(seq) > 2**53:
        raise Malformed("seq is not a whole number")
    if isinstance(sent, bool) or not isinstance(sent, (int, float)) or not abs(sent) < 1e12:
        raise Malformed("time is not a number of seconds")
    if not isinstance(engaged, bool):
        raise Malformed("engaged is not true or false")
    if ("twist" in message) == ("action" in message):
        raise Malformed("neither twist nor action, or both")
    own = "action" in message
    return {
        "seq": seq,
        "time": float(sent),
        "engaged": engaged,
        "twist": {} if own else dict(zip(AXES, numbers(message["twist"], size=len(AXES)))),
        "action": np.array(numbers(message["action"]), np.float32) if own else None,
        "gripper": None if message.get("gripper") is None else number(message["gripper"]),
        "buttons": button_names(message),
    }
