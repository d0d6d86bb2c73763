"""Which landmark each object of a time slice lies in or beside.

A landmark is a large object, such as a quay or a runway. Distances go to its outline, because the
middle of a large object says little of where its edge is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity

from earthgptx.pipeline.job.lonlat import polygons, unwrapped

EARTH_M = 6371008.8
NEAR_M = 250.0
"""Distance up to which an object of another label is a neighbour, in metres."""
LANDMARK_M = 100.0
"""Length from which an object is a landmark, in metres."""
LARGER = 2.0
"""How many times longer than an object a landmark around it is at least. Two objects of about one
size in one place are one thing, found for two phrases."""
HIDDEN = 0.75
"""Distance, in widths of an object, up to which a hole of a landmark around it is what it hides."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """M objects of a slice that are landmarks."""

    rows: NDArray[np.int64]
    """(M,) position of each among the objects."""
    outlines: NDArray[np.object_]
    """(M,) outlines, lon/lat."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where N objects lie, and how large they are."""

    labels: NDArray[np.int64]
    """(N,) number of each label, in an order of the labels that does not depend on that of the
    objects."""
    lon: NDArray[np.float64]
    """(N,) longitudes of the middles, degrees."""
    lat: NDArray[np.float64]
    """(N,) latitudes of the middles, degrees."""
    length_m: NDArray[np.float64]
    """(N,) long sides, metres."""
    width_m: NDArray[np.float64]
    """(N,) short sides, metres."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The nearest landmark of N objects."""

    landmark: NDArray[np.int64]
    """(N,) position of the landmark among the objects; -1 for none within `NEAR_M`."""
    metres: NDArray[np.float64]
    """(N,) metres from its outline to the object's middle, 0 inside and in a hole of the object's
    size; NaN for none."""
    degrees: NDArray[np.float64]
    """(N,) direction in which the middle lies from there, degrees clockwise from north; 0 inside
    and for none."""


def beside(objects: Placed, landmarks: Landmarks) -> Beside:
    """Returns the nearest landmark of another label of each object.

    Of several that are as near, it is the shortest one.

    Args:
        objects: all objects of a slice.
        landmarks: the landmarks among them.
    """
    count = len(objects.lon)
    found = Beside(np.full(count, -1), np.full(count, np.nan), np.zeros(count))
    if not len(landmarks.rows):
        return found
    # The shortest come first; a later one must be nearer to take their place.
    rows = landmarks.rows
    sizes, names = objects.length_m[rows], objects.labels[rows]
    order = np.lexsort([objects.lat[rows], objects.lon[rows], names, sizes])
    outlines = unwrapped(landmarks.outlines[order])
    tree = shapely.STRtree(shapely.points(objects.lon, objects.lat))
    for row, outline in zip(rows[order].tolist(), outlines, strict=True):
        if not len(polygons(outline)):
            continue
        for turn, near in _candidates(outline, tree):
            who = near[objects.labels[near] != objects.labels[row]]
            lon, lat, width_m = objects.lon[who] + turn, objects.lat[who], objects.width_m[who]
            metres, degrees = _apart(outline, lon, lat, width_m)
            same = objects.length_m[who] * LARGER > objects.length_m[row]
            same &= (metres == 0) | (_between(objects, who, row) * 4 <= objects.length_m[row])
            nearer = (metres <= NEAR_M) & ~(metres >= found.metres[who]) & ~same
            found.landmark[who[nearer]] = row
            found.metres[who[nearer]], found.degrees[who[nearer]] = metres[nearer], degrees[nearer]
    return found


def _between(objects: Placed, who: NDArray[np.int64], row: int) -> NDArray[np.float64]:
    """Returns metres between the middles of some objects and that of one."""
    east = (objects.lon[who] - objects.lon[row] + 180) % 360 - 180
    north = objects.lat[who] - objects.lat[row]
    apart = np.hypot(east * np.cos(np.deg2rad(objects.lat[row])), north)
    return np.asarray(np.deg2rad(apart) * EARTH_M)


def _candidates(
    outline: shapely.Geometry, tree: shapely.STRtree
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields which of the tree's points may lie within `NEAR_M` of an outline, and some others.

    Yields:
        Degrees that longitudes of the points are to be moved by, to lie in the outline's turn
        around the Earth; and the positions of the points.
    """
    west, south, east, north = outline.bounds
    high = np.rad2deg(NEAR_M / EARTH_M)
    wide = high / np.cos(np.deg2rad(min(max(-south, north) + high, 89.99)))
    for turn in (-360, 0, 360):
        if east + wide - turn >= -180 and west - wide - turn <= 180:
            moved = affinity.translate(outline, xoff=-turn)
            yield turn, np.sort(tree.query(moved, predicate="dwithin", distance=wide))


def _apart(
    outline: shapely.Geometry,
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    width_m: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns metres from an outline to objects, and the direction in which they lie from there.

    Both are 0 for objects inside, and for those in a hole of their size.
    The nearest point of the outline is found on a plane whose scale is right at the middle of the
    outline. The distance to it is measured with the scale of the object's latitude.

    Args:
        outline: outline in degrees, unwrapped.
        lon: (N,) longitudes of the objects' middles, in the outline's turn around the Earth.
        lat: (N,) latitudes of the objects' middles.
        width_m: (N,) short sides of the objects.
    """
    _, south, _, north = outline.bounds
    scale = float(np.cos(np.deg2rad((south + north) / 2)))
    flat = shapely.transform(outline, lambda at: at * [scale, 1.0])
    points = shapely.points(lon * scale, lat)
    edges = _edges(flat)
    nearest = edges[shapely.STRtree(edges).nearest(points)] if len(lon) else edges[:0]
    start = shapely.get_coordinates(shapely.shortest_line(nearest, points)).reshape(-1, 2, 2)[:, 0]
    east = (lon - start[:, 0] / scale) * np.cos(np.deg2rad((lat + start[:, 1]) / 2))
    north_of = lat - start[:, 1]
    metres = np.deg2rad(np.hypot(east, north_of)) * EARTH_M
    within = shapely.intersects_xy(flat, lon * scale, lat)
    # An object on a landmark hides a part of it, which then is a hole of its outline.
    around = shapely.union_all(shapely.polygons(shapely.get_exterior_ring(polygons(flat))))
    within |= (metres <= HIDDEN * width_m) & shapely.intersects_xy(around, lon * scale, lat)
    degrees = np.rad2deg(np.arctan2(east, north_of)) % 360
    return np.where(within, 0.0, metres), np.where(within, 0.0, degrees)


def _edges(outline: shapely.Geometry) -> NDArray[np.object_]:
    """Returns the edges of all rings of an outline, as lines of two points each."""
    rings = shapely.get_rings(polygons(outline))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    pairs = np.stack([points[:-1], points[1:]], axis=1)
    lines: NDArray[np.object_] = shapely.linestrings(pairs[ring[:-1] == ring[1:]])
    return lines
