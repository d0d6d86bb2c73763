import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely

from earthgptx.catalogs.access import Access, Opening
from earthgptx.catalogs.errors import AddressRefused, CatalogDown, CatalogError, NoItems
from earthgptx.catalogs.geoparquet import frozen, thaw
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.redaction import redacted
from earthgptx.catalogs.search import search
from earthgptx.catalogs.stac_io import api_io
from tests.archive import Archive
from tests.catalogs.servers import Cassette, Server

WORLD = shapely.box(-180, -90, 180, 90)
ALL = parse_interval("../..")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(tmp_path_factory.mktemp("catalog"))
    for number in range(12):
        archive.add(
            f"item-{number:02d}",
            np.ones((8, 8), np.uint8),
            col=100 * number,
            when=f"2026-{number + 1:02d}-03T10:00:00Z",
            properties={"eo:cloud_cover": 10.0 * number},
        )
    archive.add("bare", np.ones((8, 8), np.uint8), row=900, when="2026-01-09T10:00:00Z")
    archive.save()
    return archive


@pytest.fixture(scope="module")
def parquet(made: Archive) -> str:
    url = str(made.folder / "items.parquet")
    items = search(str(made.folder / "catalog.json"), collections=("made",), aoi=WORLD, time=ALL)
    Path(url).write_bytes(frozen(items))
    return url


@pytest.fixture(scope="module")
def api(made: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real STAC API server, rustac's."""
    file = tmp_path_factory.mktemp("api") / "items.json"
    items = thaw_static(made)
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("rustac", path=str(Path(sys.executable).parent)) or "rustac"
    server = subprocess.Popen(
        [program, "serve", "--create-collections", "--addr", f"127.0.0.1:{port}", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


def thaw_static(made: Archive) -> list[dict[str, Any]]:
    found = search(str(made.folder / "catalog.json"), collections=("made",), aoi=WORLD, time=ALL)
    return [
        item.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []}
        for item in found
    ]


@pytest.fixture(params=["static", "parquet", "api"])
def catalog(request: pytest.FixtureRequest, made: Archive) -> str:
    return {"static": lambda: str(made.folder / "catalog.json")}.get(
        request.param, lambda: request.getfixturevalue(request.param)
    )()


def ids(found: list[pystac.Item]) -> list[str]:
    return [item.id for item in found]


def test_every_kind_of_catalog_gives_the_same_items(catalog: str, made: Archive) -> None:
    some = {"collections": ("made",), "aoi": WORLD, "time": parse_interval("2026-03/2026-08")}
    assert ids(search(catalog, **some)) == [f"item-{n:02d}" for n in range(2, 8)]
    cloudless = search(catalog, filter="eo:cloud_cover < 45 AND eo:cloud_cover >= 20", **some)
    assert ids(cloudless) == ["item-02", "item-03", "item-04"]
    west = search(
        catalog, collections=("made",), aoi=shapely.box(2.9, 42, 3.02, 43), time=ALL, filter=None
    )
    assert ids(west) == ["item-00", "bare", "item-01"]
    assert Path(redacted(cloudless[0].assets["image"].href)).is_file()


def test_an_item_without_the_property_does_not_pass_the_filter(catalog: str) -> None:
    found = search(
        catalog,
        collections=("made",),
        aoi=WORLD,
        time=parse_interval("2026-01"),
        filter="eo:cloud_cover < 60",
    )
    assert ids(found) == ["item-00"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"time": parse_interval("2019")}, "from 2026-01-03 to 2026-12-03"),
        ({"aoi": shapely.box(20, 0, 21, 1)}, "source.aoi lies outside all 13 items .* cover lon 3"),
        ({"collections": ("other",)}, "no collection other; it has made"),
        ({"filter": "eo:cloud_cover < 0"}, "source.filter leaves none of the 13 items"),
    ],
)
def test_nothing_found_says_what_to_widen(
    made: Archive, change: dict[str, Any], sentence: str
) -> None:
    asked = {"collections": ("made",), "aoi": WORLD, "time": ALL} | change
    with pytest.raises(NoItems, match=sentence):
        search(str(made.folder / "catalog.json"), **asked)


