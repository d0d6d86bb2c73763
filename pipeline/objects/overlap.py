"""Which objects of two time slices are the same, by the overlap of their outlines.

Pure decisions over arrays of outlines, labels and ids.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

SAME_IOU = 0.2
"""Overlap (intersection over union) from which two outlines of one label are the same object."""


class Shapes(NamedTuple):
    """N objects of a time slice."""

    outlines: NDArray[np.object_]
    """(N,) lon/lat."""
    labels: NDArray[np.object_]
    ids: NDArray[np.int64]


class Pairs(NamedTuple):
    """P pairs of objects, as positions in two sets of them."""

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    overlap: NDArray[np.float64]
    """Intersection over union, 0..1."""

    def take(self, kept: NDArray[np.int64] | NDArray[np.bool_]) -> Pairs:
        """Returns some of the pairs."""
        return Pairs(self.old[kept], self.new[kept], self.overlap[kept])


def overlapping(old: Shapes, new: Shapes) -> Pairs:
    """Returns all pairs of one label whose outlines overlap by `SAME_IOU` or more."""
    if not len(old.ids) or not len(new.ids):
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    first, second = shapely.STRtree(new.outlines).query(old.outlines, predicate="intersects")
    same = old.labels[first] == new.labels[second]
    first, second = first[same], second[same]
    one, other = old.outlines[first], new.outlines[second]
    shared = shapely.area(shapely.intersection(one, other))
    union = shapely.area(one) + shapely.area(other) - shared
    overlap = np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)
    keep = overlap >= SAME_IOU
    return Pairs(first, second, overlap).take(keep)


def each_once(
    old: NDArray[np.int64], new: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the pairs that are kept if each object may be in one pair only.

    Args:
        old: (P,) one object of each pair, as any number that stands for it.
        new: (P,) the other one.
        order: (P,) positions of the pairs; of two that share an object, the first is kept.
    """
    taken_old: set[int] = set()
    taken_new: set[int] = set()
    kept = []
    for at, a, b in zip(order.tolist(), old[order].tolist(), new[order].tolist(), strict=True):
        if a not in taken_old and b not in taken_new:
            taken_old.add(a)
            taken_new.add(b)
            kept.append(at)
    return np.array(kept, np.int64)
