"""A stac-geoparquet file behind a server that is away, or that has no such file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.geoparquet import thaw


@pytest.fixture
def server() -> Iterator[str]:
    """Answers `/404.parquet` with 404, and so on."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:4]))
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


@pytest.mark.parametrize("status", ["429", "500", "503"])
def test_a_server_that_cannot_answer_now_is_an_outage(server: str, status: str) -> None:
    with pytest.raises(CatalogDown, match="its server does not answer"):
        thaw(f"{server}/{status}.parquet")


def test_a_server_that_is_away_is_an_outage() -> None:
    with pytest.raises(CatalogDown, match="its server does not answer"):
        thaw("http://127.0.0.1:1/items.parquet")


def test_a_file_that_is_not_there_is_a_mistake(server: str) -> None:
    for address in (f"{server}/404.parquet", "nothing.parquet"):
        with pytest.raises(CatalogError, match="does not exist; check the address") as raised:
            thaw(address)
        assert not isinstance(raised.value, CatalogDown)
