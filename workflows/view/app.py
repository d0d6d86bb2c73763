"""The server of the map: named results and nothing else, here or for whoever has a token."""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from earthgptx.pipeline.errors import PipelineError
from earthgptx.pipeline.job.lonlat import is_bbox
from earthgptx.pipeline.results.object_table import to_frame
from earthgptx.pipeline.results.query import find_objects
from earthgptx.workflows.exit_codes import OURS, code_of
from earthgptx.workflows.formats import geojson, write_geoparquet
from earthgptx.workflows.view.served import Served
from earthgptx.workflows.view.store_files import BadRange, piece_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
PAGE = files("earthgptx.workflows.view") / "page"
HEADERS = {
    # No inline script: captions and ids are somebody else's words. The decoder of Blosc chunks is
    # WebAssembly whose glue makes functions of texts of its own, hence `unsafe-eval`.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def token_for(host: str) -> str:
    """Returns what the address of the page must hold: nothing on this machine alone."""
    return "" if host in LOOPBACK else secrets.token_urlsafe(24)


def make_app(results: Sequence[Served], *, token: str) -> Starlette:
    """Returns the server.

    Args:
        results: what is served.
        token: first part of every path; empty for none, then it answers to names of this machine.
    """
    api = [
        Route("/about", _answer(lambda served, _: served.about())),
        Route("/objects", _answer(_objects)),
        Route("/search", _answer(_search)),
        Route("/why", _answer(_why)),
        Route("/changes", _answer(_changes)),
        Route("/scene.png", _picture(_scene)),
        Route("/crop.png", _picture(_crop)),
        Route("/download", _download),
    ]
    routes: list[BaseRoute] = [
        Route("/api/results", _results),
        Mount("/api/{number:int}", routes=api),
        Route("/store/{number:int}/{key:path}", _store, methods=["GET", "HEAD"]),
        Route("/", _page),
        Route("/{name}", _page),
    ]
    # Any other name for this machine may be somebody's web page that reaches through a browser.
    hosts = [*LOOPBACK, "[::1]"] if not token else ["*"]
    app = Starlette(
        routes=[Mount(f"/{token}", routes=routes)] if token else routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        exception_handlers={PipelineError: _failed},
    )
    app.state.results = list(results)
    return app


def _served(request: Request) -> Served:
    results: list[Served] = request.app.state.results
    number: int = request.path_params["number"]
    if number >= len(results):
        raise HTTPException(404)
    return results[number]


def _failed(_: Request, error: Exception) -> Response:
    status = {2: 400, 3: 503}.get(code_of(error), 500)
    return JSONResponse({"error": str(error)}, status, HEADERS)


def _answer(ask: Callable[[Served, dict[str, str]], Any]) -> Callable[[Request], Response]:
    """Returns a handler that answers with JSON; what is wrong is a sentence."""

    def handler(request: Request) -> Response:
        try:
            found = ask(_served(request), dict(request.query_params))
        except OURS as error:
            return _failed(request, error)
        except (KeyError, ValueError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400, HEADERS)
        return JSONResponse(found, headers=HEADERS)

    return handler


def _picture(ask: Callable[[Served, dict[str, str]], bytes]) -> Callable[[Request], Response]:
    """Returns a handler that answers with a PNG."""

    def handler(request: Request) -> Response:
        try:
            data = ask(_served(request), dict(request.query_params))
        except OURS as error:
            return _failed(request, error)
        except (KeyError, ValueError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400, HEADERS)
        return Response(data, media_type="image/png", headers=HEADERS)

    return handler


def _bbox(asked: dict[str, str]) -> list[float]:
    bounds = [float(edge) for edge in asked["bbox"].split(",")]
    if len(bounds) != 4 or not all(map(math.isfinite, bounds)) or not is_bbox(*bounds):
        raise ValueError("bbox is no west,south,east,north")
    return bounds


def _conditions(asked: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if asked.get("label"):
        found["label"] = asked["label"]
    if asked.get("text"):
        found["text"] = asked["text"]
    if asked.get("min_score"):
        found["min_score"] = float(asked["min_score"])
    return found


def _search_conditions(asked: dict[str, str]) -> dict[str, Any]:
    from earthgptx.pipeline.job.lonlat import bbox_area

    found = _conditions(asked)
    if asked.get("time"):
        found["time"] = asked["time"]
    if asked.get("bbox"):
        found["within"] = bbox_area(*_bbox(asked))
    return found


def _objects(served: Served, asked: dict[str, str]) -> Any:
    return served.objects(_conditions(asked), asked["slice"], _bbox(asked))


def _search(served: Served, asked: dict[str, str]) -> Any:
    return served.search(_search_conditions(asked))


def _why(served: Served, asked: dict[str, str]) -> Any:
    return served.why(float(asked["lon"]), float(asked["lat"]))


def _changes(served: Served, asked: dict[str, str]) -> Any:
    return served.changes(asked["before"], asked["after"])


def _scene(served: Served, asked: dict[str, str]) -> bytes:
    return served.scene(asked.get("zone", ""), asked["slice"])


def _crop(served: Served, asked: dict[str, str]) -> bytes:
    return served.crop(asked["slice"], _bbox(asked))


def _download(request: Request) -> Response:
    """Answers with what a search finds, all of it, as GeoJSON or GeoParquet."""
    asked = dict(request.query_params)
    try:
        found = find_objects([_served(request).result], **_search_conditions(asked))
    except OURS as error:
        return _failed(request, error)
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400, HEADERS)
    named = {**HEADERS, "Content-Disposition": 'attachment; filename="objects.geojson"'}
    if asked.get("format") != "parquet":
        return Response(geojson(found), media_type="application/geo+json", headers=named)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.parquet"
        write_geoparquet(to_frame(found), path)
        named["Content-Disposition"] = 'attachment; filename="objects.parquet"'
        return Response(
            path.read_bytes(), media_type="application/vnd.apache.parquet", headers=named
        )


def _results(request: Request) -> Response:
    results: list[Served] = request.app.state.results
    return JSONResponse([served.url for served in results], headers=HEADERS)


def _store(request: Request) -> Response:
    """Answers with a file of a result's store, or part of it."""
    try:
        asked = request.headers.get("range", "")
        piece = piece_of(_served(request).result.root, request.path_params["key"], asked)
    except BadRange:
        return Response(status_code=416, headers=HEADERS)
    except OURS as error:
        return _failed(request, error)
    if piece is None:
        return Response(status_code=404, headers=HEADERS)
    headers = {**HEADERS, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if asked:
        end = piece.start + len(piece.data) - 1
        headers["Content-Range"] = f"bytes {piece.start}-{end}/{piece.size}"
    kind = "application/json" if request.url.path.endswith(".json") else "application/octet-stream"
    return Response(piece.data, 206 if asked else 200, headers, media_type=kind)


def _page(request: Request) -> Response:
    """Answers with a file of the page."""
    name = request.path_params.get("name", "index.html")
    file = PAGE / name
    suffix = Path(name).suffix
    if suffix not in TYPES or "/" in name or not file.is_file():
        return Response(status_code=404, headers=HEADERS)
    headers = {**HEADERS, "Cache-Control": "no-cache"}
    return Response(file.read_bytes(), media_type=TYPES[suffix], headers=headers)
