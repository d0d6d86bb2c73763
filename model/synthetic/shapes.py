"""Outlines of objects as convex polygons on a plane: boxes, discs, hulls, airframes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""A convex polygon: x and y in metres, (N, 2), counter-clockwise, not closed."""


def disc(cx: float, cy: float, radius: float) -> Ring:
    """Returns the outline of a disc, 20 corners."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.stack([cx + radius * np.cos(angles), cy + radius * np.sin(angles)], axis=1)


def airframe(
    cx: float, cy: float, heading: float, length: float, span: float, body: float
) -> list[Ring]:
    """Returns the outline of an aircraft as convex parts; `body` is the width of its body."""
    parts = [
        [
            (length / 2, 0),
            (length / 2 - body, body / 2),
            (-length / 2, body / 2),
            (-length / 2, -body / 2),
            (length / 2 - body, -body / 2),
        ],
        [(body, 0), (-length * 0.12, span / 2), (-length * 0.2, span / 2), (-length * 0.12, 0)],
        [(body, 0), (-length * 0.12, 0), (-length * 0.2, -span / 2), (-length * 0.12, -span / 2)],
        [(-length * 0.34, 0), (-length / 2, span * 0.18), (-length / 2, -span * 0.18)],
    ]
    return [place(np.array(part, float), cx, cy, heading) for part in parts]


def hull(cx: float, cy: float, heading: float, length: float, width: float) -> Ring:
    """Returns the outline of a ship."""
    a, w = length / 2, width / 2
    outline = [
        (a, 0),
        (a * 0.72, w),
        (-a * 0.93, w),
        (-a, w * 0.6),
        (-a, -w * 0.6),
        (-a * 0.93, -w),
        (a * 0.72, -w),
    ]
    return place(np.array(outline), cx, cy, heading)


def box(cx: float, cy: float, length: float, width: float, heading: float) -> Ring:
    """Returns the outline of a rectangle whose long axis points to `heading` degrees."""
    a, w = length / 2, width / 2
    return place(np.array([(a, w), (-a, w), (-a, -w), (a, -w)]), cx, cy, heading)


def place(outline: Ring, cx: float, cy: float, heading: float) -> Ring:
    """Places an outline whose corners are given as (forward, left) of its centre.

    Args:
        outline: corners, (N, 2).
        cx: x of the centre.
        cy: y of the centre.
        heading: direction of forward, degrees from the y axis towards the x axis.
    """
    turn = np.deg2rad(90.0 - heading)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    placed: Ring = outline @ rotation.T + (cx, cy)
    return placed
