"""The guard of a page's server: an ASGI layer around every application of ours.

A page that can drive a robot or write files must not answer to whatever site happens to be open in the same browser:

- `Host` must be a name of this machine or an address, so that a foreign name that resolves to it (DNS rebinding) gets
  nothing;
- `Origin`, where the browser sends one with a WebSocket or anything but GET, must be the page's own;
- where the server can be reached from other machines, a random token is asked for: in the link at first, then in a
  cookie, or as `Authorization: Bearer` for programs;
- request bodies are bounded.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1 << 20
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
POLICY_VIOLATION = 1008
"""WebSocket close code (RFC 6455, 7.4.1)."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer: the page loads nothing from elsewhere and nobody else frames it."""


def local_names() -> frozenset[str]:
    """Return the names of this machine."""
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, f"{name}.local", socket.getfqdn().lower()})


@dataclass(frozen=True, kw_only=True)
class Access:
    """The things that a request must show."""

    token: str = ""
    """Empty asks for none."""
    cookie: str = "robolearn"
    """Cookies are shared by all ports of a host, so that each server wants a name of its own."""
    hosts: frozenset[str] = field(default_factory=local_names)
    """Names, besides IP addresses, under which the server may be addressed."""
    max_body_bytes: int = MAX_BODY_BYTES


class Guard:
    """Answer what `access` refuses itself and hand everything else to `app`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that must not pass, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not _is_own_host(host, self.access.hosts):
            return _text(HTTPStatus.MISDIRECTED_REQUEST, f"this server does not answer to the name {host!r}")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if changes and not _is_own_origin(headers, host):
            return _text(HTTPStatus.FORBIDDEN, "the request comes from another site's page")
        if not self._has_token(scope, headers):
            return _text(HTTPStatus.UNAUTHORIZED, "open the link that the program printed: it holds the token")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.access.max_body_bytes:
            return self._too_large()
        return None

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        if not self.access.token:
            return True
        shown = [
            QueryParams(scope["query_string"]).get("token", ""),
            cookie_parser(headers.get("cookie", "")).get(self.access.cookie, ""),
            headers.get("authorization", "").removeprefix("Bearer "),
        ]
        # In constant time: how much of a guess is right cannot be told from the clock.
        return any(hmac.compare_digest(value.encode(), self.access.token.encode()) for value in shown)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = QueryParams(scope["query_string"])
        if self.access.token and "token" in query and scope["method"] == "GET":
            await self._remember(scope, query)(scope, receive, _with_headers(send))
            return
        left = self.access.max_body_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:  # a body without an honest Content-Length
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self.app(scope, bounded, _with_headers(send))

    def _remember(self, scope: Scope, query: QueryParams) -> Response:
        """Return a redirect to the same page without the token in its address, which people copy and share."""
        rest = urlencode([(key, value) for key, value in query.multi_items() if key != "token"])
        path = "/" + scope["path"].lstrip("/\\")  # "//host/" would lead to another site
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), HTTPStatus.SEE_OTHER)
        response.set_cookie(self.access.cookie, self.access.token, httponly=True, samesite="lax", path="/")
        return response

    def _too_large(self) -> Response:
        most = self.access.max_body_bytes
        return _text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {most} bytes")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_own_host(host: str, names: Iterable[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in names:
        return True
    try:
        # An address cannot be made to mean another machine, as a name can.
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_own_origin(headers: Headers, host: str) -> bool:
    """Browsers send Origin with every WebSocket and POST; programs, which no foreign page can use, send none."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    return origin.partition("://")[2].lower() == host.lower()


def _text(status: HTTPStatus, words: str) -> Response:
    return PlainTextResponse(f"{status.value} {status.phrase}: {words}\n", status, headers=HEADERS)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return sending


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    await receive()  # the handshake
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
