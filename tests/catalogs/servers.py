"""STAC APIs that answer by a script, or play a recorded conversation."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pystac
import shapely
import yaml


class Server(HTTPServer):
    """A STAC API whose answers to /search are a script: (status, number of items, whether there is
    a next page).

    Attributes:
        matched: `numberMatched` of every page, or None.
        same_page: whether every page holds the Items of the first one.
        reason: body of an answer that is an error.
        elsewhere: address of the next page; None for this server's.
        junk: replaces the body of an answer to a search.
    """

    def __init__(
        self,
        script: list[tuple[int, int, bool]],
        *,
        classes: tuple[str, ...] = (),
        by: str = "POST",
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.classes, self.by, self.asked = script, classes, by, 0
        self.matched: int | None = None
        self.same_page = False
        self.reason: dict[str, Any] = {}
        self.elsewhere: str | None = None
        self.junk: Any = None
        self.tokens: list[str | None] = []
        self.bodies: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/search":
            self._search(dict(parse_qsl(query)))
            return
        self._send(200, landing(self.server.url, self.server.by, self.server.classes))

    def do_POST(self) -> None:
        self._search(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _search(self, body: dict[str, Any]) -> None:
        self.server.bodies.append(body)
        self.server.tokens.append(self.headers.get("X-Api-Key"))
        status, count, more = self.server.script[
            min(self.server.asked, len(self.server.script) - 1)
        ]
        page, self.server.asked = self.server.asked, self.server.asked + 1
        items = [
            pystac.Item(
                f"i-{0 if self.server.same_page else page}-{n}",
                shapely.geometry.mapping(shapely.box(0, 0, 1, 1)),
                [0, 0, 1, 1],
                pystac.utils.str_to_datetime("2026-01-01T00:00:00Z"),
                {"eo:cloud_cover": 50.0 * n},
                collection="made",
            ).to_dict()
            for n in range(count)
        ]
        links = [
            {
                "rel": "next",
                "href": self.server.elsewhere or f"{self.server.url}/search",
                "method": "POST",
                "body": {"token": str(page + 2)},
                "merge": True,
            }
        ]
        found: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": items,
            "links": links if more else [],
        }
        if self.server.matched is not None:
            found["numberMatched"] = self.server.matched
        if self.server.junk is not None:
            found = self.server.junk
        self._send(status, found if status == 200 else self.server.reason)


class Cassette(HTTPServer):
    """Plays a recorded conversation of pystac-client with a public API, its addresses turned to
    here.
    """

    def __init__(self, path: Path, host: str) -> None:
        super().__init__(("127.0.0.1", 0), Player)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.turns = [
            (
                turn["request"]["method"],
                turn["request"]["uri"].removeprefix(host),
                _body(turn).replace(host, self.url),
            )
            for turn in yaml.safe_load(path.read_text())["interactions"]
        ]
        # The recordings of a search lack the landing page that it begins with.
        self.turns.append(("GET", "/api/stac/v1", json.dumps(landing(f"{self.url}/api/stac/v1"))))
        threading.Thread(target=self.serve_forever, daemon=True).start()


def landing(url: str, by: str = "POST", classes: tuple[str, ...] = ()) -> dict[str, Any]:
    """A landing page of a STAC API."""
    core = "https://api.stacspec.org/v1.0.0"
    return {
        "type": "Catalog",
        "id": "fake",
        "stac_version": "1.0.0",
        "description": "x",
        "conformsTo": [f"{core}/core", f"{core}/item-search", *classes],
        "links": [
            {"rel": "self", "href": url},
            {
                "rel": "search",
                "href": f"{url}/search",
                "method": by,
                "type": "application/geo+json",
            },
        ],
    }


def _body(turn: dict[str, Any]) -> str:
    body = turn["response"]["body"]["string"]
    return body if isinstance(body, str) else body.decode()


class Player(BaseHTTPRequestHandler):
    server: Cassette

    def log_message(self, *_: object) -> None:
        pass

    def _play(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        for number, (method, path, body) in enumerate(self.server.turns):
            if method == self.command and path.rstrip("/") == self.path.rstrip("/"):
                if method == "POST":
                    self.server.turns.pop(number)
                data = body.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
        self.send_error(404)

    do_GET = do_POST = _play
