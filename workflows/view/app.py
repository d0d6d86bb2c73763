"""The server of the map: named results and their imagery, here or for whoever has a token."""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import bbox_area, is_bbox
from earthgptx.pipeline.results.formats import geojson_texts, write_geoparquet
from earthgptx.pipeline.results.object_table import to_frame
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.storage.errors import storage_errors
from earthgptx.workflows.exit_codes import OURS, code_of
from earthgptx.workflows.view.served import Served
from earthgptx.workflows.view.store_files import BadRange, piece_of, size_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
PAGE = {each.name: each for each in (files("earthgptx.workflows.view") / "page").iterdir()}
"""Files of the page by name; no other file can be named."""
HEADERS = {
    # No inline script: captions and ids are somebody else's words. The decoder of Blosc chunks is
    # WebAssembly whose glue makes functions of texts of its own, hence `unsafe-eval`.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
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
        Route("/search", _answer(lambda served, asked: served.search(_searched(asked)))),
        Route("/track", _answer(_track)),
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
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(BaseHTTPMiddleware, dispatch=_guarded),
        ],
        exception_handlers=dict.fromkeys(OURS, _failed),
    )
    app.state.results = list(results)
    return app


async def _guarded(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuses what another site's page asks for, and says how answers may be used."""
    if request.headers.get("sec-fetch-site") == "cross-site" and "/api/" in request.url.path:
        return Response(status_code=403, headers=HEADERS)
    answer = await go_on(request)
    answer.headers.update(HEADERS)
    return answer


def _failed(_: Request, error: Exception) -> Response:
    status = {2: 400, 3: 503}.get(code_of(error), 500)
    return JSONResponse({"error": str(error)}, status)


def _served(request: Request) -> Served:
    results: list[Served] = request.app.state.results
    number: int = request.path_params["number"]
    if number >= len(results):
        raise JobError(f"there is no result {number}")
    return results[number]


def _answer(ask: Callable[[Served, dict[str, str]], Any]) -> Callable[[Request], Response]:
    """Returns a handler that answers with JSON."""
    return lambda request: JSONResponse(ask(_served(request), dict(request.query_params)))


def _picture(ask: Callable[[Served, dict[str, str]], bytes]) -> Callable[[Request], Response]:
    """Returns a handler that answers with a PNG."""
    return lambda request: Response(
        ask(_served(request), dict(request.query_params)),
        media_type="image/png",
        headers={"Cache-Control": "private, max-age=60"},
    )


# What a request asks for; a mistake is a sentence.


def _text(asked: dict[str, str], name: str) -> str:
    if not asked.get(name):
        raise JobError(f"{name} is missing")
    return asked[name]


def _number(name: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise JobError(f"{name} '{text[:40]}' is no number from {least:g} to {most:g}")
    return value


def _bbox(asked: dict[str, str]) -> list[float]:
    bounds = [_number("bbox", edge, -180, 180) for edge in _text(asked, "bbox").split(",")]
    if len(bounds) != 4 or not is_bbox(*bounds):
        raise JobError("bbox is no west,south,east,north in degrees")
    return bounds


def _conditions(asked: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: asked[name] for name in ("label", "text") if asked.get(name)}
    if asked.get("min_score"):
        found["min_score"] = _number("min_score", asked["min_score"], 0, 1)
    return found


def _searched(asked: dict[str, str]) -> dict[str, Any]:
    found = _conditions(asked)
    if asked.get("time"):
        found["time"] = asked["time"]
    if asked.get("bbox"):
        found["within"] = bbox_area(*_bbox(asked))
    return found


def _objects(served: Served, asked: dict[str, str]) -> Any:
    return served.objects(_conditions(asked), _text(asked, "slice"), _bbox(asked))


def _track(served: Served, asked: dict[str, str]) -> Any:
    track = _text(asked, "id")
    if not (track.isascii() and track.isdigit()) or int(track) >= 2**63:
        raise JobError(f"id '{track[:40]}' is no id of a track")
    return served.track(int(track))


def _why(served: Served, asked: dict[str, str]) -> Any:
    lon = _number("lon", _text(asked, "lon"), -180, 180)
    return served.why(lon, _number("lat", _text(asked, "lat"), -90, 90))


def _changes(served: Served, asked: dict[str, str]) -> Any:
    return served.changes(_text(asked, "before"), _text(asked, "after"), _conditions(asked))


def _scene(served: Served, asked: dict[str, str]) -> bytes:
    return served.scene(asked.get("zone", ""), _text(asked, "slice"))


def _crop(served: Served, asked: dict[str, str]) -> bytes:
    return served.crop(_text(asked, "slice"), _bbox(asked))


# Files


def _download(request: Request) -> Response:
    """Answers with what a search finds, all of it, as GeoJSON or GeoParquet."""
    asked = dict(request.query_params)
    found = find_objects([_served(request).result], **_searched(asked))
    kind = "parquet" if asked.get("format") == "parquet" else "geojson"
    named = {"Content-Disposition": f'attachment; filename="objects.{kind}"'}
    if kind == "geojson":
        return StreamingResponse(
            geojson_texts(found), media_type="application/geo+json", headers=named
        )
    with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    write_geoparquet(to_frame(found), path)
    return FileResponse(
        path,
        media_type="application/vnd.apache.parquet",
        headers=named,
        background=BackgroundTask(path.unlink),
    )


def _results(request: Request) -> Response:
    results: list[Served] = request.app.state.results
    return JSONResponse([redacted(served.url) for served in results])


def _store(request: Request) -> Response:
    """Answers with a file of a result's store, or part of it."""
    served, key = _served(request), request.path_params["key"]
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    kind = "application/json" if key.endswith(".json") else "application/octet-stream"
    with storage_errors(served.url):
        root = served.result.root
        if request.method == "HEAD":
            size = size_of(root, key)
            if size is None:
                return Response(status_code=404)
            return Response(headers=headers | {"Content-Length": str(size)}, media_type=kind)
        try:
            piece = piece_of(root, key, request.headers.get("range", ""))
        except BadRange as error:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{error.size}"})
    if piece is None:
        return Response(status_code=404)
    if piece.is_part:
        end = piece.start + len(piece.data) - 1
        headers["Content-Range"] = f"bytes {piece.start}-{end}/{piece.size}"
    return Response(piece.data, 206 if piece.is_part else 200, headers, media_type=kind)


def _page(request: Request) -> Response:
    """Answers with a file of the page."""
    name = request.path_params.get("name", "index.html")
    if name not in PAGE or Path(name).suffix not in TYPES:
        return Response(status_code=404)
    headers = {"Cache-Control": "no-cache"}
    return Response(PAGE[name].read_bytes(), media_type=TYPES[Path(name).suffix], headers=headers)
