"""The map of a result, by its server and in a real browser."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import matplotlib.image
import numpy as np
import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.results.result import Result
from earthgptx.workflows.view import served as served_module
from tests.archive import Archive
from tests.browsers import CHROMIUM, DRIVER, chromium, serving
from tests.workflows.test_cli import earthgptx

ATTACK = "<img src=x onerror=\"document.body.dataset.attacked='yes'\">"
GRID = {"tile_px": 256, "halo_px": 64, "block_px": 512}
SHIPS = {"2026-01-01": [(100, 100), (300, 420)], "2026-01-02": [(100, 100), (200, 250)]}
"""Row and column of a ship's corner, by day."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    """Two days of a sea with ships, one of which stays; its label is an attack on the page."""
    folder = tmp_path_factory.mktemp("map")
    archive = Archive(folder / "archive")
    for day, places in SHIPS.items():
        pixels = np.random.default_rng(0).integers(20, 30, (500, 800)).astype(np.uint8)
        for row, col in places:
            pixels[row : row + 12, col : col + 40] = 220
        archive.add(day, pixels, when=f"{day}T10:00:00Z", nodata=None)
    archive.save()
    job = archive.job(folder / "out.zarr", grid=GRID, tasks={"find": [ATTACK]})
    run(plan(job), pool=pool)
    return open_result(str(folder / "out.zarr"))


@pytest.fixture(scope="module")
def other(result: Result, pool: ReplicaPool) -> Result:
    """The same days with a ship less on each."""
    folder = Path(result.url).parent
    archive = Archive(folder / "other-archive")
    for day, places in SHIPS.items():
        pixels = np.random.default_rng(0).integers(20, 30, (500, 800)).astype(np.uint8)
        row, col = places[0]
        pixels[row : row + 12, col : col + 40] = 220
        archive.add(day, pixels, when=f"{day}T10:00:00Z", nodata=None)
    archive.save()
    job = archive.job(folder / "other.zarr", grid=GRID, tasks={"find": ["ship"]})
    run(plan(job), pool=pool)
    return open_result(str(folder / "other.zarr"))


@pytest.fixture(scope="module")
def address(result: Result) -> Iterator[str]:
    with serving(result.url) as served:
        yield served


# The server


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


# The browser


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    with chromium() as made:
        yield made


def until(check: Callable[[], Any], what: str, seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return found


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    browser.get("about:blank")
    browser.get(f"{address}/")
    until(lambda: browser.execute_script("return document.body.dataset.ready"), "it does not load")
    return browser


def colour_at(page: webdriver.Chrome, lon: float, lat: float) -> np.ndarray:
    """Red, green and blue of the picture of the page at a place, 0..255."""
    x, y, scale = page.execute_script(
        "const map = document.getElementById('map').map, box = map.getTargetElement()"
        ".getBoundingClientRect(), r = 6378137 * Math.PI / 180;"
        "const at = [arguments[0] * r, Math.log(Math.tan((90 + arguments[1]) * Math.PI / 360))"
        " * 6378137];"
        "const p = map.getPixelFromCoordinate(at);"
        "return [p[0] + box.left, p[1] + box.top, window.devicePixelRatio]",
        lon,
        lat,
    )
    picture = matplotlib.image.imread(io.BytesIO(page.get_screenshot_as_png()))
    found: np.ndarray = (picture[int(y * scale), int(x * scale), :3] * 255).astype(int)
    return found


def set_value(page: webdriver.Chrome, name: str, value: str, event: str = "change") -> None:
    page.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(arguments[2], {bubbles: true, cancelable: true}))",
        name,
        value,
        event,
    )


def tick(page: webdriver.Chrome, name: str) -> None:
    page.execute_script("document.getElementById(arguments[0]).click()", name)


def place(result: Result, row: int, col: int) -> tuple[float, float]:
    from pyproj import Transformer

    raster: Any = result.raster
    crs = raster["spatial_ref"].attrs["crs_wkt"]
    move = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    found: tuple[float, float] = move.transform(float(raster["x"][col]), float(raster["y"][row]))
    return found


