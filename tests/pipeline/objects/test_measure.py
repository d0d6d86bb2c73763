import numpy as np
import pyproj
import pytest
import shapely

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.objects import measure
from earthgptx.pipeline.objects.measure import (
    GroundedObject,
    outlines,
)
from earthgptx.pipeline.objects.measure import ground as ground_all
from earthgptx.pipeline.objects.parts import Part

AREA = shapely.box(0, 0, 1, 1)


def grid(
    crs: str = "EPSG:32631", side: float = 10.0, west: float = 500_000.0, north: float = 4_700_000.0
) -> Grid:
    return Grid(
        name="g",
        crs=crs,
        transform=(side, 0, west, 0, -side, north),
        shape=(1000, 1000),
        lattice=(0, 0),
        tile_px=512,
        halo_px=64,
        block_px=768,
        search_area=AREA,
        answer_area=AREA,
        zone=None,
    )


def part(mask: Mask, label: str = "ship", **more: object) -> Part:
    known: dict[str, object] = {
        "label": label,
        "score": 0.9,
        "mask": mask,
        "caption": "",
        "prompt_ids": (),
        "prompted": False,
        "tile": (0, 0),
        "scope": Window(0, 0, 512, 512),
        "cut": False,
        "at_home": True,
        **more,
    }
    return Part(**known)  # type: ignore[arg-type]


def box(height: int, width: int, y0: int = 100, x0: int = 100) -> Mask:
    return Mask.from_array(np.ones((height, width), bool), y0=y0, x0=x0)


def ground(one: Part, where: Grid, time: int, start: str) -> GroundedObject:
    [found] = ground_all([one], where, time, start)
    return found


@pytest.mark.parametrize(("height", "width", "orientation"), [(4, 20, 90), (20, 4, 0)])
def test_lengths_are_metres_and_the_angle_runs_from_north(
    height: int, width: int, orientation: float
) -> None:
    found = ground(part(box(height, width)), grid(), 0, "2026")
    assert found.length_m == pytest.approx(200, rel=0.002)
    assert found.width_m == pytest.approx(40, rel=0.002)
    assert found.area_m2 == pytest.approx(8000, rel=0.003)
    assert (
        min(
            abs(found.orientation_deg - orientation), 180 - abs(found.orientation_deg - orientation)
        )
        < 1
    )


def test_metres_are_true_where_the_grid_stretches_them() -> None:
    # Web Mercator at 60 N shows everything twice as long.
    to_mercator = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True)
    west, north = to_mercator.transform(10, 60)
    found = ground(part(box(20, 20, 0, 0)), grid("EPSG:3857", 10.0, west, north), 0, "2026")
    geod = pyproj.Geod(ellps="WGS84")
    area, _ = geod.geometry_area_perimeter(shapely.geometry.polygon.orient(found.geometry))
    assert found.area_m2 == pytest.approx(area, rel=0.002)
    assert found.length_m == pytest.approx(100, rel=0.02)


def test_an_id_comes_from_place_and_time_alone() -> None:
    one = ground(part(box(3, 4)), grid(), 0, "2026-01-01")
    assert (
        one.object_id
        == ground(part(box(3, 4), score=0.5, tile=(7, 7)), grid(), 3, "2026-01-01").object_id
    )
    others = [
        ground(part(box(3, 4)), grid(), 0, "2026-01-02"),
        ground(part(box(3, 4, 101)), grid(), 0, "2026-01-01"),
        ground(part(box(3, 4), "tank"), grid(), 0, "2026-01-01"),
        ground(part(box(3, 4), prompted=True, prompt_ids=("p",)), grid(), 0, "2026-01-01"),
    ]
    assert len({one.object_id, *(other.object_id for other in others)}) == 5
    assert all(0 < found.object_id < 2**63 for found in others)


def test_an_outline_keeps_holes_and_pieces() -> None:
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert len(ground(part(Mask.from_array(ring)), grid(), 0, "t").geometry.interiors) == 1
    diagonal = np.eye(3, dtype=bool)
    assert (
        ground(part(Mask.from_array(diagonal)), grid(), 0, "t").geometry.geom_type == "MultiPolygon"
    )


def test_an_outline_that_is_made_of_pieces_is_the_same() -> None:
    inside = np.zeros((200, 300), bool)
    inside[20:180, 40:260] = True
    inside[60:90, 100:150] = False
    mask = Mask.from_array(inside)
    [whole] = outlines([mask], grid())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "DRAWN_PX", 1000)
        patch.setattr(measure, "PIECE_PX", 64)
        [pieced] = outlines([mask], grid())
    assert whole.equals_exact(shapely.simplify(pieced, 0), 0) or whole.equals(pieced)
    assert whole.symmetric_difference(pieced).area < 1e-12 * whole.area
