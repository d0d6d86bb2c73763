"""Which objects of a time slice lie next to each one, how far away and in which direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EARTH_M = 6371008.8
BESIDE_M = 250.0
"""Distance up to which an object of another label is a neighbour, in metres."""
LOOKED_AT = 9
"""Nearest objects among which one of another label is looked for."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The neighbours of N objects, all by the middles of their bounds."""

    same_m: NDArray[np.float64]
    """(N,) metres to the nearest other object of the label; NaN for the only one of its label."""
    same_deg: NDArray[np.float64]
    """(N,) direction in which the object lies as seen from there, degrees clockwise from north."""
    other: NDArray[np.int64]
    """(N,) position of the nearest object of another label within `BESIDE_M`; -1 for none."""
    other_m: NDArray[np.float64]
    """(N,) metres to it; NaN for none."""
    other_deg: NDArray[np.float64]
    """(N,) direction in which the object lies as seen from there."""


def neighbours(
    labels: NDArray[np.int64], lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> Neighbours:
    """Returns the neighbours of each object.

    Distances are straight lines in metres on a sphere of the Earth's mean radius.

    Args:
        labels: (N,) number of each label.
        lon: (N,) longitudes of the middles, degrees.
        lat: (N,) latitudes of the middles, degrees.
    """
    places = _on_sphere(lon, lat)
    same, same_m = _nearest_same(labels, places)
    other, other_m = _nearest_other(labels, places)
    return Neighbours(
        same_m=same_m,
        same_deg=_direction(same, lon, lat),
        other=other,
        other_m=other_m,
        other_deg=_direction(other, lon, lat),
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
    labels: NDArray[np.int64], places: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from scipy.spatial import cKDTree

    nearest, metres = np.full(len(labels), -1), np.full(len(labels), np.nan)
    if len(np.unique(labels)) < 2:
        return nearest, metres
    count = min(LOOKED_AT, len(labels))
    distance, at = cKDTree(places).query(places, k=count, distance_upper_bound=BESIDE_M)
    there = at < len(labels)
    differs = there & (labels[np.where(there, at, 0)] != labels[:, None])
    first = differs.argmax(axis=1)
    rows = np.flatnonzero(differs.any(axis=1))
    nearest[rows], metres[rows] = at[rows, first[rows]], distance[rows, first[rows]]
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