GREEN = np.array([6, 214, 160])


def is_green(page: webdriver.Chrome, at: tuple[float, float]) -> bool:
    """Whether the map has the first label's colour there, at full opacity."""
    return bool(np.abs(colour_at(page, *at) - GREEN).max() < 30)


def test_the_layer_is_drawn_where_the_array_says_and_follows_the_slider(
    page: webdriver.Chrome, result: Result
) -> None:
    for name in ("scene", "objects"):
        tick(page, name)
    set_value(page, "opacity", "1", "input")
    stays, first, second = (
        place(result, row + 6, col + 20) for row, col in ((100, 100), (300, 420), (200, 250))
    )
    until(lambda: is_green(page, second), "the layer of the last day does not appear")
    assert is_green(page, stays)
    assert not is_green(page, first)
    set_value(page, "slice", "0", "input")
    until(lambda: is_green(page, first), "the slider changes nothing")
    assert not is_green(page, second)
    set_value(page, "layer", "status")
    until(lambda: is_green(page, place(result, 400, 700)), "the status is not drawn")


def test_a_search_flies_there_and_its_address_can_be_passed_on(
    page: webdriver.Chrome, browser: webdriver.Chrome
) -> None:
    set_value(page, "time", "2026-01-01", "input")
    page.execute_script("document.getElementById('search').requestSubmit()")
    hits = until(
        lambda: page.execute_script("return document.querySelectorAll('#hits button').length"),
        "nothing is found",
    )
    assert hits == 2
    zoom = "return document.getElementById('map').map.getView().getZoom()"
    before = page.execute_script(zoom)
    page.execute_script("document.querySelector('#hits button').click()")
    until(lambda: page.execute_script(zoom) > before + 1, "it does not fly")
    until(lambda: "slice=2026-01-01" in page.current_url, "the address does not say the slice")
    time.sleep(1)
    shared, there = page.current_url, page.execute_script(zoom)
    browser.get("about:blank")
    browser.get(shared)
    until(lambda: browser.execute_script("return document.body.dataset.ready"), "not loaded")
    assert browser.execute_script(zoom) == pytest.approx(there, abs=0.1)
    assert browser.execute_script("return document.getElementById('slice').value") == "0"


def test_words_of_others_are_text(page: webdriver.Chrome, result: Result) -> None:
    page.execute_script("document.getElementById('search').requestSubmit()")
    until(
        lambda: page.execute_script("return document.querySelectorAll('#hits button').length"),
        "nothing is found",
    )
    said = page.execute_script("return document.querySelector('#hits button').textContent")
    assert ATTACK in said
    page.execute_script(
        "const map = document.getElementById('map').map, layers = map.getLayers().getArray();"
        "const all = layers.flatMap(l => l.getSource().getFeatures?.() ?? []), f = all[0];"
        "map.getView().fit(f.getGeometry().getExtent(), {maxZoom: 17})"
    )
    time.sleep(2)
    page.execute_script(
        "const map = document.getElementById('map').map, s = map.getSize();"
        "map.dispatchEvent({type: 'click', pixel: [s[0] / 2, s[1] / 2]})"
    )
    heading = until(
        lambda: page.execute_script("return document.querySelector('#detail h2')?.textContent"),
        "no details",
    )
    assert heading == ATTACK
    assert page.execute_script("return document.body.dataset.attacked") is None
    assert page.execute_script("return document.querySelectorAll('#panel img').length") == 0
    picture = "return document.querySelector('#detail img')?.naturalWidth"
    assert until(lambda: page.execute_script(picture), "no picture of the scene") >= 48


