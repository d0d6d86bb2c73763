"""Imagery that wants a signature, a header or other settings, from servers that ask for them."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from earthgptx import JobSpec, plan
from earthgptx.catalogs import signing
from earthgptx.catalogs.access import Access, Opening
from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.stac_io import FsspecIO
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import Scene, read_scene
from tests.archive import Archive
from tests.catalogs.recorded import recorded_item
from tests.chaos.servers import FileServer

Answer = tuple[int, dict[str, str], bytes]


def whole(made: Plan) -> Scene:
    [grid] = made.grids.values()
    return read_scene(grid, grid.window, made.scene_items(grid.name, 0, grid.window))


class Storage(FileServer):
    """Blob storage behind a proxy, and the server of its tokens, which are valid for seconds."""

    valid_s = 3.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tokens: dict[str, float] = {}

    def respond(self, request: BaseHTTPRequestHandler) -> Answer:
        path, _, query = request.path.partition("?")
        if path == "/token/account/container":
            token = f"sig=T{len(self.tokens)}"
            self.tokens[token] = time.time() + self.valid_s
            expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.tokens[token]))
            return 200, {}, json.dumps({"token": token, "msft:expiry": expiry}).encode()
        if path.startswith("/token/"):
            return 404, {}, b"no such container"
        if self.tokens.get(query, 0) < time.time():
            return 403, {}, b"AuthenticationFailed"
        request.path = path.removeprefix("http://account.blob.core.windows.net/container")
        return super().respond(request)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(signing, "_tokens", {})
    monkeypatch.setattr(signing, "RENEW_S", 0.5)
    with Storage(tmp_path / "served").running() as running:
        assert isinstance(running, Storage)
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{running.url}/token")
        monkeypatch.setenv("GDAL_HTTP_PROXY", running.url)
        yield running


def job_over(folder: Path, href: str, **access: Any) -> JobSpec:
    """A job over one Item whose file is in `folder / served`."""
    archive = Archive(folder / "served")
    archive.add("a", np.full((300, 300), 50, np.uint8), nodata=None)
    item = archive.catalog.get_item("a")
    assert item is not None
    item.assets["image"].href = href
    archive.save()
    return archive.job(folder / "a.zarr", source={"access": access})


BLOB = "http://account.blob.core.windows.net/container/a.tif"


def test_an_address_is_signed_when_it_is_read_and_again_when_the_token_expires(
    storage: Storage, tmp_path: Path
) -> None:
    made = plan(job_over(tmp_path, BLOB, sign="planetary-computer"))
    assert whole(made).valid.all()
    assert whole(made).valid.all()
    assert len(storage.tokens) == 1, "a token is kept as long as it is valid"
    time.sleep(storage.valid_s)
    assert whole(made).valid.all()
    assert len(storage.tokens) == 2
    assert "sig=" not in repr(made.opening)
    assert made.items[0].assets["image"].href == BLOB


def test_an_address_that_is_not_signed_says_what_to_set(storage: Storage, tmp_path: Path) -> None:
    scene = whole(plan(job_over(tmp_path, BLOB)))
    assert scene.broken.all()
    assert "403" in scene.errors[0]
    assert "set source.access.sign" in scene.errors[0]


def test_tokens_that_are_not_given_are_an_outage_of_the_imagery(
    storage: Storage, tmp_path: Path
) -> None:
    storage.fault = lambda _method, path: "503" if "/token/" in path else ""
    scene = whole(plan(job_over(tmp_path, BLOB, sign="planetary-computer")))
    assert scene.unreachable
    assert "gives no token for account/container" in scene.errors[0]


def test_containers_of_others_and_signed_addresses_stay_as_they_are(storage: Storage) -> None:
    for address in (
        "http://other.blob.core.windows.net/container/a.tif",
        f"{BLOB}?sig=mine",
        "https://example.com/a.tif",
        "s3://bucket/a.tif",
    ):
        assert signing.signed(address) == address


class Guarded(FileServer):
    """Serves only who sends the right header; notes what others send."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[str | None] = []

    def respond(self, request: BaseHTTPRequestHandler) -> Answer:
        self.seen.append(request.headers.get("Authorization"))
        if self.seen[-1] != "Bearer SECRET":
            return 401, {}, b"who are you"
        return super().respond(request)


