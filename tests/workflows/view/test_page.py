"""The map in a real browser."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from earthgptx.pipeline.results.result import Result
from tests.browsers import CHROMIUM, DRIVER, chromium, serving
from tests.workflows.view.conftest import ATTACK, SHIPS


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