def test_two_slices_side_by_side_and_what_has_changed(page: webdriver.Chrome) -> None:
    set_value(page, "other", "0/2026-01-01")
    tick(page, "changes")

    def colours() -> list[str]:
        return sorted(
            page.execute_script(
                "const map = document.getElementById('map-other').map; if (!map) return [];"
                "return map.getLayers().getArray().flatMap(l => l.getSource().getFeatures ?"
                " l.getSource().getFeatures().map(f => f.get('change')) : [])"
            )
        )

    until(lambda: colours() == ["appeared", "stayed", "vanished"], f"changes: {colours()}")
    sizes = page.execute_script(
        "return ['map', 'map-other'].map(id => document.getElementById(id).clientWidth)"
    )
    assert abs(sizes[0] - sizes[1]) <= 2


def test_a_swipe_shows_one_map_over_the_other(page: webdriver.Chrome, result: Result) -> None:
    for name in ("scene", "objects"):
        tick(page, name)
    set_value(page, "opacity", "1", "input")
    set_value(page, "how", "swipe")
    set_value(page, "other", "0/2026-01-01")
    first, second = (place(result, row + 6, col + 20) for row, col in ((300, 420), (200, 250)))
    until(lambda: page.execute_script("return !document.getElementById('handle').hidden"), "none")
    set_value(page, "handle", "0", "input")
    until(lambda: is_green(page, first), "the other slice does not lie over the first")
    assert not is_green(page, second)
    set_value(page, "handle", "100", "input")
    until(lambda: is_green(page, second), "the first slice does not show")
    assert not is_green(page, first)
    assert "how=swipe" in page.current_url


def test_two_results_are_compared(browser: webdriver.Chrome, result: Result, other: Result) -> None:
    with serving(result.url, other.url) as address:
        browser.get(f"{address}/")
        until(lambda: browser.execute_script("return document.body.dataset.ready"), "not loaded")
        offered = browser.execute_script(
            "return [...document.querySelectorAll('#other optgroup')].map(g => [g.label,"
            " [...g.children].map(o => o.value)])"
        )
        days = list(SHIPS)
        assert offered == [
            ["this result", [f"0/{day}" for day in days]],
            ["other.zarr", [f"1/{day}" for day in days]],
        ]
        set_value(browser, "how", "swipe")  # beside one another the maps show half as much
        set_value(browser, "other", "1/2026-01-02")

        def counts() -> list[int]:
            found: list[int] = browser.execute_script(
                "return ['map', 'map-other'].map(id => document.getElementById(id).map?.getLayers()"
                ".getArray()[0].getSource().getFeatures().length ?? -1)"
            )
            return found

        until(lambda: counts() == [2, 1], f"objects of the two: {counts()}")
        assert browser.execute_script("return document.getElementById('changes').disabled")
        drawn = browser.execute_script(
            "return document.getElementById('map-other').map.getLayers().getLength()"
        )
        assert drawn == 4, "a scene, a layer, objects and tracks"


def test_a_track_is_drawn_through_time(page: webdriver.Chrome, result: Result) -> None:
    stayed = result.objects["track_id"].value_counts().idxmax()
    page.execute_script(f"location.hash = 'track={stayed}'")
    features = (
        "return document.getElementById('map').map.getLayers().getArray()"
        ".find(l => l.getZIndex() === 12).getSource().getFeatures()"
        ".map(f => [f.getGeometry().getType(), f.get('name') ?? ''])"
    )
    found = until(lambda: page.execute_script(features), "no track is drawn")
    assert sorted(found) == [
        ["LineString", ""],
        ["Polygon", "2026-01-01"],
        ["Polygon", "2026-01-02"],
    ]
    said = page.execute_script("return document.getElementById('found').textContent")
    assert said == "the track of an object through 2 time slices"


