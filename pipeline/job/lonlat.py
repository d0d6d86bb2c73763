"""Lon/lat geometries at the antimeridian.

Two forms: unwrapped, with longitudes that go on beyond 180, which measures and unions need; and cut
in two at 180, as GeoJSON (RFC 7946, 3.1.9) wants them, which is what is read and written.
"""

from __future__ import annotations

import warnings

import antimeridian
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry


def unwrapped(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Returns geometries whose longitudes are continuous: those that jump go on beyond 180.

    Args:
        geometries: (N,) geometries; their edges are shorter than 180 degrees.
    """
    jumps = crosses(geometries)
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
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    step = np.abs(np.diff(points[:, 0]))
    jumps = (step > 180) & (step < 360) & (owner[1:] == owner[:-1])
    found = np.zeros(len(geometries), bool)
    found[owner[1:][jumps]] = True
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of windings, which it mends
        if geometry.geom_type == "Polygon":
            return shapely.make_valid(antimeridian.fix_polygon(geometry, great_circle=False))
        if geometry.geom_type == "MultiPolygon":
            return shapely.make_valid(antimeridian.fix_multi_polygon(geometry, great_circle=False))
    return geometry


def boxes(geometry: BaseGeometry) -> BaseGeometry:
    """Returns the bounding box of each part of a geometry.

    One box for both sides of the antimeridian would span the Earth.
    """
    parts = shapely.get_parts(geometry)
    return shapely.union_all(shapely.box(*shapely.bounds(parts).T))


def middle(geometry: BaseGeometry) -> shapely.Point:
    """Returns the centroid of the largest part of a geometry."""
    parts = shapely.get_parts(geometry)
    return shapely.centroid(parts[int(np.argmax(shapely.area(shapely.envelope(parts))))])


def bbox(geometry: BaseGeometry) -> list[float]:
    """Returns west, south, east, north; west exceeds east if it crosses the antimeridian."""
    west, south, east, north = geometry.bounds
    if geometry.geom_type == "MultiPolygon" and (west, east) == (-180.0, 180.0):
        west, south, east, north = antimeridian.bbox(geometry)
    return [float(west), float(south), float(east), float(north)]
