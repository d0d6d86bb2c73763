"""Polygons of polar CRSs in lon/lat."""

import pyproj
import pytest
import shapely
import shapely.affinity

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.planning.projection import to_lonlat

SQUARE = shapely.box(-1e6, -1e6, 1e6, 1e6)
FAR = shapely.box(2e6, 2e6, 2.2e6, 2.2e6)


def holds(area: shapely.Geometry, crs: str, x: float, y: float) -> bool:
    """Whether a place of the CRS lies in an area, lon/lat."""
    lon, lat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
    return bool(area.covers(shapely.Point(lon, lat)))


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031", "EPSG:32661", "EPSG:3995"])
@pytest.mark.parametrize(
    "shape",
    [
        SQUARE,
        shapely.MultiPolygon([SQUARE, FAR]),
        SQUARE.difference(shapely.box(-1e5, -1e5, 1e5, 1e5)),
        SQUARE.difference(shapely.box(5e5, 5e5, 6e5, 6e5)),
    ],
    ids=["square", "two parts", "hole at the pole", "hole elsewhere"],
)
def test_a_polygon_around_a_pole_covers_what_it_covered(crs: str, shape: shapely.Geometry) -> None:
    middle = 2e6 if crs == "EPSG:32661" else 0.0  # its false easting and northing
    moved = shapely.affinity.translate(shape, middle, middle)
    found = to_lonlat(moved, crs)
    assert found.is_valid
    for x in range(-14, 25, 3):
        for y in range(-14, 25, 3):
            place = shapely.Point(x * 1e5 + middle + 12_345, y * 1e5 + middle + 23_456)
            if moved.boundary.distance(place) > 20_000:
                assert holds(found, crs, place.x, place.y) == moved.covers(place), place


def test_a_polygon_with_both_poles_is_refused() -> None:
    with pytest.raises(JobError, match="both poles"):
        to_lonlat(shapely.box(-1.2e7, -1.2e7, 1.2e7, 1.2e7), "EPSG:8857")
