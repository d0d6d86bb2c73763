"""Lon/lat geometries at the antimeridian.

Two forms: unwrapped, with longitudes that go on beyond 180, which measures and unions need; and cut
in two at 180, as GeoJSON (RFC 7946, 3.1.9) wants them, which is what is read and written.
"""

from __future__ import annotations

import warnings

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry.base import BaseGeometry

LONLAT = "OGC:CRS84"
METRES_PER_DEGREE = 110_574.0
"""Shortest length of a degree of latitude."""


def unwrapped(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Returns geometries whose longitudes are continuous: those that jump go on beyond 180.

    Args:
        geometries: (N,) geometries; their edges are shorter than 180 degrees.
    """
    # One of several parts may lie on each side as a whole.
    bounds = shapely.bounds(geometries)
    jumps = crosses(geometries) | (
        (shapely.get_num_geometries(geometries) > 1) & (bounds[:, 2] - bounds[:, 0] > 180)
    )
    if not jumps.any():
        return geometries
    fixed = geometries.copy()
    fixed[jumps] = shapely.transform(
        geometries[jumps], lambda at: np.column_stack([at[:, 0] % 360, at[:, 1]])
    )
    return fixed


def crosses(geometries: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Returns for each geometry whether its longitudes jump across the antimeridian.

    An edge from -180 to 180 exactly does not: it goes around the Earth.
    """
    parts, of_part = shapely.get_parts(geometries, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, owner = shapely.get_coordinates(rings, return_index=True)
    step = np.abs(np.diff(points[:, 0]))
    jumps = (step > 180) & (step < 360) & (owner[1:] == owner[:-1])
    found = np.zeros(len(geometries), bool)
    found[of_part[of_ring[owner[1:][jumps]]]] = True
    return found


def cut(geometry: BaseGeometry) -> BaseGeometry:
    """Returns a polygon or multipolygon cut at the antimeridian, if it crosses it.

    Args:
        geometry: unwrapped, or with edges that jump across the antimeridian.
    """
    west, _, east, _ = geometry.bounds
    beyond = east > 180 or west < -180
    if geometry.is_empty or not (beyond or crosses(np.array([geometry], object))[0]):
        return geometry
    if any(part.interiors for part in polygons(geometry)):
        return _cut_with_holes(geometry)
    import antimeridian

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of windings, which it mends
        if geometry.geom_type == "Polygon":
            return shapely.make_valid(antimeridian.fix_polygon(geometry, great_circle=False))
        if geometry.geom_type == "MultiPolygon":
            return shapely.make_valid(antimeridian.fix_multi_polygon(geometry, great_circle=False))
    return geometry


def _cut_with_holes(geometry: BaseGeometry) -> BaseGeometry:
    """Cuts polygons whose holes may cross the antimeridian too, which antimeridian cannot."""
    found: list[shapely.Polygon] = []
    # Part by part: one that crosses the antimeridian does not move the others.
    for whole in shapely.make_valid(unwrapped(shapely.get_parts(geometry))):
        for turn in (-360, 0, 360):
            world = shapely.box(turn - 180, -90, turn + 180, 90)
            inside = affinity.translate(whole.intersection(world), xoff=-turn)
            found += polygons(inside).tolist()
    return found[0] if len(found) == 1 else shapely.MultiPolygon(found)


def polygons(geometry: BaseGeometry) -> NDArray[np.object_]:
    """Returns the polygons of a geometry, which may be a collection, (N,)."""
    # Parts of parts: a collection may hold multipolygons.
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return np.asarray(parts[shapely.area(parts) > 0], object)


def cut_all(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Returns (N,) polygons or multipolygons, cut at the antimeridian where they cross it."""
    bounds = shapely.bounds(geometries).reshape(-1, 4)
    beyond = crosses(geometries) | (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    found = geometries.copy()
    for at in np.flatnonzero(beyond):
        found[at] = cut(geometries[at])
    return found


def around_pole(polygon: shapely.Polygon, *, north: bool) -> BaseGeometry:
    """Returns a polygon that has a pole inside, as GeoJSON wants it: with edges to the pole.

    Args:
        polygon: without holes; its outline goes around the pole once.
        north: whether the pole is the northern one.
    """
    import antimeridian

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of windings, which it mends
        return shapely.make_valid(
            antimeridian.fix_polygon(
                polygon,
                force_north_pole=north,
                force_south_pole=not north,
                great_circle=False,
            )
        )


def boxes(geometry: BaseGeometry) -> BaseGeometry:
    """Returns the bounding box of each part of a geometry.

    One box for both sides of the antimeridian would span the Earth.
    """
    if geometry.geom_type == "Polygon":
        return shapely.envelope(geometry)
    parts = shapely.get_parts(geometry)
    return shapely.union_all(shapely.box(*shapely.bounds(parts).T))


def middle(geometry: BaseGeometry) -> shapely.Point:
    """Returns the centroid of the largest part of a geometry."""
    parts = shapely.get_parts(geometry)
    return shapely.centroid(parts[int(np.argmax(shapely.area(shapely.envelope(parts))))])


def box_centre(geometry: BaseGeometry) -> shapely.Point:
    """Returns the centre of a geometry's bounding box, between -180 and 180 degrees.

    The bounds of one that is cut at the antimeridian span the Earth.
    """
    west, south, east, north = unwrapped(np.array([geometry], object))[0].bounds
    return shapely.Point(((west + east) / 2 + 180) % 360 - 180, (south + north) / 2)


def grown(shape: BaseGeometry, metres: float) -> BaseGeometry:
    """Returns the box around a lon/lat geometry, wider by a distance; the geometry itself for 0."""
    if not metres:
        return shape
    west, south, east, north = unwrapped(np.array([shape], object))[0].bounds
    high = metres / METRES_PER_DEGREE
    wide = high / max(np.cos(np.deg2rad(min(max(abs(south), abs(north)), 89.0))), 1e-3)
    return cut(shapely.box(west - wide, south - high, east + wide, north + high))


def is_bbox(west: float, south: float, east: float, north: float) -> bool:
    """Whether these are bounds in degrees; west exceeds east across the antimeridian."""
    narrow = west < east or (west > east and east + 360 - west < 180)
    return max(abs(west), abs(east)) <= 180 and narrow and -90 <= south < north <= 90


def bbox_area(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Returns the area of bounds in degrees, cut at the antimeridian."""
    area = shapely.box(west, south, east + 360 * (east < west), north)
    # An edge of more than 180 degrees would count as a jump across the antimeridian.
    return cut(shapely.segmentize(area, 90) if east - west > 90 else area)


def bbox(geometry: BaseGeometry) -> list[float]:
    """Returns west, south, east, north; west exceeds east if it crosses the antimeridian."""
    west, south, east, north = geometry.bounds
    if (west, east) == (-180.0, 180.0):
        # It crosses if there is a gap elsewhere: the widest one lies outside the box.
        spans = sorted((box[0], box[2]) for box in shapely.bounds(shapely.get_parts(geometry)))
        reach, gap = spans[0][1], (0.0, west, east)
        for start, end in spans[1:]:
            gap = max(gap, (start - reach, start, reach))
            reach = max(reach, end)
        if gap[0] > 0:
            west, east = gap[1], gap[2]
    return [float(west), float(south), float(east), float(north)]