def test_an_address_that_names_what_is_not_there_says_so(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get("about:blank")
    browser.get(f"{address}/#result=7&slice=never&layer=ndvi&how=upside&other=0/no&track=abc")
    until(lambda: browser.execute_script("return document.body.dataset.ready"), "not loaded")
    said = browser.execute_script("return document.getElementById('message').textContent")
    assert said == (
        "not there: result 7, layer ndvi, how upside, time slice never, time slice 0/no, "
        "track abc; what is there is shown"
    )
    values = browser.execute_script(
        "return ['result', 'layer', 'how'].map(id => document.getElementById(id).value)"
    )
    assert values == ["0", "label", "beside"]


def test_changes_run_forward_whichever_slice_is_shown_and_keep_to_conditions(
    browser: webdriver.Chrome, address: str
) -> None:
    for shown, other in (("2026-01-01", "2026-01-02"), ("2026-01-02", "2026-01-01")):
        browser.get("about:blank")
        browser.get(f"{address}/#slice={shown}&other=0/{other}&changes=yes")
        until(lambda: browser.execute_script("return document.body.dataset.ready"), "not loaded")
        footer = "return document.getElementById('footer').textContent"
        forward = "from 2026-01-01 to 2026-01-02: 1 appeared, 1 vanished, 1 stayed"
        until(lambda: forward in browser.execute_script(footer), f"{forward} with {shown} shown")  # noqa: B023
    set_value(browser, "text", "submarine", "input")
    set_value(browser, "score", "0.05")
    nothing = "from 2026-01-01 to 2026-01-02: no object"
    until(lambda: nothing in browser.execute_script(footer), "conditions change nothing")
    legend = "return document.getElementById('legend').textContent"
    assert "appeared" in browser.execute_script(legend)
    set_value(browser, "slice", "0", "input")
    until(lambda: "appeared" not in browser.execute_script(legend), "it is compared with itself")


def test_a_hit_opens_by_the_keyboard(page: webdriver.Chrome) -> None:
    page.execute_script("document.getElementById('search').requestSubmit()")
    first = "return document.querySelector('#hits button')"
    until(lambda: page.execute_script(first), "nothing is found").send_keys(Keys.ENTER)
    heading = "return document.querySelector('#detail h2')?.textContent"
    assert until(lambda: page.execute_script(heading), "no details") == ATTACK
    buttons = "return [...document.querySelectorAll('#detail button')].map(b => b.textContent)"
    assert page.execute_script(buttons) == ["why here", "its track through time"]
    page.execute_script("document.querySelector('#detail button').click()")
    until(lambda: "42." in page.execute_script(heading), "it does not say why")


def test_a_browser_without_webgl_says_so(result: Result) -> None:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    with chromium("--disable-3d-apis") as browser, serving(result.url) as address:
        browser.get(f"{address}/")
        until(lambda: browser.execute_script("return document.body.dataset.ready"), "not loaded")
        said = until(
            lambda: browser.execute_script("return document.getElementById('message').textContent"),
            "it says nothing",
        )
        assert said.startswith("this browser has no WebGL")
        stays = place(result, 106, 120)
        page = browser
        until(lambda: colour_at(page, *stays).min() > 150, "the scene is not drawn")


def test_no_request_leaves_this_machine_and_nothing_is_refused(page: webdriver.Chrome) -> None:
    seen = json.loads(
        page.execute_script(
            "return JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))"
        )
    )
    assert seen
    assert all(name.startswith(("http://127.0.0.1", "blob:", "data:")) for name in seen)
    severe = [each["message"] for each in page.get_log("browser") if each["level"] == "SEVERE"]
    assert not [each for each in severe if "Content Security Policy" in each]


def test_sliding_through_time_loses_no_context(page: webdriver.Chrome) -> None:
    page.execute_script(
        "for (const canvas of document.querySelectorAll('canvas'))"
        " canvas.addEventListener('webglcontextlost', () => document.body.dataset.lost = 'yes')"
    )
    for turn in range(30):
        set_value(page, "slice", str(turn % 2), "input")
        time.sleep(0.05)
    time.sleep(2)
    assert page.execute_script("return document.body.dataset.lost") is None
    assert page.execute_script("return document.getElementById('message').hidden")