def test_freezing_keeps_what_a_plan_needs_and_no_signature(tmp_path: Path, made: Archive) -> None:
    before = search(str(made.folder / "catalog.json"), collections=("made",), aoi=WORLD, time=ALL)
    for item in before:
        item.assets["image"].href += "?sig=secret"
    (tmp_path / "items.parquet").write_bytes(frozen(before))
    assert b"secret" not in (tmp_path / "items.parquet").read_bytes()
    after = thaw(str(tmp_path / "items.parquet"))
    for one, other in zip(before, after, strict=True):
        assert one.geometry is not None
        assert other.geometry is not None
        assert (one.id, one.datetime, one.geometry["type"]) == (
            other.id,
            other.datetime,
            other.geometry["type"],
        )
        assert one.assets["image"].extra_fields == other.assets["image"].extra_fields
        assert one.properties["proj:code"] == other.properties["proj:code"]


@pytest.mark.parametrize("content", ["not json", "[]", '{"type": "Feature"}', "{}"])
def test_what_is_no_catalog_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(content)
    with pytest.raises(CatalogError, match=r"catalog\.json"):
        search(str(path), collections=("made",), aoi=WORLD, time=ALL)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(CatalogError, match="cannot be read as stac-geoparquet"):
        search(str(tmp_path / "items.parquet"), collections=("made",), aoi=WORLD, time=ALL)


@pytest.mark.parametrize("text", ["yesterday", "2026-13", "2026-03/2026-01"])
def test_a_time_that_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(CatalogError, match="time"):
        parse_interval(text)


def test_an_api_that_is_down_is_named() -> None:
    with pytest.raises(CatalogDown, match=r"http://127\.0\.0\.1:9.*(check the address|try again)"):
        search("http://127.0.0.1:9", collections=("made",), aoi=WORLD, time=ALL)


def test_a_next_page_elsewhere_is_not_asked_for(quick: None) -> None:
    other = Server([(200, 1, False)])
    server = Server([(200, 2, True)])
    server.elsewhere = f"{other.url}/search"
    with pytest.raises(AddressRefused, match="private address"):
        ask(server)
    assert other.asked == 0
    other.shutdown()


def test_an_api_gets_the_headers_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "SECRET")
    server = Server([(200, 2, True), (200, 1, False)])
    opening = Opening.of(server.url, Access(headers={"X-Api-Key": "MY_KEY"}))
    assert len(ask(server, opening=opening)) == 3
    assert server.tokens == ["SECRET", "SECRET"]


@pytest.mark.parametrize(
    "junk",
    [
        [],
        "text",
        {"features": None},
        {"features": [None, 5, {"id": "x"}], "links": None},
        {"features": [{"id": "a"}], "links": [{"rel": "next"}]},
    ],
)
def test_an_answer_that_is_no_page_of_items_ends_in_words(quick: None, junk: Any) -> None:
    server = Server([(200, 0, False)])
    server.junk = junk
    with pytest.raises(CatalogError):
        ask(server)


