"""What has changed between two time slices of a result, object by object.

Objects are matched by overlap, then by place: pure decisions over tables. Where the other slice has
no answer, an object is said to be not seen, not to have appeared or vanished.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import parse_interval
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import LONLAT, box_centre
from earthgptx.pipeline.objects.overlap import SAME_IOU, Pairs, Shapes, each_once, overlapping
from earthgptx.pipeline.results.query import objects_of_slice
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.seen import answered
from earthgptx.pipeline.results.slices_group import SliceRow

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

SAME_SIZE = 1.5
"""Largest ratio of the areas of an object that has moved."""
EARTH_M = 6371008.8
CHANGES = ("appeared", "vanished", "moved", "stayed", "not seen before", "not seen after")
COLUMNS = (
    "change",
    "label",
    "score",
    "moved_m",
    "overlap",
    "before_id",
    "after_id",
    "caption",
    "geometry",
)


def diff(
    result: Result, before: str, after: str, *, moved_m: float = 200.0, **asked: Any
) -> gpd.GeoDataFrame:
    """Returns what became of the objects of one time slice in another one.

    Args:
        result: the result.
        before: name of a slice, or a time as in a job file that meets one slice only.
        after: the other slice.
        moved_m: metres that an object may have moved, if its outlines do not overlap.
        asked: conditions of the objects, as of `Result.query`, without time.

    Returns:
        An object a row, in the order of `CHANGES`: its ids in the two slices (0 for none), the
        metres between its centres, the overlap of its outlines (0 to 1); label, score, caption and
        outline are those of the later slice if it is there.

    Raises:
        JobError: a time meets no slice, or several; both are the same.
    """
    import geopandas as gpd

    one, other = find_slice(result, before), find_slice(result, after)
    if one == other:
        raise JobError(f"'{before}' and '{after}' are the same time slice, {one.name}")
    old, new = (objects_of_slice(result, row, **asked) for row in (one, other))
    pairs, lone_old, lone_new = match(_shapes(old), _shapes(new), moved_m)
    rows = []
    for a, b, metres, overlap in pairs:
        change = "stayed" if overlap >= SAME_IOU else "moved"
        row = _row(
            change, new.iloc[b], int(old.iloc[a]["object_id"]), int(new.iloc[b]["object_id"])
        )
        rows.append(row | {"moved_m": round(metres, 1), "overlap": round(overlap, 3)})
    seen = _seen(result, other, old.geometry.iloc[lone_old])
    for at, there in zip(lone_old, seen, strict=True):
        change = "vanished" if there else "not seen after"
        rows.append(_row(change, old.iloc[at], int(old.iloc[at]["object_id"]), 0))
    seen = _seen(result, one, new.geometry.iloc[lone_new])
    for at, there in zip(lone_new, seen, strict=True):
        change = "appeared" if there else "not seen before"
        rows.append(_row(change, new.iloc[at], 0, int(new.iloc[at]["object_id"])))
    rows.sort(key=lambda row: (CHANGES.index(row["change"]), row["before_id"], row["after_id"]))
    return gpd.GeoDataFrame(rows, columns=list(COLUMNS), geometry="geometry", crs=LONLAT)


def find_slice(result: Result, text: str) -> SliceRow:
    """Returns the finished slice of a name, or the only one that a time meets.

    Raises:
        JobError: there is none, or there are several.
    """
    rows = result.slices_in_time
    found = [row for row in rows if row.name == text]
    if not found:
        try:
            start, end = parse_interval(text)
        except CatalogError as error:
            raise JobError(str(error)) from error
        found = [
            row for row in rows if not (start and row.end < start) and not (end and row.start > end)
        ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(row.name for row in (found or rows)[:8])
    if found:
        raise JobError(f"'{text}' meets {len(found)} time slices; name one of {names}")
    raise JobError(f"no time slice lies at '{text}'; there are {names or 'none'}")


def match(
    old: Shapes, new: Shapes, moved_m: float
) -> tuple[list[tuple[int, int, float, float]], list[int], list[int]]:
    """Pairs the objects of two slices, each with at most one of the other.

    Pairs of the largest overlap come first, then those of the shortest way; among equals, those of
    the lowest ids.

    Args:
        old: objects of the earlier slice.
        new: objects of the later one.
        moved_m: metres that an object may have moved.

    Returns:
        Pairs as position in `old`, position in `new`, metres between the centres, and overlap; then
        the positions of those in `old`, and of those in `new`, that have no partner.
    """
    centres_old, centres_new = _centres(old.outlines), _centres(new.outlines)
    found = overlapping(old, new)
    stayed = _kept(found, old, new, -found.overlap)
    lone_old, lone_new = _others(old, stayed.old), _others(new, stayed.new)
    near = _near(old, new, centres_old, centres_new, moved_m)
    near = near.take(np.isin(near.old, lone_old) & np.isin(near.new, lone_new))
    metres = np.linalg.norm(centres_old[near.old] - centres_new[near.new], axis=1)
    moved = _kept(near, old, new, metres)
    pairs = []
    for found in (stayed, moved):
        metres = np.linalg.norm(centres_old[found.old] - centres_new[found.new], axis=1)
        columns = (found.old, found.new, metres, found.overlap)
        pairs += list(zip(*(column.tolist() for column in columns), strict=True))
    lone_old, lone_new = np.setdiff1d(lone_old, moved.old), np.setdiff1d(lone_new, moved.new)
    return pairs, lone_old.tolist(), lone_new.tolist()


def _kept(pairs: Pairs, old: Shapes, new: Shapes, rank: NDArray[np.float64]) -> Pairs:
    """Returns the pairs that are kept if each object may be in one; the lowest rank first."""
    order = np.lexsort([new.ids[pairs.new], old.ids[pairs.old], rank])
    return pairs.take(each_once(pairs.old, pairs.new, order))


def _others(shapes: Shapes, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the positions of the objects that are not taken."""
    return np.setdiff1d(np.arange(len(shapes.ids)), taken)


