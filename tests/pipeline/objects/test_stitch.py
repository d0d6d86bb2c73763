"""The sample archive in two UTM zones: nothing is lost and nothing is twice where they meet."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
import xarray as xr

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.results.result import Result
from earthgptx.workflows.sample import ORIGIN
from tests.archive import Archive, targets

AOI = [5.9, 42.96, 6.05, 43.02]


@pytest.fixture(scope="module")
def result(
    sample_archive: Path, tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool
) -> Result:
    out = tmp_path_factory.mktemp("zones") / "sar.zarr"
    spec = JobSpec.from_dict(
        {
            "name": "zones",
            "source": {
                "catalog": str(sample_archive / "catalog.json"),
                "collections": ["sample-sar"],
                "aoi": {"bbox": AOI},
                "time": "2026-01-01/2026-01-31",
            },
            "tasks": {"find": ["ship"], "refer": True},
            "prompts": {"from": "cfar"},
            "grid": {"tile_px": 256, "halo_px": 64, "block_px": 512},
            "output": str(out),
            "engine": {"replicas": 2},
        }
    )
    run(plan(spec), pool=pool)
    return open_result(str(out))


def test_there_is_a_raster_for_each_zone_and_one_table(result: Result) -> None:
    assert result.grids == ("epsg32631", "epsg32632")
    tree = xr.open_datatree(result.url, engine="zarr")
    assert "/epsg32632/raster" in tree.groups
    assert "/epsg32631/overview/2" in tree.groups
    assert result.objects["object_id"].is_unique
    assert set(result.objects["prompt_ids"].str.len() > 0) <= {True, False}


def test_no_object_is_twice_at_the_border_and_none_is_lost(
    result: Result, sample_archive: Path
) -> None:
    objects = result.objects
    tree = shapely.STRtree(objects.geometry.to_numpy())
    a, b = tree.query(objects.geometry.to_numpy(), predicate="intersects")
    assert (a == b).all(), "two objects share ground"
    truth = gpd.read_parquet(sample_archive / "truth.parquet")
    border = shapely.box(ORIGIN[0] - 0.01, 42.988, ORIGIN[0] + 0.01, 42.996)
    ships = truth[(truth["class"] == "ship") & (truth["time"].dt.month == 1) & truth.within(border)]
    found = objects[objects.intersects(border)]
    assert len(ships) >= 2
    for ship in ships.geometry:
        overlap = found.intersection(ship).area.max() / ship.area
        assert overlap > 0.5


def test_a_pixel_belongs_to_one_zone(result: Result) -> None:
    for lon in (5.985, 5.9995, 6.0005, 6.02):
        answers = result.why(lon, 42.992)
        assert len([answer for answer in answers if answer.status == "done"]) == 1


BREAKWATER = shapely.box(5.96, 42.390, 6.05, 42.3908)
"""Bright, 7.4 km long and 90 m wide, across the border of two zones at 6 degrees east."""


def scene(folder: Path, epsg: int) -> Archive:
    """A dark scene of 30 m with the breakwater and a small ship on the border, in one zone."""
    move = pyproj.Transformer.from_crs("OGC:CRS84", f"EPSG:{epsg}", always_xy=True)
    x, y = move.transform(6.0, 42.39)
    archive = Archive(
        folder, epsg=epsg, west=round(x / 30) * 30 - 6000, north=round(y / 30) * 30 + 6000
    )
    ship = shapely.Point(6.0001, 42.42).buffer(0.0012)
    shapes = [
        shapely.transform(each, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1])))
        for each in (shapely.segmentize(BREAKWATER, 0.001), ship)
    ]
    here = rasterio.Affine(30, 0, archive.west, 0, -30, archive.north)
    bright = rasterio.features.rasterize(shapes, (400, 400), transform=here).astype(bool)
    pixels = np.random.default_rng(epsg).integers(8, 20, (400, 400)).astype(np.uint8)
    pixels[bright] = 220
    archive.add(f"in{epsg}", pixels, nodata=None, step=30)
    return archive


def test_an_object_longer_than_the_halo_is_one_across_zones(
    tmp_path: Path, pool: ReplicaPool
) -> None:
    west, east = (scene(tmp_path / "archive", epsg) for epsg in (32631, 32632))
    west.catalog.add_items(list(east.catalog.get_items()))
    west.save()
    made = plan(
        west.job(tmp_path / "a.zarr", grid={"tile_px": 256, "halo_px": 64, "block_px": 128})
    )
    assert len(made.grids) == 2
    halo_m = 64 * 30
    run(made, pool=pool)
    result = open_result(str(tmp_path / "a.zarr"))
    ship, line = result.objects.sort_values("length_m").itertuples()
    assert line.length_m == pytest.approx(7400, abs=100)
    assert line.length_m > 3 * halo_m
    assert line.area_m2 == pytest.approx(7400 * 90, rel=0.2)
    assert shapely.union(line.geometry, BREAKWATER).area < 1.25 * BREAKWATER.area
    assert ship.length_m == pytest.approx(230, abs=70)
    tree = xr.open_datatree(result.url, engine="zarr")
    for name in result.grids:
        ids = tree[f"{name}/raster/object_id"].to_numpy()
        assert set(np.unique(ids)) == {0, ship.object_id, line.object_id}


def test_an_object_across_many_blocks_is_one_with_one_id(
    archive: Archive, tmp_path: Path, pool: ReplicaPool
) -> None:
    pixels = targets(2, count=0)
    archive.add("a", pixels, nodata=None)
    archive.save()
    run(
        plan(
            archive.job(tmp_path / "a.zarr", grid={"tile_px": 256, "halo_px": 64, "block_px": 128})
        ),
        pool=pool,
    )
    result = open_result(str(tmp_path / "a.zarr"))
    [line] = result.objects.itertuples()
    assert line.length_m > 8000
    raster = result.raster
    assert isinstance(raster, xr.Dataset)
    ids = raster["object_id"].values
    assert set(np.unique(ids)) == {0, line.object_id}
    assert (ids > 0).sum() * 100 == pytest.approx(line.area_m2, rel=0.002)