class Endless(BaseHTTPRequestHandler):
    """Sends a document that does not end: fast, or a byte now and then."""

    pause_s = 0.0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response({"/moved": 302, "/busy": 503}.get(self.path, 200))
        self.send_header("Content-Type", "application/json")
        if self.path == "/moved":
            self.send_header("Location", "/fast")
        if self.path == "/short":
            self.send_header("Content-Length", "1000")
        self.end_headers()
        with suppress(OSError):
            if self.path == "/short":
                self.wfile.write(b'{"type": ')
                return
            while True:
                self.wfile.write(b" " if self.path == "/slow" else b" " * 10_000)
                time.sleep(0.05 if self.path == "/slow" else 0)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/fast", "larger than"),
        ("/slow", "takes more than"),
        ("/short", "cannot read"),
        ("/moved", "larger than"),
        ("/busy", "larger than"),
    ],
)
def test_a_document_is_bounded_in_bytes_and_time(
    monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.setattr("earthgptx.catalogs.stac_io.MOST_BYTES", 2**20)
    monkeypatch.setattr("earthgptx.catalogs.stac_io.MOST_SECONDS", 1.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}{path}"
    try:
        with pytest.raises(CatalogError, match=reason):
            search(url, collections=("made",), aoi=WORLD, time=ALL)
        with pytest.raises(Exception, match=reason if path != "/short" else "."):
            api_io(Opening.of(url, Access())).request(url)
    finally:
        server.shutdown()


def test_one_odd_item_of_a_static_catalog_is_left_out_and_said(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for name in ("good", "timeless", "broken", "missing", "endless"):
        archive.add(name, np.ones((8, 8), np.uint8))
    archive.save()
    for name, change in (
        ("timeless", {"datetime": None}),
        ("endless", {"datetime": None, "start_datetime": "2026-01-01", "end_datetime": "never"}),
    ):
        path = tmp_path / name / f"{name}.json"
        document = json.loads(path.read_text())
        document["properties"] |= change
        path.write_text(json.dumps(document))
    (tmp_path / "broken" / "broken.json").write_text("{")
    (tmp_path / "missing" / "missing.json").unlink()
    catalog = json.loads((tmp_path / "catalog.json").read_text())
    catalog["links"].append({"rel": "child", "href": str(tmp_path / "catalog.json")})
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    warned: list[str] = []
    found = search(
        str(tmp_path / "catalog.json"),
        collections=("made",),
        aoi=WORLD,
        time=ALL,
        warn=warned.append,
    )
    assert ids(found) == ["good"]
    assert len(warned) == 4
    assert all("left out" in sentence for sentence in warned)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr("earthgptx.catalogs.api_search.PAUSE_S", 0.01)


def ask(server: Server, **more: Any) -> list[str]:
    try:
        return ids(search(server.url, collections=("made",), aoi=WORLD, time=ALL, **more))
    finally:
        server.shutdown()


def test_a_busy_server_is_asked_again() -> None:
    server = Server([(429, 0, False), (503, 0, False), (200, 2, False)])
    assert ask(server) == ["i-2-0", "i-2-1"]
    assert server.asked == 3


def test_pages_are_read_to_the_end_and_duplicates_removed() -> None:
    server = Server([(200, 2, True), (200, 1, False)])
    assert ask(server) == ["i-0-0", "i-0-1", "i-1-0"]
    assert server.bodies[1]["token"] == "2"


def test_a_second_page_that_fails_gives_no_partial_answer(quick: None) -> None:
    with pytest.raises(CatalogDown, match="did not answer to the end.*nothing was kept"):
        ask(Server([(200, 2, True), (500, 0, False)]))


def test_a_page_that_fails_is_asked_for_again_and_for_less(quick: None) -> None:
    """Not the pages before it; a server that is overloaded gets a smaller request."""
    server = Server([(200, 2, True), *[(502, 0, False)] * 4, (200, 1, False)])
    assert ask(server) == ["i-0-0", "i-0-1", "i-5-0"]
    limits = [body["limit"] for body in server.bodies]
    assert limits[0] == limits[1] > limits[-1]
    assert all(body.get("token") == "2" for body in server.bodies[1:])


def test_a_page_that_is_too_large_is_asked_for_again_and_for_less(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earthgptx.catalogs.stac_io.MOST_BYTES", 100_000)
    server = Server([(200, 400, True), (200, 2, False)])
    assert ask(server) == ["i-1-0", "i-1-1"]
    limits = [body["limit"] for body in server.bodies]
    assert limits[1] == limits[0] // 2


@pytest.mark.parametrize(
    ("status", "reason", "sentence"),
    [
        (400, {"code": "BadRequest", "description": "no queryable named cloud"}, "queryable named"),
        (400, {"detail": [{"msg": "bad datetime"}]}, "bad datetime.*check source.collections"),
        (401, {"detail": "Not authenticated"}, "Not authenticated.*source.access"),
    ],
)
def test_a_search_that_is_refused_is_a_mistake_with_the_servers_reason(
    quick: None, status: int, reason: dict[str, Any], sentence: str
) -> None:
    server = Server([(status, 0, False)])
    server.reason = reason
    with pytest.raises(
        CatalogError, match=rf"refuses the search \(HTTP {status}: .*{sentence}"
    ) as at:
        ask(server)
    assert not isinstance(at.value, CatalogDown), "another try would not help"
    assert server.asked == 1


FILTERS = "https://api.stacspec.org/v1.0.0-rc.2/item-search#filter"
CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf/cql2-"
AS_JSON = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 10.0]}


@pytest.mark.parametrize(
    ("classes", "by", "sent", "language"),
    [
        ((), "POST", None, None),
        ((FILTERS,), "POST", AS_JSON, "cql2-json"),
        ((FILTERS, f"{CQL2}json", f"{CQL2}text"), "POST", AS_JSON, "cql2-json"),
        ((FILTERS, f"{CQL2}text"), "GET", "eo:cloud_cover < 10", "cql2-text"),
        ((FILTERS, f"{CQL2}text"), "POST", None, None),
        ((FILTERS, f"{CQL2}json"), "GET", None, None),
    ],
)
def test_a_filter_is_sent_as_a_server_understands_it_and_always_applied_here(
    classes: tuple[str, ...], by: str, sent: Any, language: str | None
) -> None:
    server = Server([(200, 2, False)], classes=classes, by=by)
    assert ask(server, filter="eo:cloud_cover < 10") == ["i-0-0"]
    assert server.bodies[0].get("filter") == sent
    assert server.bodies[0].get("filter-lang") == language


def test_pages_that_repeat_or_drop_items_are_said() -> None:
    warned: list[str] = []
    server = Server([(200, 2, True), (200, 2, False)])
    server.same_page, server.matched = True, 4
    assert ask(server, warn=warned.append) == ["i-0-0", "i-0-1"]
    assert "gave 2 items twice" in warned[0]
    assert "counts 4 items and gave 2" in warned[1]
    server = Server([(200, 2, True), (200, 2, False)])
    server.matched = 4
    assert len(ask(server, warn=warned.append)) == 4
    assert len(warned) == 2


RECORDED = [
    "landsat-c2-l2-pc.json",
    "naip-pc.json",
    "sentinel-1-rtc-pc.json",
    "sentinel-2-l2a-pc.json",
    "odc-stac/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
    "odc-stac/S2A_28QCH_20200714_0_L2A.json",
]


@pytest.mark.parametrize("name", RECORDED)
def test_real_answers_of_public_apis_survive_freezing(
    data: Path, tmp_path: Path, name: str
) -> None:
    document = json.loads((data / "stac-recordings" / "items" / name).read_text())
    features = document if isinstance(document, list) else document.get("features", [document])
    items = [pystac.Item.from_dict(feature) for feature in features]
    (tmp_path / "items.parquet").write_bytes(frozen(items))
    after = search(
        str(tmp_path / "items.parquet"),
        collections=tuple({i.collection_id or "" for i in items}),
        aoi=WORLD,
        time=ALL,
    )
    assert sorted(ids(after)) == sorted(set(ids(items)))
    assert all("?" not in asset.href for item in after for asset in item.assets.values())


def test_a_real_stac_geoparquet_is_read(data: Path) -> None:
    found = search(
        str(data / "stac-recordings/items/naip.parquet"), collections=("naip",), aoi=WORLD, time=ALL
    )
    assert found
    assert all(item.assets["image"].href.startswith("https://") for item in found)


def test_a_recorded_search_of_a_public_api_is_paged_through(data: Path) -> None:
    path = (
        data / "stac-recordings/cassettes/test_item_search__TestItemSearch.test_result_paging.yaml"
    )
    host = "https://planetarycomputer.microsoft.com"
    server = Cassette(path, host)
    pages = [json.loads(body) for method, _, body in server.turns if method == "POST"]
    recorded = sorted(feature["id"] for page in pages for feature in page["features"])
    last = pages[-1]
    assert len(pages) > 1
    if any(link["rel"] == "next" for link in last["links"]):
        # The recording was stopped in the middle: what lies after it is a page that fails.
        with pytest.raises(CatalogError, match="HTTP 404"):
            search(f"{server.url}/api/stac/v1", collections=("naip",), aoi=WORLD, time=ALL)
    else:
        found = search(f"{server.url}/api/stac/v1", collections=("naip",), aoi=WORLD, time=ALL)
        assert sorted(ids(found)) == recorded
    server.shutdown()
