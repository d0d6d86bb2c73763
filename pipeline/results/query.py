"""Asks the objects of one or several results, and refuses what no result can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import shapely

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import parse_interval
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import cut
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.find import count, find, labels
from earthgptx.pipeline.results.object_table import (
    OBJECTS,
    Rows,
    to_frame,
)
from earthgptx.pipeline.results.slices_group import SliceRow

if TYPE_CHECKING:
    import geopandas as gpd

    from earthgptx.pipeline.results.result import Result


def find_objects(
    results: Sequence[Result],
    *,
    order: str = "",
    limit: int | None = None,
    rank: bool = False,
    rows: Rows = OBJECTS,
    **asked: Any,
) -> pa.Table:
    """Returns the rows of several results that satisfy all conditions, as `find` gives them.

    Args:
        results: the results; the table says in the column `result` of which one each object is, if
            they are several.
        order: see `Result.query`.
        limit: largest number of objects of all results; None for all.
        rank: see `Result.query`.
        rows: kind of the rows: objects or replies.
        asked: label, text, within, min_score, length_m, track, where and near as in
            `conditions.Conditions`, and
            time, a closed interval as in a job file.

    Raises:
        JobError: a condition cannot be read, or is one that none of the results can have.
        OutputError: a result has no finished time slice yet.
    """
    if not results:
        raise JobError("no result is named; name one or several")
    conditions = _conditions(**asked)
    files = [result.files(conditions, rows) for result in results]
    found = find(files, conditions, order=order, limit=limit, rank=rank, rows=rows)
    if not len(found):
        _refuse_impossible(results, conditions)
    return found


def objects_of_slice(result: Result, row: SliceRow, **asked: Any) -> gpd.GeoDataFrame:
    """Returns the objects of one slice that satisfy the conditions; see `find_objects`."""
    files = result.files_of([row], OBJECTS)
    return to_frame(find([files], _conditions(**asked), order="", limit=None))


def count_objects(
    results: Sequence[Result], *by: str, rows: Rows = OBJECTS, **asked: Any
) -> pa.Table:
    """Returns how many rows of several results satisfy all conditions; see `Result.count`."""
    conditions = _conditions(**asked)
    counted = count([result.files(conditions, rows) for result in results], conditions, by, rows)
    if not sum(counted[rows.name].to_pylist()):
        _refuse_impossible(results, conditions)
    return counted


def _conditions(*, time: str | None = None, **asked: Any) -> Conditions:
    try:
        start, end = parse_interval(time) if time is not None else (None, None)
    except CatalogError as error:
        raise JobError(str(error)) from error
    given = {name: value for name, value in asked.items() if value is not None}
    if "within" in given:
        given["within"] = cut(given["within"])
    return Conditions(start=start, end=end, **given)


def _refuse_impossible(results: Sequence[Result], conditions: Conditions) -> None:
    """Refuses a condition that no object of the results could satisfy, whatever the others are.

    Raises:
        JobError: it says what there is.
    """
    slices = [each for result in results for each in result.time_slices]
    if not slices:
        return
    first, last = min(each.start for each in slices), max(each.end for each in slices)
    area = conditions.within
    if area is not None and not any(area.intersects(result.ground) for result in results):
        west, south, east, north = shapely.union_all([result.ground for result in results]).bounds
        raise JobError(
            f"nothing was seen there: the ground is {west:.4g} to {east:.4g} degrees east and "
            f"{south:.4g} to {north:.4g} degrees north"
        )
    if (conditions.start and conditions.start > last) or (
        conditions.end and conditions.end < first
    ):
        raise JobError(
            f"nothing was seen then: there is imagery from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        )
    everything = [result.files(Conditions()) for result in results]
    track = conditions.track
    if track is not None and not sum(
        count(everything, Conditions(track=track))["objects"].to_pylist()
    ):
        raise JobError(f"no object has the track {track}; the column track_id says which there are")
    known = labels(everything)
    if conditions.label is not None and conditions.label not in known:
        there = f"there are {', '.join(known)}" if known else "there are no objects"
        raise JobError(f"no object has the label '{conditions.label}'; {there}")
