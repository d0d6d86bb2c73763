"""Which addresses a job opens, and what of them is ever shown."""

import json
import socket
from pathlib import Path

import pystac
import pytest
import shapely

from earthgptx.catalogs.address import Reach
from earthgptx.catalogs.errors import AddressRefused, CatalogError, NoItems
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.redaction import redact, redact_all, redacted
from earthgptx.catalogs.search import search

API = Reach("https://stac.example.com/v1")
LOCAL = Reach("/data/archive/catalog.json")


@pytest.mark.parametrize(
    ("reach", "address"),
    [
        (API, "https://stac.example.com/v1/search?token=2"),
        (API, "https://stac.example.com/data/a.tif"),
        (Reach("http://stac.example.com/v1"), "https://stac.example.com/a.tif"),
        (Reach("http://127.0.0.1:8080"), "http://127.0.0.1:8080/search"),
        (Reach("s3://mine/catalog.json"), "s3://mine/a.tif"),
        (
            Reach("https://earth-search.aws.element84.com/v1"),
            "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/a.tif",
        ),
        (Reach("https://earth-search.aws.element84.com/v1"), "s3://usgs-landsat/a.tif"),
        (
            Reach("https://planetarycomputer.microsoft.com/api/stac/v1"),
            "https://naipeuwest.blob.core.windows.net/naip/a.tif?sig=secret",
        ),
        (Reach("https://stac.dataspace.copernicus.eu/v1"), "s3://eodata/Sentinel-2/a.jp2"),
        (Reach("https://landsatlook.usgs.gov/stac-server"), "s3://usgs-landsat/a.tif"),
        (Reach(API.catalog, hosts=("*.example.org",)), "https://cdn.example.org:8443/a.tif"),
        (Reach(API.catalog, hosts=("10.0.0.7",)), "http://10.0.0.7:9000/a.tif"),
        (Reach(API.catalog, folders=("/mnt/cogs",)), "/mnt/cogs/2020/a.tif"),
        (LOCAL, "/data/archive/2020/a.tif"),
        (LOCAL, "file:///data/archive/2020/a.tif"),
        (LOCAL, "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif"),
        (LOCAL, "s3://public/a.tif"),
    ],
)
def test_what_a_catalog_vouches_for_is_opened(reach: Reach, address: str) -> None:
    reach.check(address)


