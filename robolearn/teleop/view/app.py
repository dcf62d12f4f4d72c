"""The viewer's application: what the page asks for, and the command that serves it.

Pictures of a step are asked for over the WebSocket /api/pictures, answered in order, all of a step in one message:

    {"episode": 3, "step": 57, "cameras": ["front", "wrist"]}              what the cameras recorded
    {"episode": 3, "step": 57, "view": {"camera": "free", "azimuth": 140, "elevation": -25, "zoom": 1}}    the scene

An answer is binary: for each picture its length (4 bytes, big endian) and its JPEG; or the text {"error": words}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.view import ViewConfig
from robolearn.errors import DatasetError, RobolearnError
from robolearn.teleop.pacer import punctual
from robolearn.teleop.view.library import THUMBNAIL_WIDTH, Library
from robolearn.teleop.view.marks import Marks
from robolearn.teleop.view.point_of_view import FREE, View
from robolearn.teleop.view.scene import Scene
from robolearn.teleop.web.server import WebServer, announce

PAGE = Path(__file__).parent / "static"
KEEP = {"Cache-Control": "private, max-age=3600"}
"""Of pictures: what was recorded does not change while the program runs (`?v=` tells one run from the next)."""


class Viewer:
    """Everything behind one page."""

    def __init__(self, source: str, *, reading: Reading = NOTHING, task: TaskConfig | None = None) -> None:
        """Open the dataset. Raises DatasetError where it cannot be read.

        Args:
            task: whose scene shows the recorded states; None takes what the file says.
        """
        self.library = Library(source, reading=reading)
        self.marks = Marks(self.library)
        self.scene = Scene(self.library, task)

    def routes(self) -> list[BaseRoute]:
        episode = "/api/episodes/{index:int}"
        return [
            Route("/api/dataset", self._dataset),
            Route("/api/rows", self._rows),
            Route(episode, self._episode),
            Route(f"{episode}/curves", self._curves),
            Route(f"{episode}/thumbnail.jpg", self._thumbnail),
            Route(f"{episode}/scene", self._scene),
            WebSocketRoute("/api/pictures", self._pictures),
            Route("/api/marks", self._change_marks, methods=["POST"]),
            Route("/api/save", self._save, methods=["POST"]),
            Route("/api/save_masks", self._save_masks, methods=["POST"]),
        ]

    def close(self) -> None:
        self.scene.close()
        self.library.close()

    # Functions without `async` run in Starlette's threads: reading and drawing never hold up other answers.

    def _dataset(self, _: Request) -> Response:
        return JSONResponse(self.library.describe() | {"marks": self.marks.all()})

    def _rows(self, request: Request) -> Response:
        since = _number(request.query_params.get("since", "0"), int)
        rows = self.library.rows[max(0, since) :]
        return JSONResponse({"since": since, "rows": rows, "of": len(self.library.names)})

    def _episode(self, request: Request) -> Response:
        return JSONResponse(self.library.episode(request.path_params["index"]))

    def _curves(self, request: Request) -> Response:
        return Response(self.library.curves(request.path_params["index"]), media_type="application/octet-stream")

    def _thumbnail(self, request: Request) -> Response:
        if not self.library.cameras:
            return JSONResponse({"error": "no pictures in this file"}, HTTPStatus.NOT_FOUND)
        index = request.path_params["index"]
        jpeg = self.library.picture(index, self.library.cameras[0], -1, width=THUMBNAIL_WIDTH)
        return Response(jpeg, media_type="image/jpeg", headers=KEEP)

    def _scene(self, request: Request) -> Response:
        return JSONResponse(self.scene.describe(request.path_params["index"]))

    async def _pictures(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                wish = await socket.receive_text()
                try:
                    pictures = await run_in_threadpool(self._wished, wish)
                except RobolearnError as error:
                    await socket.send_text(json.dumps({"error": str(error)}))
                else:
                    await socket.send_bytes(b"".join(len(jpeg).to_bytes(4, "big") + jpeg for jpeg in pictures))
        except WebSocketDisconnect:
            return

    def _wished(self, text: str) -> list[bytes]:
        """Return the JPEGs that a wish asks for."""
        wish = _object(text)
        index, step, view = wish.get("episode"), wish.get("step"), wish.get("view")
        if type(index) is not int or type(step) is not int:
            raise DatasetError("a wish for pictures names an episode and a step by their numbers")
        if view is None:
            return [self.library.picture(index, str(key), step) for key in wish.get("cameras", ())]
        return [self.scene.picture(index, step, _view(view))]

    async def _change_marks(self, request: Request) -> Response:
        return await _act(request, self.marks.change)

    async def _save(self, request: Request) -> Response:
        def save(body: dict[str, Any]) -> dict[str, Any]:
            path, notes = self.marks.save(str(body.get("name", "")))
            return {"path": str(path), "name": path.name, "notes": notes}

        return await _act(request, save)

    async def _save_masks(self, request: Request) -> Response:
        def save(_: dict[str, Any]) -> dict[str, Any]:
            counts = self.marks.save_masks()
            return {"counts": counts} | self.library.describe() | {"marks": self.marks.all()}

        return await _act(request, save)


def view(config: ViewConfig) -> None:
    """Serve the page of a dataset until Ctrl-C."""
    viewer = Viewer(config.dataset, reading=config.reading, task=config.task)
    try:
        server = WebServer(viewer.routes(), static=PAGE, host=config.host, port=config.port)
        announce(f"{config.dataset} ({len(viewer.library.names)} episodes)", server)
        with suppress(KeyboardInterrupt), punctual():  # the thread that reads rows gives way to the page
            server.run()
    finally:
        if viewer.marks.unsaved:
            print(f"marks on {len(viewer.marks.all())} episodes were not saved", flush=True)
        viewer.close()


async def _act(request: Request, run: Callable[[dict[str, Any]], Any]) -> Response:
    """Answer a POST: a JSON object in, what `run` makes of it out."""
    return JSONResponse(await run_in_threadpool(run, _object(await request.body())))


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise DatasetError("the request must hold a JSON object")
    return told


def _view(told: Any) -> View:
    """A point of view; what it does not say is as usual."""
    if not isinstance(told, dict):
        raise DatasetError("a view must be a JSON object")
    numbers = {name: _number(told[name], float) for name in ("azimuth", "elevation", "zoom") if name in told}
    return View(camera=str(told.get("camera", FREE)), **numbers)


def _number(text: Any, kind: Callable[[Any], Any]) -> Any:
    try:
        value = kind(text)
    except (ValueError, TypeError):
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"expected a number, received {str(text)[:40]!r}")
    return value
