"""What two grids of neighbouring zones show of objects on their border becomes one object each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio.features
import shapely
from affine import Affine
from shapely.affinity import rotate, scale, translate
from shapely.geometry.base import BaseGeometry

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.objects.measure import GroundedObject, ground
from earthgptx.pipeline.objects.parts import Part
from earthgptx.pipeline.objects.zones import is_apart, once_across_zones

LAT = 45.0
METRE = 1 / 111_000
"""In degrees of latitude."""


def project(shape: BaseGeometry, epsg: int) -> BaseGeometry:
    move = pyproj.Transformer.from_crs("OGC:CRS84", f"EPSG:{epsg}", always_xy=True)
    dense = shapely.segmentize(shape, 0.001)
    return shapely.transform(dense, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1])))


def grid(epsg: int, border: float, *, step: float = 10, halo: int = 64, lat: float = LAT) -> Grid:
    """The grid of a zone, 40 km around a place on the border of zones."""
    number = epsg % 100
    west, east = 6.0 * number - 186, 6.0 * number - 180
    [x], [y] = shapely.get_coordinates(project(shapely.Point(border, lat), epsg)).T
    left, top = round(x / step) * step - 20_000, round(y / step) * step + 20_000
    everything = shapely.box(left, top - 40_000, left + 40_000, top)
    own = project(
        shapely.box(max(west, border - 1), lat - 0.4, min(east, border + 1), lat + 0.4), epsg
    )
    side = int(40_000 / step)
    return Grid(
        name=f"epsg{epsg}",
        crs=f"EPSG:{epsg}",
        transform=(step, 0, left, 0, -step, top),
        shape=(side, side),
        lattice=(0, 0),
        tile_px=256,
        halo_px=halo,
        block_px=512,
        search_area=own.buffer(halo * step).intersection(everything),
        answer_area=own.intersection(everything),
        zone=(west, -90.0, east, 90.0),
    )


def rectangle(lon: float, *, length: float, width: float = 40, angle: float = 0) -> BaseGeometry:
    """A rectangle of metres around a place, lon/lat."""
    flat = rotate(shapely.box(-length / 2, -width / 2, length / 2, width / 2), angle)
    wide = METRE / np.cos(np.deg2rad(LAT))
    return translate(scale(flat, wide, METRE, origin=(0, 0)), lon, LAT)


def part(mask: Mask) -> Part:
    return Part(
        label="ship",
        score=0.9,
        mask=mask,
        caption="",
        prompt_ids=(),
        prompted=False,
        tile=(0, 0),
        scope=Window(0, 0, 1, 1),
        cut=False,
        at_home=True,
    )


def seen(where: Grid, shape: BaseGeometry, **more: Any) -> GroundedObject:
    """What a grid shows of a shape."""
    shown = project(shape, int(where.name[4:])).intersection(where.search_area)
    west, south, east, north = shown.bounds
    left, top = (int(np.floor(at)) - 2 for at in ~where.affine @ (west, north))
    right, bottom = (int(np.ceil(at)) + 2 for at in ~where.affine @ (east, south))
    here = where.affine @ Affine.translation(left, top)
    mask = rasterio.features.rasterize([shown], (bottom - top, right - left), transform=here)
    whole = part(Mask.from_array(mask.astype(bool), y0=top, x0=left))
    [found] = ground([replace(whole, **more)], where, 0, "2026-01-01")
    return found


def merged(objects: Sequence[GroundedObject], *grids: Grid) -> list[GroundedObject]:
    found = once_across_zones(objects, {each.name: each for each in grids}, 0.0)
    assert {each.object_id for each in found} <= {each.object_id for each in objects}
    return found


WEST, EAST = grid(32631, 6.0), grid(32632, 6.0)


@pytest.mark.parametrize("angle", [0, 30, 90])
@pytest.mark.parametrize("shift_m", [-60, -5, 0, 5, 60])
def test_a_ship_on_the_border_is_one_object_with_a_mask_in_both_grids(
    angle: float, shift_m: float
) -> None:
    ship = rectangle(6 + shift_m * METRE / np.cos(np.deg2rad(LAT)), length=120, angle=angle)
    [found] = merged([seen(WEST, ship), seen(EAST, ship)], WEST, EAST)
    assert found.length_m == pytest.approx(120, abs=25)
    assert [name for name, _ in found.elsewhere] == [
        EAST.name if found.grid == WEST.name else WEST.name
    ]


def test_ships_side_by_side_stay_two() -> None:
    wide = METRE / np.cos(np.deg2rad(LAT))
    ships = [rectangle(6 + side * 23 * wide, length=120, angle=90) for side in (-1, 1)]
    objects = [seen(where, ship) for where in (WEST, EAST) for ship in ships]
    assert len(merged(objects, WEST, EAST)) == 2


@pytest.mark.parametrize("shift_m", [-2000, 0, 700, 2000])
def test_a_long_object_is_whole(shift_m: float) -> None:
    pier = rectangle(6 + shift_m * METRE / np.cos(np.deg2rad(LAT)), length=6000)
    [found] = merged([seen(WEST, pier), seen(EAST, pier)], WEST, EAST)
    assert found.length_m == pytest.approx(6000, abs=60)
    assert found.area_m2 == pytest.approx(6000 * 40, rel=0.25)
    assert shapely.union(found.geometry, pier).area < 1.3 * pier.area


@pytest.mark.parametrize("halo", [20, 100])
@pytest.mark.parametrize("step", [10, 30])
def test_it_is_whole_if_one_grid_sees_less_or_is_coarser(halo: int, step: float) -> None:
    east = grid(32632, 6.0, step=step, halo=halo)
    for shift_m in (-400, 0, 400):
        pier = rectangle(6 + shift_m * METRE / np.cos(np.deg2rad(LAT)), length=1900, width=90)
        [found] = merged([seen(WEST, pier), seen(east, pier)], WEST, east)
        assert found.length_m == pytest.approx(1900, abs=4 * step)


def test_the_noise_of_a_model_does_not_widen_an_object() -> None:
    ship, other = rectangle(6.0, length=300, width=100), rectangle(6.0, length=300, width=200)
    objects = [seen(WEST, ship, score=0.95), seen(EAST, other)]
    [found] = merged(objects, WEST, EAST)
    assert found.area_m2 == pytest.approx(300 * 100, rel=0.2)


def test_an_object_over_three_zones_is_one() -> None:
    grids = [
        replace(grid(32629 + number, 0.0), zone=(-3.0 + 2 * number, -90.0, -1.0 + 2 * number, 90.0))
        for number in (0, 1, 2)
    ]
    wide = shapely.box(-1.6, LAT, 1.6, LAT + 0.002)
    pieces = []
    for where, (west, east) in zip(grids, ((-3, -0.9), (-1.1, 1.1), (0.9, 3)), strict=True):
        area = project(shapely.box(west, LAT - 0.1, east, LAT + 0.1), int(where.name[4:]))
        pieces.append(seen(replace(where, search_area=area), wide))
        grids[grids.index(where)] = replace(where, search_area=area)
    [found] = merged(pieces, *grids)
    assert found.geometry.bounds[0] == pytest.approx(-1.6, abs=0.001)
    assert found.geometry.bounds[2] == pytest.approx(1.6, abs=0.001)


@pytest.mark.parametrize(("length", "shift"), [(150, 0.0), (150, 0.0002), (5000, 0.0)])
def test_at_the_antimeridian_nothing_is_lost_and_nothing_twice(length: float, shift: float) -> None:
    west, east = grid(32660, 179.999999), grid(32601, -179.999999)
    ship = rectangle(180 + shift, length=length)
    [found] = merged([seen(west, ship), seen(east, ship)], west, east)
    assert found.length_m == pytest.approx(length, abs=60)
    assert found.geometry.bounds[0] == -180


def test_what_neither_grid_keeps_is_kept_once() -> None:
    """Each grid sees its centre in the other's zone."""
    wide = METRE / np.cos(np.deg2rad(LAT))
    objects = [
        seen(WEST, rectangle(6 + 60 * wide, length=400)),
        seen(EAST, rectangle(6 - 60 * wide, length=400)),
    ]
    assert len(merged(objects, WEST, EAST)) == 1


