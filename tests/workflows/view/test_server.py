"""The map's server: what it gives, and to whom."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from pathlib import Path

import geopandas as gpd
import matplotlib.image
import pytest
import requests

from earthgptx.pipeline.results.result import Result
from earthgptx.workflows.view import served as served_module
from tests.browsers import serving
from tests.workflows.test_cli import earthgptx


def test_files_of_the_store_come_whole_or_in_pieces(address: str, result: Result) -> None:
    shard = next(Path(result.url).glob("raster/label/c/0/0/0"))
    data, url = shard.read_bytes(), f"{address}/store/0/{shard.relative_to(result.url)}"
    assert requests.get(url).content == data
    for asked, piece in (
        ("bytes=0-9", data[:10]),
        ("bytes=-12", data[-12:]),
        ("bytes=100-", data[100:]),
        (f"bytes=5-{len(data) + 99}", data[5:]),
    ):
        answer = requests.get(url, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, piece), asked
    assert answer.headers["Content-Range"] == f"bytes 5-{len(data) - 1}/{len(data)}"
    for asked in ("bytes=9-5", "bytes=-", "lines=1-2", "bytes=0-1,5-6", f"bytes={'9' * 40}-"):
        answer = requests.get(url, headers={"Range": asked})
        assert (answer.status_code, len(answer.content)) == (200, len(data)), "no range at all"
    for asked in (f"bytes={len(data)}-", "bytes=-0"):
        answer = requests.get(url, headers={"Range": asked})
        assert answer.status_code == 416
        assert answer.headers["Content-Range"] == f"bytes */{len(data)}"
    told = requests.head(url, headers={"Range": "bytes=0-9"})
    assert (told.status_code, told.headers["Content-Length"]) == (200, str(len(data)))


@pytest.mark.parametrize(
    "path",
    [
        "store/0/../out.items.parquet",
        "store/0/%2e%2e/out.items.parquet",
        "store/0/raster/%2e%2e/%2e%2e/out.items.parquet",
        "store/0//etc/passwd",
        "store/0/%2Fetc%2Fpasswd",
        "store/0/nothing",
        "store/0/" + "a" * 300 + "/zarr.json",
        "..%2Fapp.py",
        "..%5C..%5Capp.js",
        "app.py",
    ],
)
def test_nothing_else_can_be_reached(address: str, path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1]))) as raw:
        raw.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


def test_another_name_of_this_machine_and_a_missing_token_are_refused(
    address: str, result: Result
) -> None:
    assert requests.get(address, headers={"Host": "evil.example"}).status_code == 400
    away = {"Sec-Fetch-Site": "cross-site"}
    assert requests.get(f"{address}/api/0/download", headers=away).status_code == 403
    with serving(result.url, token="secret") as open_address:
        assert requests.get(f"{open_address}/").status_code == 404
        assert requests.get(f"{open_address}/api/results").status_code == 404
        assert requests.get(f"{open_address}/secret/api/results").json() == [result.url]
        assert (
            "script-src 'self'"
            in requests.get(f"{open_address}/secret/").headers["Content-Security-Policy"]
        )


def test_objects_come_as_outlines_or_counted_by_places(
    address: str, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    west, south, east, north = result.ground.bounds
    asked = {"slice": "2026-01-01", "bbox": f"{west},{south},{east},{north}"}
    found = requests.get(f"{address}/api/0/objects", params=asked).json()
    assert found["total"] == len(found["features"]) == 2
    ids = {each["properties"]["object_id"] for each in found["features"]}
    assert ids <= set(result.objects.object_id.astype(str))
    middle = (west + east) / 2
    part = asked | {"bbox": f"{west},{south},{middle - 1e-3},{north}"}
    assert requests.get(f"{address}/api/0/objects", params=part).json()["total"] == 1
    for wide in ("-170,-80,170,80", "-100,-80,100,80", "-180,-90,180,90"):
        whole = requests.get(f"{address}/api/0/objects", params=asked | {"bbox": wide}).json()
        assert whole["total"] == 2, wide
    monkeypatch.setattr(served_module, "OUTLINES", 1)
    counted = requests.get(f"{address}/api/0/objects", params=asked).json()
    assert sum(each["objects"] for each in counted["places"]) == counted["total"] == 2


def test_searches_reasons_changes_and_downloads(
    address: str, result: Result, tmp_path: Path
) -> None:
    found = requests.get(f"{address}/api/0/search", params={"text": "north-west"}).json()
    assert {"more", "features"} == set(found)
    everything = requests.get(f"{address}/api/0/search", params={"time": "2026-01-02"}).json()
    assert len(everything["features"]) == 2
    changed = requests.get(
        f"{address}/api/0/changes", params={"before": "2026-01-01", "after": "2026-01-02"}
    ).json()
    changes = sorted(each["properties"]["change"] for each in changed["features"])
    assert changes == ["appeared", "stayed", "vanished"]
    lon, lat = result.objects.geometry.iloc[0].centroid.coords[0]
    assert (
        requests.get(f"{address}/api/0/why", params={"lon": lon, "lat": lat}).json()[0]["status"]
        == "done"
    )
    download = f"{address}/api/0/download"
    assert len(requests.get(download).json()["features"]) == 4
    data = requests.get(download, params={"format": "parquet"}).content
    assert len(gpd.read_parquet(io.BytesIO(data))) == 4


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("objects?slice=never&bbox=0,0,1,1", "there is no finished time slice 'never'"),
        ("objects?slice=2026-01-01&bbox=0,0,1", "bbox"),
        ("objects?bbox=0,0,1,1", "slice is missing"),
        ("objects?slice=2026-01-01&bbox=0,0,1,1&min_score=inf", "min_score 'inf' is no number"),
        ("changes?before=2026-01-01&after=2026-01-01", "compared with itself"),
        ("search?time=yesterday", "yesterday"),
        ("track?id=-1", "'-1' is no id of a track"),
        ("track", "id is missing"),
        ("why?lon=100&lat=0", "lies outside the result"),
        ("scene.png?slice=2026-01-01&zone=x", "there is no zone 'x'"),
        ("crop.png?slice=2026-01-01&bbox=-100,0,-99,1", "outside the result"),
    ],
)
def test_what_is_wrong_is_a_sentence(address: str, path: str, said: str) -> None:
    answer = requests.get(f"{address}/api/0/{path}")
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_the_scene_is_that_of_the_slice(address: str) -> None:
    picture = requests.get(f"{address}/api/0/scene.png", params={"slice": "2026-01-02"})
    pixels = matplotlib.image.imread(io.BytesIO(picture.content))
    assert pixels.shape == (500, 800, 4)
    assert pixels[205, 260, 0] > 0.8, "a ship of this day"
    assert pixels[305, 440, 0] < 0.2, "one of the other day"


def test_the_command_says_what_is_wrong(tmp_path: Path, result: Result) -> None:
    assert "holds no Zarr store" in earthgptx("serve", tmp_path / "no.zarr", code=2)[1]
    with serving(str(tmp_path / "no.zarr")) as open_address:
        answer = requests.get(f"{open_address}/api/0/about")
        assert answer.status_code == 400
        assert "holds no Zarr store" in answer.json()["error"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of" in earthgptx("serve", result.url, "--port", port, code=2)[1]


def test_the_command_serves_until_it_is_ended(result: Result) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "earthgptx", "serve", result.url, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        address = line.removeprefix("map: ").strip()
        deadline = time.monotonic() + 30
        while True:
            try:
                assert "<title>earthgptx" in requests.get(address).text
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        process.terminate()
    assert process.wait(20) is not None
