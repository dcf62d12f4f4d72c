"""The pages' server: who is let in, what is refused, and that a link printed is a link that works."""

from __future__ import annotations

import asyncio
import queue
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from robolearn.errors import DatasetError, TaskError
from robolearn.teleop.web.guard import Access, Guard, is_loopback
from robolearn.teleop.web.server import MAX_MESSAGE_BYTES, WebServer, announce, make_app


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


async def broken(_: Request) -> JSONResponse:
    raise DatasetError("demos.hdf5 is damaged; repair it")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


ROUTES = [
    Route("/echo", echo, methods=["GET", "POST"]),
    Route("/broken", broken),
    WebSocketRoute("/talk", talk),
]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<title>page</title>")
    (folder / "page.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("not yours")
    return folder


def client(page: Path, **access: Any) -> TestClient:
    given = Access(hosts=frozenset({"localhost", "robot.lan"}), **access)
    return TestClient(Guard(make_app(ROUTES, page), given), base_url="http://localhost:8080", follow_redirects=False)


def test_the_page_its_script_and_the_shared_files_come_with_strict_headers(page: Path) -> None:
    web = client(page)
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/web/style.css", "text/css")):
        answer = web.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/web/..%2f..%2f..%2fserver.py", "//etc/passwd"]
)
def test_no_path_leads_out_of_the_folders(page: Path, path: str) -> None:
    answer = client(page).get(path)
    assert answer.status_code in (400, 404)
    assert "not yours" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"])
def test_a_foreign_name_for_this_machine_is_refused(page: Path, host: str) -> None:
    assert client(page).get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8080", "192.168.1.7", "robot.lan:80"]
)
def test_own_names_and_addresses_are_answered(page: Path, host: str) -> None:
    assert client(page).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:8081"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_sites_page_can_neither_post_nor_open_a_websocket(page: Path, headers: dict[str, str]) -> None:
    web = client(page)
    assert web.post("/echo", content=b"x", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect), web.websocket_connect("/talk", headers=headers):
        pass


@pytest.mark.parametrize("headers", [{}, {"origin": "http://localhost:8080"}, {"sec-fetch-site": "same-origin"}])
def test_the_own_page_and_programs_can(page: Path, headers: dict[str, str]) -> None:
    web = client(page)
    assert web.post("/echo", content=b"abc", headers=headers).json() == {"bytes": 3}
    with web.websocket_connect("/talk", headers={"host": "localhost:8080"} | headers) as talking:
        talking.send_text("hello")
        assert talking.receive_text() == "HELLO"


def test_without_the_token_nothing_is_served(page: Path) -> None:
    web = client(page, token="right")
    for path in ("/", "/web/ui.js", "/echo", "/?token=wrong", "/?token="):
        assert web.get(path).status_code == 401
    assert web.post("/echo", content=b"x").status_code == 401
    assert web.get("/", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert web.get("/", headers={"cookie": "robolearn=wrong"}).status_code == 401
    with pytest.raises(WebSocketDisconnect), web.websocket_connect("/talk"):
        pass


def test_the_link_leaves_a_cookie_and_a_clean_address(page: Path) -> None:
    web = client(page, token="right")
    answer = web.get("/?token=right&a=%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?a=%26b"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert web.get("/").status_code == 200
    assert web.post("/echo", content=b"abc").status_code == 200
    with web.websocket_connect("/talk", headers={"host": "localhost:8080", "cookie": "robolearn=right"}) as talking:
        talking.send_text("a")
        assert talking.receive_text() == "A"


def test_the_redirect_stays_on_this_server(page: Path) -> None:
    answer = client(page, token="right").get("http://localhost:8080//evil.example/?token=right")
    assert answer.headers["location"].startswith("/evil.example")


def test_programs_show_the_token_in_a_header(page: Path) -> None:
    web = client(page, token="right")
    assert web.get("/echo", headers={"authorization": "Bearer right"}).status_code == 200


def test_bodies_are_bounded_whatever_their_length_claims(page: Path) -> None:
    web = client(page, max_body_bytes=1000)
    assert web.post("/echo", content=bytes(1000)).json() == {"bytes": 1000}
    assert web.post("/echo", content=bytes(1001)).status_code == 413
    assert web.post("/echo", content=(bytes(100) for _ in range(11))).status_code == 413  # chunked: no length at all
    assert web.post("/echo", content=b"x", headers={"content-length": "many"}).status_code == 413


def test_an_error_that_the_user_can_mend_is_told_in_its_own_words(page: Path) -> None:
    answer = client(page).get("/broken")
    assert (answer.status_code, answer.json()) == (400, {"error": "demos.hdf5 is damaged; repair it"})


def test_a_server_in_a_thread_answers_its_link_and_moves_on_from_a_taken_port(page: Path) -> None:
    with WebServer(ROUTES, static=page, port=0) as first:
        with urllib.request.urlopen(first.link) as answer:
            assert b"<title>page</title>" in answer.read()
        with WebServer(ROUTES, static=page, port=first.port) as second:
            assert second.port != first.port
            with urllib.request.urlopen(second.link) as answer:
                assert answer.status == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(first.link)


def test_an_exposed_server_asks_for_its_token_on_the_wire(page: Path) -> None:
    with WebServer(ROUTES, static=page, host="0.0.0.0", port=0) as server:
        assert server.token in server.link
        address = f"http://127.0.0.1:{server.port}/"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"{address}?token={server.token}") as answer:
            assert answer.url == address
            assert b"page" in answer.read()


def test_a_huge_websocket_message_closes_its_connection_only(page: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async def visit(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/talk") as calm:
            async with connect(f"ws://127.0.0.1:{port}/talk", max_size=None) as wild:
                await wild.send("x" * (MAX_MESSAGE_BYTES + 1))
                with pytest.raises(ConnectionClosed):
                    await wild.recv()
            await calm.send("still here")
            assert await calm.recv() == "STILL HERE"

    with WebServer(ROUTES, static=page, port=0) as server:
        asyncio.run(visit(server.port))


def test_an_address_of_another_machine_is_refused_with_a_remedy(page: Path) -> None:
    with pytest.raises(TaskError, match="--port"):
        WebServer(ROUTES, static=page, host="192.0.2.1", port=0)


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "robot.lan", socket.gethostname() + ".x")))


def test_a_refused_socket_is_no_fault_in_the_terminal(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with WebServer(ROUTES, static=page, host="0.0.0.0", port=0) as server:
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://127.0.0.1:{server.port}/talk")
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{server.port}/talk?token={server.token}", origin="http://evil.example")  # type: ignore[arg-type]
    assert capfd.readouterr().err == ""


def test_the_page_is_opened_on_request_where_there_is_a_screen(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr("webbrowser.open", opened.put)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("SSH_CONNECTION", "WAYLAND_DISPLAY", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with WebServer(ROUTES, static=page, port=0) as server:
        announce("page", server, open_page=True)
        monkeypatch.setenv("DISPLAY", ":7")
        announce("page", server)
        announce("page", server, open_page=True)
        assert opened.get(timeout=5.0) == server.link
        monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
        announce("page", server, open_page=True)
        with pytest.raises(queue.Empty):
            opened.get(timeout=0.2)