def _near(
    old: Shapes,
    new: Shapes,
    centres_old: NDArray[np.float64],
    centres_new: NDArray[np.float64],
    moved_m: float,
) -> Pairs:
    """Returns the pairs of one label and about one size that lie near one another."""
    from scipy.spatial import cKDTree

    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if not len(old.ids) or not len(new.ids) or moved_m <= 0:
        return nothing
    near = cKDTree(centres_old).query_ball_tree(cKDTree(centres_new), moved_m)
    first = np.repeat(np.arange(len(near)), [len(found) for found in near])
    second = np.array([b for found in near for b in found], np.int64)
    areas_old, areas_new = shapely.area(old.outlines)[first], shapely.area(new.outlines)[second]
    small, large = np.minimum(areas_old, areas_new), np.maximum(areas_old, areas_new)
    alike = (old.labels[first] == new.labels[second]) & (large <= SAME_SIZE * small)
    return Pairs(first, second, np.zeros(len(first))).take(alike)


def _centres(outlines: NDArray[np.object_]) -> NDArray[np.float64]:
    """Returns the centres of bounding boxes on a sphere of the Earth's radius, (n, 3) in m."""
    if not len(outlines):
        return np.zeros((0, 3))
    middles = [box_centre(each) for each in outlines]
    lon, lat = np.deg2rad([[m.x, m.y] for m in middles]).T
    places = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
    return np.column_stack(places) * EARTH_M


def _shapes(objects: gpd.GeoDataFrame) -> Shapes:
    return Shapes(
        np.array(objects.geometry.to_list(), object),
        objects["label"].to_numpy(object),
        objects["object_id"].to_numpy(np.int64),
    )


def _row(change: str, shown: pd.Series, before_id: int, after_id: int) -> dict[str, Any]:
    """Returns a row of the table about an object without a partner."""
    kept = {name: shown[name] for name in ("label", "score", "caption", "geometry")}
    ids = {"before_id": before_id, "after_id": after_id}
    return {"change": change, **kept, **ids, "moved_m": 0.0, "overlap": 0.0}


def _seen(result: Result, row: SliceRow, outlines: Iterable[BaseGeometry]) -> list[bool]:
    """Returns for each outline whether a slice has an answer where it lies."""
    places = shapely.get_coordinates(shapely.point_on_surface(np.array(list(outlines), object)))
    position = [each.name for each in result.rows].index(row.name)
    seen, _ = answered(result.root, position, *places.reshape(-1, 2).T)
    return [bool(each) for each in seen]
