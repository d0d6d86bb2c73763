"""Geometries at the antimeridian."""

import numpy as np
import pytest
import shapely

from earthgptx.pipeline.job.lonlat import bbox, boxes, crosses, cut, middle, unwrapped

EAST = shapely.box(179, 10, 180, 11)
BEYOND = shapely.box(179, 10, 181, 11)
JUMPS = shapely.Polygon([(179, 10), (-179, 10), (-179, 11), (179, 11)])
WORLD = shapely.box(-180, -90, 180, 90)


@pytest.mark.parametrize("geometry", [BEYOND, JUMPS], ids=["beyond", "jumps"])
def test_a_polygon_is_cut_in_two(geometry: shapely.Polygon) -> None:
    found = cut(geometry)
    assert found.geom_type == "MultiPolygon"
    assert sorted(part.bounds for part in found.geoms) == [
        (-180, 10, -179, 11),
        (179, 10, 180, 11),
    ]
    assert found.area == pytest.approx(2)
    assert bbox(found) == [179, 10, -179, 11]
    assert cut(found).equals(found)


def test_a_multipolygon_is_cut_too() -> None:
    both = shapely.MultiPolygon([BEYOND, shapely.box(170, 10, 171, 11)])
    assert cut(both).area == pytest.approx(3)
    assert cut(both).bounds[2] == 180


@pytest.mark.parametrize("geometry", [EAST, WORLD, shapely.Polygon()])
def test_what_does_not_cross_stays(geometry: shapely.Polygon) -> None:
    assert cut(geometry) is geometry
    assert not crosses(np.array([geometry], object))[0]


def test_unwrapped_longitudes_go_on() -> None:
    one, other = unwrapped(np.array([JUMPS, EAST], object))
    assert one.bounds == (179, 10, 181, 11)
    assert other is EAST


def test_what_is_cut_already_does_not_cross() -> None:
    halves = shapely.MultiPolygon([EAST, shapely.box(-180, 10, -179, 11)])
    assert not crosses(np.array([halves], object))[0]
    assert cut(halves) is halves
    [one] = unwrapped(np.array([halves], object))
    assert one.bounds == (179, 10, 181, 11)


def test_a_box_goes_around_the_widest_gap() -> None:
    halves = shapely.MultiPolygon([shapely.box(-180, 0, 0, 1), shapely.box(0, 0, 180, 1)])
    assert bbox(halves) == [-180, 0, 180, 1]
    three = [
        shapely.box(170, 0, 180, 1),
        shapely.box(-180, 0, -170, 1),
        shapely.box(-150, 0, -140, 1),
    ]
    assert bbox(shapely.MultiPolygon(three)) == [170, 0, -140, 1]


def test_boxes_and_middles_are_those_of_the_parts() -> None:
    halves = cut(shapely.box(178, 10, 181, 11))
    assert boxes(halves).area == pytest.approx(3)
    assert middle(halves).x == pytest.approx(179)
    assert boxes(shapely.box(1, 2, 3, 4).boundary.convex_hull).bounds == (1, 2, 3, 4)


@pytest.mark.parametrize("west", [-180.0, -170.0, -100.0, -91.0, -10.0])
def test_a_box_wider_than_half_the_world_is_what_lies_inside(west: float) -> None:
    from earthgptx.pipeline.job.lonlat import bbox_area

    area = cut(bbox_area(west, -80, -west, 80))
    assert area.contains(shapely.Point(0, 0))
    assert area.bounds == (west, -80, -west, 80)
    assert west == -180 or not area.intersects(shapely.Point(west - 1, 0))


def test_holes_are_cut_at_the_antimeridian_too() -> None:
    outline = shapely.box(179, 10, 181, 12).difference(shapely.box(179.5, 10.5, 180.5, 11.5))
    found = cut(outline)
    assert found.geom_type == "MultiPolygon"
    assert found.area == pytest.approx(3)
    assert found.bounds == (-180, 10, 180, 12)
    assert not found.intersects(shapely.Point(179.8, 11))
    assert not found.intersects(shapely.Point(-179.8, 11))
    assert found.intersects(shapely.Point(-179.2, 11))


def test_a_part_elsewhere_stays_where_it_is() -> None:
    crossing = shapely.box(179, 10, 181, 12)
    holed = shapely.box(-1, 10, 1, 12).difference(shapely.box(-0.1, 10.5, 0.1, 11.5))
    found = cut(shapely.MultiPolygon([crossing, holed]))
    assert found.area == pytest.approx(crossing.area + holed.area)
    assert found.intersects(shapely.Point(0.5, 11))
