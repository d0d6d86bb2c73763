"""Redirects of imagery are followed by the job's rules, and not by GDAL's."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgptx import plan
from earthgptx.catalogs import redirects
from earthgptx.catalogs.access import Access, Opening
from earthgptx.catalogs.errors import AddressRefused, CatalogDown, CatalogError
from earthgptx.catalogs.redirects import destination
from earthgptx.pipeline.reading.scene import read_scene
from tests.archive import Archive
from tests.chaos.servers import FileServer

Answer = tuple[int, dict[str, str], bytes]
CATALOG = "https://catalog.example.org"


class Redirecting(FileServer):
    """Sends who asks for `/to/ADDRESS` there; notes the headers that come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[tuple[str, str | None]] = []
        self.busy: list[dict[str, str]] = []
        self.code = 302

    def respond(self, request: BaseHTTPRequestHandler) -> Answer:
        self.seen.append((request.path, request.headers.get("X-Key")))
        if self.busy:
            return 429, self.busy.pop(), b"later"
        if request.path.startswith("/to/"):
            return self.code, {"Location": request.path.removeprefix("/to/")}, b""
        if request.path == "/round":
            return 307, {"Location": "/round"}, b""
        return super().respond(request)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redirecting]:
    redirects._kept.clear()
    with Redirecting(tmp_path / "served").running() as running:
        assert isinstance(running, Redirecting)
        yield running


def opening(*hosts: str) -> Opening:
    return Opening.of(CATALOG, Access(hosts=hosts))


@pytest.mark.parametrize("code", [300, 301, 302, 303, 304, 305, 306, 307, 308, 399])
def test_a_redirect_leads_only_where_the_job_may_go(
    server: Redirecting, tmp_path: Path, code: int
) -> None:
    """Whatever its code: GDAL would follow each of them."""
    server.code = code
    with Redirecting(tmp_path / "other").running() as other:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.tif").write_bytes(b"x" * 100)
        host, further = server.url[7:], other.url[7:]
        address = f"{server.url}/to/{other.url}/a.tif"
        with pytest.raises(AddressRefused, match=f"{other.url}/a.tif is not opened"):
            destination(address, opening(host))
        assert not other.requests, "the other host is not even asked"
        assert destination(address, opening(host, further)) == f"{other.url}/a.tif"


def test_what_does_not_redirect_is_asked_once(server: Redirecting, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.tif").write_bytes(b"x" * 100)
    for _ in range(3):
        assert destination(f"{server.url}/a.tif", opening("127.0.0.1")) == f"{server.url}/a.tif"
    assert server.requests == 1


def test_redirects_are_counted(server: Redirecting) -> None:
    with pytest.raises(CatalogError, match="more than 5 times"):
        destination(f"{server.url}/round", opening("127.0.0.1"))


def test_a_busy_server_is_asked_again_when_it_says(server: Redirecting) -> None:
    server.busy = [{"Retry-After": "1"}]
    started = time.monotonic()
    assert destination(f"{server.url}/to//b", opening("127.0.0.1")).endswith("/b")
    assert time.monotonic() - started >= 1


def test_a_server_that_is_away_is_an_outage_and_shows_no_secret(
    server: Redirecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "SECRET")
    how = Opening.of(CATALOG, Access(hosts=("127.0.0.1",), headers={"X-Key": "MY_KEY"}))
    server.fault = lambda _method, _path: "reset"
    for path in ("a.tif?sig=SECRET", "x(1)?sig=SECRET", "a;token=SECRET", "a?SECRET"):
        with pytest.raises(CatalogDown, match="does not answer") as down:
            destination(f"{server.url}/{path}", how)
        assert "SECRET" not in str(down.value)


def test_a_server_that_answers_for_ever_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a header now and then: each of them is in time."""
    monkeypatch.setattr(redirects, "MOST_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            taken, _ = listener.accept()
            with suppress(OSError):
                taken.sendall(b"HTTP/1.1 200 OK\r\n")
                for _ in range(100):
                    taken.sendall(b"x")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(CatalogDown, match="takes more than 1 s"):
            destination(f"http://127.0.0.1:{listener.getsockname()[1]}/a", opening("127.0.0.1"))
        assert time.monotonic() - started < 5


def test_a_destination_is_not_remembered_as_it_may_be_signed_for_a_minute(
    server: Redirecting,
) -> None:
    for _ in range(2):
        assert destination(f"{server.url}/to//b", opening("127.0.0.1")).endswith("/b")
    assert [path for path, _ in server.seen].count("/to//b") == 2


@pytest.mark.parametrize("location", ["http://[", "http://a..b/c", "http://127.0.0.1:99999/"])
def test_what_is_no_address_is_refused(server: Redirecting, location: str) -> None:
    with pytest.raises(AddressRefused):
        destination(f"{server.url}/to/{location}", opening("127.0.0.1", "*"))


def test_a_pause_of_no_number_is_the_usual_one(server: Redirecting) -> None:
    server.busy = [{"Retry-After": "nan"}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}]
    assert destination(f"{server.url}/to//b", opening("127.0.0.1")).endswith("/b")


@pytest.mark.parametrize("value", ["a\nX-Other: b", "pässword"])
def test_a_value_that_no_header_can_have_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(CatalogError, match="X-Key is no value of a header") as refused:
        Opening.of(CATALOG, Access(headers={"X-Key": "MY_KEY"}))
    assert value not in str(refused.value)
    monkeypatch.setenv("MY_KEY", " SECRET\n")
    assert Opening.of(CATALOG, Access(headers={"X-Key": "MY_KEY"})).headers == {"X-Key": "SECRET"}


def test_headers_of_the_job_stay_with_the_hosts_that_it_names(
    server: Redirecting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole way of a scene: the redirected file is read, without the header."""
    monkeypatch.setenv("MY_KEY", "SECRET")
    archive = Archive(tmp_path / "other")
    archive.add("a", np.full((40, 40), 50, np.uint8), nodata=None)
    with Redirecting(tmp_path / "other").running() as other:
        item = archive.catalog.get_item("a")
        assert item
        item.assets["image"].href = f"{server.url}/to/{other.url}/a.tif"
        archive.save()
        access: dict[str, Any] = {"hosts": [server.url[7:]], "headers": {"X-Key": "MY_KEY"}}
        made = plan(archive.job(tmp_path / "a.zarr", source={"access": access}))
        [grid] = made.grids.values()

        def scene() -> Any:
            return read_scene(grid, grid.window, made.scene_items(grid.name, 0, grid.window))

        refused = scene()
        assert f"{other.url}/a.tif is not opened" in refused.errors[0]
        assert not refused.unreachable
        assert {key for _, key in server.seen} == {"SECRET"}
        assert isinstance(other, Redirecting)
        assert not other.seen
