"""Rules of the pixels: which CRS is a UTM zone, and which Items a grid takes."""

from __future__ import annotations

import pyproj
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.job.sections import GridSpec
from earthgptx.pipeline.planning.grids import Known, make_grids, utm_zone
from earthgptx.pipeline.planning.projection import ground_metres
from earthgptx.pipeline.reading.native import NativeGrid


@pytest.mark.parametrize(
    ("crs", "zone"),
    [
        ("EPSG:32631", (31, False)),
        ("EPSG:32731", (31, True)),
        ("EPSG:26910", (10, False)),
        ("EPSG:25832", (32, False)),
        ("+proj=utm +zone=33 +south +ellps=bessel +units=m +no_defs", (33, True)),
        ("EPSG:4647", (32, False)),  # PROJ calls it "32N with prefix"
        ("EPSG:26941", None),  # California zone 1, a State Plane CRS
        ("EPSG:3857", None),
        ("EPSG:4326", None),
    ],
)
def test_a_zone_is_what_proj_calls_one(crs: str, zone: tuple[int, bool] | None) -> None:
    assert utm_zone(CRS.from_user_input(crs)) == zone


def grid_items(*codes: int) -> dict[str, list[bool]]:
    """By grid, which Items it takes: one per CRS, 1 km wide, all on a zone border at 12 E."""
    natives, shown = [], []
    for code in codes:
        to_crs = pyproj.Transformer.from_crs("OGC:CRS84", code, always_xy=True)
        x, y = to_crs.transform(12.0, 48.0)
        affine = rasterio.Affine(10, 0, round(x - 500, -1), 0, -10, round(y + 500, -1))
        native = NativeGrid(CRS.from_epsg(code), affine, (100, 100))
        natives.append(native)
        box = transform_bounds(native.crs, "OGC:CRS84", *native.bounds)
        shown.append(shapely.box(*box))
    aoi = shapely.box(11.9, 47.9, 12.1, 48.1)
    _, footprints, _ = make_grids(GridSpec(), aoi, natives, shown, Known())
    return {name: [not shape.is_empty for shape in each] for name, each in footprints.items()}


def test_a_zone_takes_the_items_of_its_neighbour() -> None:
    both = [True, True]
    assert grid_items(32632, 32633) == {"epsg32632": both, "epsg32633": both}


def test_the_zones_follow_from_the_aoi_and_not_from_the_items() -> None:
    assert grid_items(32632) == {"epsg32632": [True], "epsg32633": [True]}


def test_a_zone_has_one_grid_whatever_the_datum_of_its_items() -> None:
    both = [True, True]
    assert grid_items(32632, 25832) == {"epsg32632": both, "epsg32633": both}
    assert grid_items(25832) == {"epsg25832": [True], "epsg25833": [True]}


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32631", (10, 0, 500_000, 0, -10, 4_700_000), 10.0),
        ("EPSG:4326", (1e-4, 0, 3, 0, -1e-4, 60), 7.89),  # 11.1 m to the north, 5.6 m to the east
        ("EPSG:3857", (10, 0, 0, 0, -10, 8_399_738), 5.01),  # at 60 degrees north
        ("EPSG:2263", (1, 0, 1_000_000, 0, -1, 200_000), 0.305),  # US survey feet
        ("EPSG:3413", (100, 0, 0, 0, -100, -2_000_000), 100.0),
    ],
)
def test_metres_per_pixel_are_metres_on_the_ground(
    crs: str, transform: tuple[float, ...], metres: float
) -> None:
    area = shapely.box(0, 0, 1, 1)
    grid = Grid("g", crs, transform, (100, 100), (0, 0), 64, 8, 48, area, area, None)  # type: ignore[arg-type]
    assert ground_metres(grid, grid.window) == pytest.approx(metres, rel=0.01)
