"""A line between two processes: JSON objects over a socket, one after the other."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from typing import Any

CHUNK = 1 << 16


class Line:
    """One end of the line."""

    def __init__(self, end: socket.socket) -> None:
        self._socket, self._rest = end, b""
        self.open = True
        """Whether the other side is there, as far as anybody has looked."""

    def say(self, **message: Any) -> None:
        """Send a message; one that nobody is there to hear is dropped."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.open = False

    def hear(self, patience_s: float | None = 0.0) -> dict[str, Any] | None:
        """Return the next message; None where none has come, or where the other side has gone.

        Args:
            patience_s: seconds to wait for more of it; None waits for ever.
        """
        while b"\n" not in self._rest:
            if not select.select([self._socket], [], [], patience_s)[0]:
                return None
            more = b""
            with contextlib.suppress(ConnectionError):
                more = self._socket.recv(CHUNK)
            if not more:
                self.open = False
                return None
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\n")
        return json.loads(message)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