def test_a_header_comes_from_the_environment_and_goes_only_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "Bearer SECRET")
    (tmp_path / "served").mkdir()
    with Guarded(tmp_path / "served").running() as guarded:
        host = guarded.url.removeprefix("http://")
        href = f"{guarded.url}/a.tif"
        headers = {"Authorization": "MY_TOKEN"}
        made = plan(job_over(tmp_path, href, hosts=[host], headers=headers))
        assert whole(made).valid.all()
        assert "SECRET" not in repr(made.opening)
        assert "SECRET" not in made.spec.model_dump_json()
        scene = whole(plan(job_over(tmp_path, href, hosts=[host])))
        assert "source.access.headers" in scene.errors[0]
        elsewhere = Opening(made.opening.reach, made.opening.access, made.opening.headers)
        assert "GDAL_HTTP_HEADERS" not in elsewhere.gdal("https://example.com/a.tif")


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(CatalogError, match="the environment has no NOT_THERE; set it"):
        Opening.of("catalog.json", Access(headers={"Authorization": "NOT_THERE"}))


@pytest.mark.parametrize(
    ("catalog", "access", "expected"),
    [
        ("c.json", {}, {}),
        ("c.json", {"requester_pays": True}, {"AWS_REQUEST_PAYER": "requester"}),
        ("c.json", {"anonymous": True}, {"AWS_NO_SIGN_REQUEST": "YES"}),
        ("c.json", {"profile": "me"}, {"AWS_PROFILE": "me"}),
        (
            "c.json",
            {"endpoint": "http://10.0.0.1:9000"},
            {
                "AWS_S3_ENDPOINT": "10.0.0.1:9000",
                "AWS_HTTPS": "NO",
                "AWS_VIRTUAL_HOSTING": "FALSE",
            },
        ),
        (
            "https://stac.dataspace.copernicus.eu/v1",
            {},
            {
                "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu",
                "AWS_HTTPS": "YES",
                "AWS_VIRTUAL_HOSTING": "FALSE",
            },
        ),
        ("https://explorer.dea.ga.gov.au/stac", {}, {"AWS_NO_SIGN_REQUEST": "YES"}),
    ],
)
def test_settings_of_object_stores(
    monkeypatch: pytest.MonkeyPatch, catalog: str, access: dict[str, Any], expected: Any
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert Opening.of(catalog, Access(**access)).gdal("s3://bucket/a.tif") == expected


def test_a_catalog_has_its_usual_way_unless_the_job_says_another() -> None:
    api = "https://planetarycomputer.microsoft.com/api/stac/v1"
    assert Opening.of(api, Access()).access.sign == "planetary-computer"
    assert Opening.of(api, Access(sign="none")).access.sign == "none"


def test_the_file_behind_a_login_is_read_from_s3(data: Path) -> None:
    item = recorded_item(data, "usgs landsat-c2l2-sr")
    opening = Opening.of("https://landsatlook.usgs.gov/stac-server", Access())
    address = opening.address(item.assets["red"])
    assert address.startswith("s3://usgs-landsat/collection02/")
    opening.reach.check(address)
    assert "requester_pays" in opening.hint(address)
    assert opening.address(pystac.Asset("https://landsatlook.usgs.gov/a.tif")).startswith("https")


def test_a_document_on_s3_that_is_refused_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a calibration annotation in a bucket whose reader pays."""

    def refused(*_: object, **options: object) -> None:
        assert options["requester_pays"] is True
        assert options["endpoint_url"] == "https://s3.example.org"
        raise PermissionError("Access Denied")

    monkeypatch.setattr("earthgptx.catalogs.stac_io.fsspec.open", refused)
    access = Access(requester_pays=True, endpoint="s3.example.org", hosts=("bucket",))
    opening = Opening.of("https://example.org", access)
    with pytest.raises(CatalogError, match="is refused.*AWS_ACCESS_KEY_ID") as at:
        FsspecIO(opening).read_text_from_href("s3://bucket/a.xml")
    assert not isinstance(at.value, CatalogDown), "another try would not help"
