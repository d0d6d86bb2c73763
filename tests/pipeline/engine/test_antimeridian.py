"""A job over imagery on both sides of the antimeridian, in two UTM zones."""

from pathlib import Path

import numpy as np
import pystac
import pytest
import shapely
from rasterio.warp import transform

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from tests.archive import Archive


def fiji(folder: Path) -> Archive:
    """A scene in zone 60 south (EPSG:32760) whose right half lies beyond 180 degrees."""
    [x], [y] = transform("EPSG:4326", "EPSG:32760", [180.0], [-17.0])
    west, north = round(x / 10) * 10 - 4000, round(y / 10) * 10
    archive = Archive(folder, epsg=32760, west=west, north=north)
    pixels = np.random.default_rng(0).integers(8, 20, (700, 800)).astype(np.uint8)
    for row, col in ((300, 100), (400, 390), (250, 700)):  # west of it, across it, east of it
        pixels[row : row + 4, col : col + 20] = 220
    archive.add("a", pixels, nodata=None)
    return archive


@pytest.mark.parametrize("footprint", ["cut", "not cut"])
def test_objects_on_both_sides_are_found_and_cut(
    tmp_path: Path, pool: ReplicaPool, footprint: str
) -> None:
    archive = fiji(tmp_path / "archive")
    item = archive.catalog.get_item("a")
    assert isinstance(item, pystac.Item)
    if footprint == "not cut":
        ring = [(179.96, -17.0), (-179.96, -17.0), (-179.96, -17.07), (179.96, -17.07)]
        item.geometry = shapely.geometry.mapping(shapely.Polygon(ring))
    else:
        halves = [shapely.box(179.96, -17.07, 180, -17), shapely.box(-180, -17.07, -179.96, -17)]
        item.geometry = shapely.geometry.mapping(shapely.MultiPolygon(halves))
    archive.save()
    aoi = {"bbox": [179.9, -17.2, -179.9, -16.9]}
    made = plan(archive.job(tmp_path / "a.zarr", source={"aoi": aoi}))
    assert {grid.crs for grid in made.grids.values()} == {"EPSG:32760", "EPSG:32701"}
    assert run(made, pool=pool).objects == 3
    found = open_result(str(tmp_path / "a.zarr")).objects.sort_values("length_m")
    sides = [shape.bounds for shape in found.geometry]
    assert all(east - west < 0.01 or (west, east) == (-180, 180) for west, _, east, _ in sides)
    crossing = [shape for shape in found.geometry if shape.geom_type == "MultiPolygon"]
    assert len(crossing) == 1
    assert found.length_m.max() < 300
    published = pystac.Item.from_file(str(tmp_path / "a.item.json"))
    assert published.bbox is not None
    west, _, east, _ = published.bbox
    assert west > 179.9
    assert east < -179.9
