"""A search of stac-fastapi over pgstac, the server that most public catalogs run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pystac
import pytest
import shapely

from earthgptx import JobSpec, plan
from earthgptx.catalogs.api_search import PAGE
from earthgptx.catalogs.errors import CatalogDown, NoItems
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.search import search
from tests.archive import Archive
from tests.catalogs.pgstac import Missing, pgstac

pytestmark = pytest.mark.slow
WORLD = shapely.box(-180, -90, 180, 90)
ALL = parse_interval("../..")
COUNT = 2 * PAGE + 100


def grid_item(number: int) -> dict[str, Any]:
    """Items of 1 degree, one a day, every tenth without a cloud cover."""
    west, south = float(number % 30), 30.0 + number // 30
    properties = {} if number % 10 == 0 else {"eo:cloud_cover": float(number % 100)}
    item = pystac.Item(
        f"item-{number:04d}",
        shapely.geometry.mapping(shapely.box(west, south, west + 1, south + 1)),
        [west, south, west + 1, south + 1],
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number),
        properties,
        collection="grid",
    )
    item.add_asset("image", pystac.Asset(f"https://example.org/{number}.tif"))
    return item.to_dict(include_self_link=False) | {"links": []}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(tmp_path_factory.mktemp("made"))
    archive.add("a", np.full((300, 300), 20, np.uint8))
    archive.save()
    return archive


@pytest.fixture(scope="module")
def api(made: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    local = [
        item.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []}
        for item in made.catalog.get_items()
    ]
    items = [*map(grid_item, range(COUNT)), *local]
    try:
        with pgstac(tmp_path_factory.mktemp("pgstac"), items) as url:
            yield url
    except Missing as error:
        pytest.skip(f"no pgstac here: {error}")


def found(api: str, **how: Any) -> list[str]:
    asked = {"collections": ("grid",), "aoi": WORLD, "time": ALL} | how
    return [item.id for item in search(api, **asked)]


def test_all_pages_are_read_and_nothing_is_twice(api: str) -> None:
    warned: list[str] = []
    assert found(api, warn=warned.append) == [f"item-{n:04d}" for n in range(COUNT)]
    assert not warned


def test_place_and_time_are_asked_of_the_server(api: str) -> None:
    aoi = shapely.Polygon([(0.5, 30.2), (2.5, 30.2), (0.5, 32.8)])
    assert found(api, aoi=aoi) == [f"item-{n:04d}" for n in (0, 1, 2, 30, 31, 60, 61)]
    january = parse_interval("2026-01-10/2026-01-12")
    assert found(api, time=january) == ["item-0009", "item-0010", "item-0011"]
    with pytest.raises(NoItems):
        found(api, time=parse_interval("1999"))


def test_a_filter_goes_to_the_server_as_json(api: str) -> None:
    """The current stac-fastapi refuses text in a body."""
    names = found(api, filter="eo:cloud_cover < 5 AND eo:cloud_cover >= 2")
    assert names == [f"item-{n:04d}" for n in range(COUNT) if n % 100 in (2, 3, 4)]


def test_a_filter_that_the_server_fails_on_is_named(api: str) -> None:
    """It answers 500, and not 400."""
    with pytest.raises(CatalogDown, match=r"Internal Server Error.*may not bear source\.filter"):
        found(api, filter="no_such(1) = 2")


def test_a_job_is_planned_over_it(api: str, made: Archive) -> None:
    job = made.job("a.zarr").model_dump(mode="json", by_alias=True)
    job["source"] |= {"catalog": api, "access": {"folders": [str(made.folder)]}}
    planned = plan(JobSpec.from_dict(job))
    assert [item.id for item in planned.items] == ["a"]
    assert planned.tile_count > 0
    job["source"]["access"] = {}
    with pytest.raises(Exception, match="a remote catalog does not open local files"):
        plan(JobSpec.from_dict(job))