def test_answers_to_prompts_are_kept_by_the_grid_that_was_asked() -> None:
    east_of_it = rectangle(6.002, length=200)
    answer = {"prompted": True, "prompt_ids": ("p1",)}
    [found] = merged([seen(WEST, east_of_it, **answer)], WEST, EAST)
    assert found.part.prompt_ids == ("p1",)


def test_prompts_of_both_grids_about_one_object_are_its_prompts() -> None:
    ship = rectangle(6.0, length=200)
    objects = [seen(WEST, ship, prompt_ids=("p1",)), seen(EAST, ship, prompt_ids=("p2",))]
    [found] = merged(objects, WEST, EAST)
    assert found.part.prompt_ids == ("p1", "p2")


def test_answers_to_two_prompts_stay_two() -> None:
    ship = rectangle(6.0, length=200)
    objects = [
        seen(where, ship, prompted=True, prompt_ids=(name,))
        for where, name in ((WEST, "p1"), (EAST, "p2"))
    ]
    found = merged(objects, WEST, EAST)
    assert sorted(each.part.prompt_ids for each in found) == [("p1",), ("p2",)]


@pytest.mark.parametrize(
    ("crses", "zones_only", "metres", "apart"),
    [
        (("EPSG:32631",), True, 0.0, True),  # there is no other grid
        (("EPSG:32631", "EPSG:32632"), True, -20_000.0, True),
        (("EPSG:32631", "EPSG:32632"), True, -1000.0, True),
        (("EPSG:32631", "EPSG:32632"), True, -500.0, False),  # within the halo of 640 m
        (("EPSG:32631", "EPSG:32632"), True, 300.0, False),
        (("EPSG:32631", "EPSG:2154"), False, -20_000.0, False),  # a grid over the whole AOI
    ],
)
def test_an_object_is_apart_where_no_other_grid_can_show_it(
    crses: tuple[str, ...], zones_only: bool, metres: float, apart: bool
) -> None:
    mine = grid(32631, 6.0)
    lon = 6.0 + metres * METRE / np.cos(np.deg2rad(LAT))
    at = project(shapely.Point(lon, LAT), 32631)
    col, row = ~mine.affine @ (at.x, at.y)
    mask = Mask.from_array(np.ones((3, 3), bool), y0=int(row), x0=int(col))
    [found] = ground([part(mask)], mine, 0, "t")
    plan: Any = SimpleNamespace(
        lattices=dict.fromkeys(crses), zones_only=zones_only, grids={mine.name: mine}, reach_px=64
    )
    assert is_apart(found, plan) == apart
