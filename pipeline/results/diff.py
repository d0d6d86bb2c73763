"""What has changed between two time slices of a result, object by object.

Objects are matched by overlap, then by place: pure decisions over tables. Where the other slice has
no answer, an object is said to be not seen, not to have appeared or vanished.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import parse_interval
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import LONLAT, box_centre
from earthgptx.pipeline.results.query import Result, objects_of_slice
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.store import Status

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

SAME_IOU = 0.2
"""Overlap (intersection over union) from which two outlines of one label are the same object."""
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
    rows = sorted(result.time_slices, key=lambda row: (row.start, row.name))
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


Shapes = tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.int64]]
"""Outlines (lon/lat), labels and ids of objects."""


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
    centres_old, centres_new = _centres(old[0]), _centres(new[0])

    def metres(a: int, b: int) -> float:
        return float(np.linalg.norm(centres_old[a] - centres_new[b]))

    taken_old: set[int] = set()
    taken_new: set[int] = set()
    pairs: list[tuple[int, int, float, float]] = []

    def take(candidates: Iterable[tuple[tuple[float, int, int], int, int, float]]) -> None:
        for _, a, b, overlap in sorted(candidates):
            if a not in taken_old and b not in taken_new:
                taken_old.add(a)
                taken_new.add(b)
                pairs.append((a, b, metres(a, b), overlap))

    take(
        ((-overlap, int(old[2][a]), int(new[2][b])), a, b, overlap)
        for a, b, overlap in _overlapping(old, new)
    )
    take(
        ((metres(a, b), int(old[2][a]), int(new[2][b])), a, b, 0.0)
        for a, b in _near(old, new, centres_old, centres_new, moved_m)
        if a not in taken_old and b not in taken_new
    )
    lone_old = [at for at in range(len(old[0])) if at not in taken_old]
    lone_new = [at for at in range(len(new[0])) if at not in taken_new]
    return pairs, lone_old, lone_new


def _overlapping(old: Shapes, new: Shapes) -> list[tuple[int, int, float]]:
    if not len(old[0]) or not len(new[0]):
        return []
    first, second = shapely.STRtree(new[0]).query(old[0], predicate="intersects")
    same = old[1][first] == new[1][second]
    first, second = first[same], second[same]
    shared = shapely.area(shapely.intersection(old[0][first], new[0][second]))
    union = shapely.area(old[0][first]) + shapely.area(new[0][second]) - shared
    overlap = np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)
    keep = overlap >= SAME_IOU
    columns = (first[keep], second[keep], overlap[keep])
    return list(zip(*(each.tolist() for each in columns), strict=True))


def _near(
    old: Shapes,
    new: Shapes,
    centres_old: NDArray[np.float64],
    centres_new: NDArray[np.float64],
    moved_m: float,
) -> list[tuple[int, int]]:
    from scipy.spatial import cKDTree

    if not len(old[0]) or not len(new[0]) or moved_m <= 0:
        return []
    near = cKDTree(centres_old).query_ball_tree(cKDTree(centres_new), moved_m)
    areas_old, areas_new = shapely.area(old[0]), shapely.area(new[0])

    def alike(a: int, b: int) -> bool:
        small, large = sorted((areas_old[a], areas_new[b]))
        return bool(old[1][a] == new[1][b] and large <= SAME_SIZE * small)

    return [(a, b) for a, found in enumerate(near) for b in found if alike(a, b)]


def _centres(outlines: NDArray[np.object_]) -> NDArray[np.float64]:
    """Returns the centres of bounding boxes on a sphere of the Earth's radius, (n, 3) in m."""
    if not len(outlines):
        return np.zeros((0, 3))
    middles = [box_centre(each) for each in outlines]
    lon, lat = np.deg2rad([[m.x, m.y] for m in middles]).T
    places = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
    return np.column_stack(places) * EARTH_M


def _shapes(objects: gpd.GeoDataFrame) -> Shapes:
    return (
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
    """Returns for each outline whether a slice has an answer at its centre."""
    middles = [box_centre(each) for each in outlines]
    found = np.zeros(len(middles), bool)
    position = [each.name for each in result.rows].index(row.name)
    lon, lat = [each.x for each in middles], [each.y for each in middles]
    for grid in result.grids if middles else ():
        group = result.group("raster", grid)
        to_grid = pyproj.Transformer.from_crs(
            LONLAT, group["spatial_ref"].attrs["crs_wkt"], always_xy=True
        )
        x, y = (np.asarray(each) for each in to_grid.transform(lon, lat))
        a, _, c, _, e, f = group.attrs["spatial:transform"][:6]
        rows, cols = np.floor((y - f) / e), np.floor((x - c) / a)
        status = group["status"]
        if status.sizes["time"] <= position:  # a zone that a run has just begun
            continue
        inside = (rows >= 0) & (rows < status.sizes["y"])
        inside &= (cols >= 0) & (cols < status.sizes["x"])
        places = {"y": rows[inside].astype(int), "x": cols[inside].astype(int)}
        values = status.isel(time=position).isel({n: ("at", v) for n, v in places.items()}).values
        found[inside] |= values == Status.DONE
    return [bool(each) for each in found]
