"""Serve a page's application: bound to this machine unless told otherwise, guarded, in a thread or until Ctrl-C."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from robolearn.errors import RobolearnError, TaskError
from robolearn.teleop.web.guard import MAX_BODY_BYTES, Access, Guard, is_loopback, local_names

STATIC = Path(__file__).parent / "static"
"""The shared style and script, served under /web/."""

TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PORTS_TRIED = 20
START_S = 10.0
MAX_MESSAGE_BYTES = 1 << 16
"""Of a WebSocket message that a page may send; longer ones close the connection."""


class WebServer:
    """One page's server.

        with WebServer(routes, static=folder, port=8080) as server:   # in a thread of its own
            print(server.link)
        WebServer(routes, static=folder).run()                          # in this one, until Ctrl-C

    Args:
        routes: the application's own, before the static files.
        static: folder of the page, whose index.html is served at /.
        host: address to bind. Anything but loopback is reached from other machines and asks for a token.
        port: the next free one of 20 is taken where this one is in use; 0 takes any.
        names: further names under which the server may be addressed (a reverse proxy's, say).

    Raises TaskError where no port is free or the address is not this machine's.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        static: Path,
        host: str = "127.0.0.1",
        port: int = 8080,
        names: Sequence[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.host = host
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        access = Access(
            token=self.token,
            cookie=f"robolearn_{self.port}",
            hosts=local_names() | {name.lower() for name in names},
            max_body_bytes=max_body_bytes,
        )
        self.app = Guard(make_app(routes, static), access)
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=max_message_bytes,
            ws_per_message_deflate=False,  # pictures are compressed already, and small messages want no delay
            limit_concurrency=256,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_a_fault)
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def link(self) -> str:
        """Return what to open in a browser, the token included where one is asked for."""
        host = _reachable_name(self.host)
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def start(self) -> None:
        """Serve from a background thread; returns once connections are answered."""
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise TaskError(f"the page's server did not start on {self.host}:{self.port}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the background thread; requests in progress get two seconds."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(5.0)
        self._socket.close()

    def run(self) -> None:
        """Serve until Ctrl-C, in the calling thread."""
        try:
            self._server.run([self._socket])
        finally:
            self._socket.close()

    def __enter__(self) -> WebServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def make_app(routes: Sequence[BaseRoute], static: Path) -> Starlette:
    """Return the application: own routes, the shared files under /web/, the page's files under /.

    A RobolearnError in a route becomes `{"error": message}` with status 400.
    """
    files = [Mount("/web", _Files(directory=STATIC)), Mount("/", _Files(directory=static, html=True))]
    return Starlette(routes=[*routes, *files], exception_handlers={RobolearnError: _answer_error})


def _is_a_fault(record: logging.LogRecord) -> bool:
    """Return whether a line of uvicorn's tells of a fault; a WebSocket that the guard refuses is none."""
    return record.getMessage() != "ASGI callable returned without completing handshake."


def _answer_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


class _Files(StaticFiles):
    """Static files, with the types that browsers insist on whatever the system's table of types says."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        kind = TYPES.get(Path(path).suffix)
        if kind and response.status_code == 200:
            response.headers["content-type"] = f"{kind}; charset=utf-8"
        return response


def announce(what: str, server: WebServer, *, open_page: bool = False) -> None:
    """Print the one line that matters, and how to reach the page from elsewhere; on request, open it here."""
    print(f"\n  {what}:  {server.link}\n", flush=True)
    if server.token:
        print("  Whoever has this link may use the page; Ctrl-C ends it.", flush=True)
    else:
        port = server.port
        print(
            f"  Only this machine can open it. Over SSH: ssh -L {port}:127.0.0.1:{port} HOST. Ctrl-C ends.", flush=True
        )
    if open_page and _has_screen():
        threading.Thread(target=webbrowser.open, args=(server.link,), daemon=True).start()


def _has_screen() -> bool:
    """Return whether somebody sits at this machine; a browser in a terminal, or sent over SSH, is of no use."""
    local = "SSH_CONNECTION" not in os.environ
    return local and (sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    failure: OSError | None = None
    for candidate in range(port, min(port + PORTS_TRIED, 65536)) if port else (0,):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host.strip("[]"), candidate))
            sock.listen(128)  # also refuses a port that another server listens on, which SO_REUSEADDR may bind
        except OSError as error:
            sock.close()
            failure = error
            continue
        sock.setblocking(False)
        return sock
    what = failure.strerror if failure else "no such port"
    raise TaskError(f"cannot serve the page on {host}, ports {port} to {port + PORTS_TRIED - 1}: {what}; choose --port")


def _reachable_name(host: str) -> str:
    """The name to put into the link: a wildcard address is reached by the machine's own name."""
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