@pytest.mark.parametrize(
    ("reach", "address", "why"),
    [
        (API, "/etc/passwd", "remote catalog does not open local files"),
        (API, "file:///etc/passwd", "remote catalog does not open local files"),
        (API, "FILE:///etc/passwd", "remote catalog does not open local files"),
        (API, " file:///etc/passwd", "blanks"),
        (API, "\tfile:///etc/passwd", "blanks"),
        (API, "../../etc/passwd", "remote catalog does not open local files"),
        (API, "GTIFF_DIR:1:/etc/a.tif", "only http"),
        (API, "ftp://stac.example.com/a.tif", "only http"),
        (API, "memory://a", "only http"),
        (API, "simplecache::https://stac.example.com/a", "chained"),
        (API, "/vsicurl/https://stac.example.com/a.tif", "chained and virtual"),
        (API, "https://stac.example.com/%2Fvsizip/a.tif", "chained and virtual"),
        (API, "https://evil.example.org/a.tif", "name evil.example.org under source.access.hosts"),
        (API, "https://stac.example.com@evil.example.org/a", "name evil.example.org"),
        (API, "https://stac.example.com.evil.org/a", "name stac.example.com.evil.org"),
        (API, "http://stac.example.com/v1/search", "lives elsewhere"),
        (API, "http://169.254.169.254/latest/meta-data", "private address"),
        (API, "http://[::1]/a", "chained"),
        (API, "http://localhost:6379/", "private address"),
        (API, "http://metadata.google.internal/", "private address"),
        (LOCAL, "http://10.0.0.1/a.tif", "private address"),
        (LOCAL, "https:evil.org/a.tif", "names no host"),
        (LOCAL, "http://2130706433/a", "private address"),
        (LOCAL, "http://127.1/a", "private address"),
        (LOCAL, "http://%31%32%37.0.0.1:80/a", "percent sign"),
        (LOCAL, "http://0x7f.1/a", "private address"),
        (LOCAL, "http://localhost./a", "private address"),
        (LOCAL, "http://metadata/a", "private address"),
        (LOCAL, "http://[0:0:0:0:0:0:0:1]/a", "private address"),
        (API, "https://169.254.169.254\\@stac.example.com/a", "backslash"),
        (LOCAL, "/data/archive/../other/a.tif", "outside the catalog's folder"),
        (LOCAL, "file:///data/other/a.tif", "outside the catalog's folder"),
        (LOCAL, "file:///data/archive/x?/../../../etc/y.tif", "what of a local path is a query"),
        (LOCAL, "file:///data/archive/%2e%2e/other/a.tif", "outside the catalog's folder"),
        (
            Reach("https://planetarycomputer.microsoft.com/api/stac/v1"),
            "https://blob.core.windows.net.evil.org/a",
            "lives elsewhere",
        ),
    ],
)
def test_what_it_does_not_vouch_for_is_refused(reach: Reach, address: str, why: str) -> None:
    with pytest.raises(AddressRefused, match="is not opened") as refused:
        reach.check(address)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "found", ["10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "64:ff9b::a9fe:a9fe"]
)
def test_a_public_name_that_resolves_to_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    known = {"inside.example.org": found, "outside.example.org": "93.184.216.34"}

    def resolve(name: str, *_: object, **__: object) -> list[object]:
        if name not in known:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, 1, 6, "", (known[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    reach = Reach(f"/data/{found}/catalog.json")
    with pytest.raises(AddressRefused, match=r"resolves to a private address; name it under"):
        reach.check("https://inside.example.org:8443/a.tif")
    reach.check("https://outside.example.org/a.tif")
    reach.check("https://unknown.example.org/a.tif")
    Reach(f"/data/{found}/catalog.json", hosts=("inside.example.org",)).check(
        "https://inside.example.org/a.tif"
    )


def test_a_link_out_of_the_folder_is_followed_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.tif").symlink_to(tmp_path / "secret.tif")
    reach = Reach(str(tmp_path / "archive" / "catalog.json"))
    with pytest.raises(AddressRefused, match="outside the catalog's folder"):
        reach.check(str(tmp_path / "archive" / "a.tif"))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:PASS@host:8443/a;v=PASS/b.tif?sig=PASS#PASS", "https://host:8443/a/b.tif"),
        ("s3://KEY:PASS@bucket/a", "s3://bucket/a"),
        ("https://h/c?bbox=1,2&token=PASS", "https://h/c"),
        ("https://me:p,'PASS@h/c", "https://h/c"),
        ("https://host/a.tif", "https://host/a.tif"),
        ("/data/a?b.tif", "/data/a?b.tif"),
        ("/data/a.tif?sig=PASS", "/data/a.tif"),
        ("C:/data/a.tif", "C:/data/a.tif"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert redacted(address) == shown
    assert redact(f"cannot read {address} (why?)") == f"cannot read {shown} (why?)"
    assert "PASS" not in redact(f"({address})")
    assert redact_all({"a": [address, 1, None]}) == {"a": [shown, 1, None]}


def test_texts_of_libraries_are_redacted() -> None:
    said = "HTTPConnectionPool(host='h'): Max retries exceeded with url: /v1?token=PASS (Caused by"
    assert "PASS" not in redact(said)
    assert "PASS" not in str(CatalogError(f"GET https://me:PASS@h/v1?sig=PASS&x=1: {said}"))
    assert "PASS" not in redact("url: /a?q[]=1&token=PASS")
    assert redact("is the path right? yes") == "is the path right? yes"


def test_a_child_link_of_a_static_catalog_is_not_followed_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"type": "Catalog", "id": "x", "PASS": 1}')
    folder = tmp_path / "archive"
    folder.mkdir()
    document = pystac.Catalog("a", "a").to_dict()
    document["links"] = [{"rel": "child", "href": "../secret.json"}]
    (folder / "catalog.json").write_text(json.dumps(document))
    warned: list[str] = []
    with pytest.raises(NoItems):
        search(
            str(folder / "catalog.json"),
            collections=("made",),
            aoi=shapely.box(0, 0, 1, 1),
            time=parse_interval("../.."),
            warn=warned.append,
        )
    assert "secret.json is not opened" in warned[0]
