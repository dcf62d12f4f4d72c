"""The viewer's application: what the page asks for over HTTP, and the command that serves it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.configuration.view import ViewConfig
from robolearn.errors import DatasetError
from robolearn.teleop.view.library import THUMBNAIL_WIDTH, Library
from robolearn.teleop.view.marks import Marks
from robolearn.teleop.view.scene import FREE, Scene, View
from robolearn.teleop.web.server import WebServer, announce

PAGE = Path(__file__).parent / "static"
KEEP = {"Cache-Control": "private, max-age=3600"}
"""Of pictures: what was recorded does not change while the program runs (`?v=` tells one run from the next)."""


class Viewer:
    """Everything behind one page."""

    def __init__(self, source: str, *, reading: Reading = NOTHING) -> None:
        """Open the dataset. Raises DatasetError where it cannot be read."""
        self.library = Library(source, reading=reading)
        self.marks = Marks(self.library)
        self.scene = Scene(self.library)

    def routes(self) -> list[BaseRoute]:
        episode = "/api/episodes/{index:int}"
        return [
            Route("/api/dataset", self._dataset),
            Route("/api/rows", self._rows),
            Route(episode, self._episode),
            Route(f"{episode}/curves", self._curves),
            Route(f"{episode}/thumbnail.jpg", self._thumbnail),
            Route(f"{episode}/cameras/{{key}}/{{step:int}}.jpg", self._picture),
            Route(f"{episode}/scene", self._scene),
            Route(f"{episode}/scene/{{step:int}}.jpg", self._scene_picture),
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
        return _jpeg(self.library.picture(index, self.library.cameras[0], -1, width=THUMBNAIL_WIDTH))

    def _picture(self, request: Request) -> Response:
        where = request.path_params
        return _jpeg(self.library.picture(where["index"], where["key"], where["step"]))

    def _scene(self, request: Request) -> Response:
        return JSONResponse(self.scene.describe(request.path_params["index"]))

    def _scene_picture(self, request: Request) -> Response:
        query = request.query_params
        view = View(
            camera=query.get("camera", FREE),
            azimuth=_number(query.get("azimuth", "140"), float),
            elevation=_number(query.get("elevation", "-25"), float),
            zoom=_number(query.get("zoom", "1"), float),
        )
        return _jpeg(self.scene.picture(request.path_params["index"], request.path_params["step"], view))

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
    viewer = Viewer(config.dataset, reading=config.reading)
    try:
        server = WebServer(viewer.routes(), static=PAGE, host=config.host, port=config.port)
        announce(f"{config.dataset} ({len(viewer.library.names)} episodes)", server)
        server.run()
    finally:
        if viewer.marks.unsaved:
            print(f"marks on {len(viewer.marks.all())} episodes were not saved", flush=True)
        viewer.close()


async def _act(request: Request, run: Callable[[dict[str, Any]], Any]) -> Response:
    """Answer a POST: a JSON object in, what `run` makes of it out."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise DatasetError("the request must hold a JSON object")
    return JSONResponse(await run_in_threadpool(run, body))


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=KEEP)


def _number(text: str, kind: Callable[[str], Any]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"expected a number, received {text[:40]!r}")
    return value
