"""Items as archives really have them: some cannot be used, and some lie about where they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely

from earthgptx import plan
from earthgptx.catalogs.geoparquet import frozen, thaw
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import read_scene
from tests.archive import Archive

PIXELS = np.full((300, 300), 20, np.uint8)


def planned(archive: Archive, change: Any, **source: Any) -> Plan:
    """A plan over two Items, of which the second is changed."""
    archive.add("good", PIXELS)
    archive.add("odd", PIXELS, col=300)
    change(archive.catalog.get_item("odd"))
    archive.save()
    return plan(archive.job("a.zarr", source=source))


def without_asset(item: pystac.Item) -> None:
    item.assets["picture"] = item.assets.pop("image")


def absurd_shape(item: pystac.Item) -> None:
    item.assets["image"].extra_fields["proj:shape"] = [10**7, 10**7]


def shape_of_text(item: pystac.Item) -> None:
    item.assets["image"].extra_fields["proj:shape"] = ["wide", "high"]


def flat_pixels(item: pystac.Item) -> None:
    item.assets["image"].extra_fields["proj:transform"] = [10, 0, 500_000, 0, 0, 4_700_000]


def unknown_crs(item: pystac.Item) -> None:
    item.properties["proj:code"] = "EPSG:999999"


def crs_of_a_server(item: pystac.Item) -> None:
    item.properties["proj:code"] = "http://127.0.0.1:9/crs"


def lists_everywhere(item: pystac.Item) -> None:
    item.assets["image"].extra_fields |= {
        "alternate": ["x"],
        "raster:bands": ["odd"],
        "bands": 5,
        "proj:shape": "odd",
    }


def local_crs(item: pystac.Item) -> None:
    item.properties.pop("proj:code")
    item.properties["proj:wkt2"] = 'LOCAL_CS["mine",UNIT["metre",1]]'


def no_file(item: pystac.Item) -> None:
    item.properties.pop("proj:code")
    item.assets["image"].href += ".missing"


def local_file(item: pystac.Item) -> None:
    item.assets["image"].href = "/etc/hostname.tif"


def private_host(item: pystac.Item) -> None:
    item.assets["image"].href = "http://169.254.169.254/latest/meta-data"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_asset, "has no asset image"),
        (absurd_shape, "which no image has"),
        (shape_of_text, "which no image has"),
        (flat_pixels, "which no image has"),
        (unknown_crs, "999999"),
        (crs_of_a_server, "is no code, WKT or PROJJSON"),
        (lists_everywhere, "which no image has"),
        (local_crs, "a"),
        (no_file, "cannot be read"),
        (local_file, "local file outside the catalog's folder"),
        (private_host, "private address"),
    ],
)
def test_an_item_that_cannot_be_used_is_left_out_and_listed(
    archive: Archive, change: Any, reason: str
) -> None:
    made = planned(archive, change)
    assert [item.id for item in made.items] == ["good"]
    assert reason in made.refused_items["odd"]
    [warning] = made.warnings
    assert warning.startswith("1 of 2 items, such as odd: left out, since")


def test_a_grid_that_no_memory_holds_is_refused(archive: Archive) -> None:
    def tiny_pixels(item: pystac.Item) -> None:
        fields = item.assets["image"].extra_fields
        fields["proj:transform"] = [1e-5, 0, 500_000, 0, -1e-5, 4_700_000]

    archive.add("good", PIXELS, row=300)
    archive.add("odd", PIXELS, when="2025-01-01T00:00:00Z")
    tiny_pixels(archive.catalog.get_item("odd"))  # type: ignore[arg-type]
    archive.save()
    with pytest.raises(JobError, match=r"blocks; make source.aoi smaller \(its items lie in \["):
        plan(archive.job("a.zarr"))


def test_more_of_them_than_a_job_allows_end_it(archive: Archive) -> None:
    with pytest.raises(JobError, match=r"1 of 2 items cannot be used.*has no asset image"):
        planned(archive, without_asset, max_failed_items=0)


def test_a_job_that_has_only_such_items_ends_with_the_reason(archive: Archive) -> None:
    archive.add("odd", PIXELS)
    without_asset(archive.catalog.get_item("odd"))  # type: ignore[arg-type]
    archive.save()
    with pytest.raises(JobError, match=r"none is left.*has no asset image"):
        plan(archive.job("a.zarr"))


def null(item: pystac.Item) -> None:
    item.geometry = item.bbox = None


def empty(item: pystac.Item) -> None:
    item.geometry = {"type": "Polygon", "coordinates": []}


def metres(item: pystac.Item) -> None:
    item.geometry = shapely.geometry.mapping(shapely.box(503000, 4697000, 506000, 4700000))


def elsewhere(item: pystac.Item) -> None:
    item.geometry = shapely.geometry.mapping(shapely.box(-1, 40, 0, 41))


def swapped(item: pystac.Item) -> None:
    assert item.bbox is not None
    west, south, east, north = item.bbox
    item.geometry = shapely.geometry.mapping(shapely.box(south, west, north, east))


@pytest.mark.parametrize("change", [null, empty, metres, elsewhere, swapped])
def test_an_odd_footprint_is_replaced_by_the_extent_of_the_asset(
    archive: Archive, tmp_path: Path, change: Any
) -> None:
    made = planned(archive, change, aoi={"bbox": [-2, 2, 44, 45]})
    assert [item.id for item in made.items] == ["good", "odd"]
    west, south, east, north = shapely.geometry.shape(made.items[1].geometry).bounds
    assert 3.03 < west < east < 3.08
    assert 42.3 < south < north < 42.5
    [footprints] = made.footprints.values()
    west, south, east, north = shapely.union_all(footprints).bounds
    assert (east - west, north - south) == (6000, 3000)
    assert "1 of 2 items, such as odd: the footprint is null" in made.warnings[0]
    (tmp_path / "items.parquet").write_bytes(frozen(made.items))
    again = plan(made.spec, items=thaw(str(tmp_path / "items.parquet")))
    assert again.item_keys == made.item_keys


def test_a_sound_footprint_stays(archive: Archive) -> None:
    made = planned(archive, lambda _: None)
    assert not made.warnings
    assert not made.refused_items


@pytest.mark.parametrize(("epsg", "lat"), [(3031, -90.0), (3413, 90.0)])
@pytest.mark.parametrize("footprint", ["its own", "null"])
def test_a_scene_over_a_pole_is_read_whole(
    tmp_path: Path, epsg: int, lat: float, footprint: str
) -> None:
    archive = Archive(tmp_path / "archive", epsg=epsg, west=-1500, north=1500)
    archive.add("a", PIXELS)
    if footprint == "null":
        item = archive.catalog.get_item("a")
        assert item is not None
        item.geometry = item.bbox = None
    archive.save()
    south, north = sorted((lat, lat * 0.9997))
    made = plan(archive.job("a.zarr", source={"aoi": {"bbox": [-180, south, 180, north]}}))
    [grid] = made.grids.values()
    assert grid.crs == f"EPSG:{epsg}"
    scene = read_scene(grid, grid.window, made.scene_items(grid.name, 0, grid.window))
    assert scene.valid.sum() == PIXELS.size
    shown = shapely.geometry.shape(made.items[0].geometry)
    assert all(shown.buffer(1e-6).covers(shapely.Point(lon, lat * 0.9999)) for lon in (-179, 5, 91))
    assert shown.bounds[1] < -89.9 or shown.bounds[3] > 89.9
    assert not shown.intersects(shapely.box(-180, -80, 180, 80))
