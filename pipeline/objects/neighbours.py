"""Which objects of a time slice lie next to each one, how far away and in which direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.objects.landmarks import (
    EARTH_M,
    NEAR_M,
    Landmarks,
    Placed,
    beside,
)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The neighbours of N objects, by the middles of their bounds and the outlines of landmarks."""

    same_m: NDArray[np.float64]
    """(N,) metres to the nearest other object of the label; NaN for the only one of its label."""
    same_deg: NDArray[np.float64]
    """(N,) direction in which the object lies as seen from there, degrees clockwise from north."""
    other: NDArray[np.int64]
    """(N,) position of the nearest object of another label within `NEAR_M`; -1 for none, or if it
    is no landmark and nearer than half the object's width: the same thing, found for another
    phrase."""
    other_m: NDArray[np.float64]
    """(N,) metres to it, 0 in a landmark; NaN for none."""
    other_deg: NDArray[np.float64]
    """(N,) direction in which the object lies as seen from there."""
    landmark: NDArray[np.bool_]
    """(N,) whether it is a landmark, so that `other_m` is the distance from its outline."""


def neighbours(objects: Placed, landmarks: Landmarks) -> Neighbours:
    """Returns the neighbours of each object.

    Distances are straight lines in metres on a sphere of the Earth's mean radius.

    Args:
        objects: all objects of the slice.
        landmarks: those of them whose outlines count, not their middles.
    """
    # Of several that are as near, the answer does not depend on the order of the objects.
    order = np.lexsort([objects.lat, objects.lon, objects.labels])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    labels, lon, lat = objects.labels[order], objects.lon[order], objects.lat[order]
    large = np.zeros(len(order), bool)
    large[back[landmarks.rows]] = True
    places = _on_sphere(lon, lat)
    same, same_m = _nearest_same(labels, places)
    other, other_m = _nearest_other(labels, places, large)
    twin = other_m <= objects.width_m[order] / 2
    small, small_m = (
        np.where((other >= 0) & ~twin, order[other], -1)[back],
        np.where(twin, np.nan, other_m)[back],
    )
    lies = beside(objects, landmarks)
    by_outline = (lies.landmark >= 0) & ~(small_m < lies.metres)
    return Neighbours(
        same_m=same_m[back],
        same_deg=_direction(same, lon, lat)[back],
        other=np.where(by_outline, lies.landmark, small),
        other_m=np.where(by_outline, lies.metres, small_m),
        other_deg=np.where(by_outline, lies.degrees, _direction(other, lon, lat)[back]),
        landmark=by_outline,
    )


def _on_sphere(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    east, north = np.deg2rad(lon), np.deg2rad(lat)
    axes = [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]
    return np.column_stack(axes) * EARTH_M


def _nearest_same(
    labels: NDArray[np.int64], places: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from scipy.spatial import cKDTree

    nearest, metres = np.full(len(labels), -1), np.full(len(labels), np.nan)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        distance, at = cKDTree(places[members]).query(places[members], k=2)
        # Of two objects at one place either may come first.
        second = np.where(at[:, 1] == np.arange(len(members)), at[:, 0], at[:, 1])
        nearest[members], metres[members] = members[second], distance[:, 1]
    return nearest, metres


def _nearest_other(
    labels: NDArray[np.int64], places: NDArray[np.float64], large: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from scipy.spatial import cKDTree

    nearest, metres = np.full(len(labels), -1), np.full(len(labels), np.nan)
    kinds = np.unique(labels)
    for label in kinds if len(kinds) > 1 else ():
        mine, others = np.flatnonzero(labels == label), np.flatnonzero((labels != label) & ~large)
        if not len(others):
            continue
        tree = cKDTree(places[others])
        distance, at = tree.query(places[mine], distance_upper_bound=NEAR_M)
        there = at < len(others)
        nearest[mine[there]], metres[mine[there]] = others[at[there]], distance[there]
    return nearest, metres


def _direction(
    of: NDArray[np.int64], lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the direction of each object as seen from another one; 0 where there is none."""
    from_there = np.where(of >= 0, of, np.arange(len(of)))
    east = (lon - lon[from_there] + 180) % 360 - 180
    north = lat - lat[from_there]
    middle = np.deg2rad((lat + lat[from_there]) / 2)
    return np.rad2deg(np.arctan2(east * np.cos(middle), north)) % 360
