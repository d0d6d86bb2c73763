"""Finds objects of one or several results: DuckDB over their GeoParquet files.

What a file can decide by its statistics is asked of DuckDB as explicit predicates, the bounds of an
outline among them; what needs the outline itself is decided by shapely on what remains. Nothing is
loaded that a question does not need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.results.conditions import Conditions, check, sql_where
from earthgptx.pipeline.results.duck import ObjectFiles, ask
from earthgptx.pipeline.results.object_table import OBJECTS, REPLIES, Rows, outlines_of
from earthgptx.pipeline.results.words import ranked, words_of

GROUPS = {
    "label": "label",
    "slice": "slice",
    "day": "strftime(time, '%Y-%m-%d')",
    "month": "strftime(time, '%Y-%m')",
    "year": "strftime(time, '%Y')",
    "item": "item_id",
    "result": "result",
}
"""What objects are counted by, as SQL."""
REPLY_GROUPS = GROUPS | {"question": "question", "reply": "reply", "about": "about"}
"""What replies are counted by."""
ORDERS = {
    OBJECTS.name: ("score", "time", "area_m2", "length_m", "width_m", "distance_m"),
    REPLIES.name: ("likelihood", "time", "distance_m"),
}
"""Columns that rows are sorted by; the largest first with `-` before it."""
TIES = {OBJECTS.name: ("object_id",), REPLIES.name: ("object_id", "question", "geometry")}
"""Columns that decide which of equal ones comes first."""


def find(
    files: Sequence[ObjectFiles],
    conditions: Conditions,
    *,
    order: str = "",
    limit: int | None = None,
    rank: bool = False,
    rows: Rows = OBJECTS,
) -> pa.Table:
    """Returns the objects, or replies, that satisfy all conditions.

    Args:
        files: files of these rows, of one or several results.
        conditions: what the objects have to satisfy.
        order: one of `ORDERS`, with `-` before it for the largest first; empty for the order of
            the files: by slice, and along a curve on the ground.
        limit: largest number of objects; None for all.
        rank: whether to take objects that have any of the words, and sort them by BM25, the best
            match first.
        rows: kind of the rows: objects or replies.

    Returns:
        The columns of `rows.schema` without `bbox`; `distance_m` if `near` is given,
        `rank` if it is asked for, and `result` if there are several results.

    Raises:
        JobError: `order` is none of `ORDERS` for such rows, or goes with `rank`, or `rank` lacks
            words or the package that computes it.
        OutputError: a file is missing or damaged.
    """
    exact = conditions.within is not None or conditions.near is not None or rank
    check(conditions, limit, rows)
    if rank and (order or not words_of(conditions.text)):
        raise JobError("rank sorts by how well words match: give text, and no order")
    if rank and rows is not OBJECTS:
        raise JobError(f"{rows.name} are not ranked; sort them by {ORDERS[rows.name][0]}")
    by = _order(order, rows, near=conditions.near is not None)
    columns = [*rows.columns, "geometry", *(["result"] if len(files) > 1 else [])]
    sql = f"SELECT {', '.join(columns)} FROM objects"  # noqa: S608
    sql += f" WHERE {sql_where(conditions, rows, any_word=rank)}"
    if not exact:
        sql += by and f" ORDER BY {by}"
        sql += "" if limit is None else f" LIMIT {int(limit)}"
    table = ask(files, sql, rows)
    if exact:
        table = _exactly(table, conditions)
        if by:
            table = table.sort_by(_arrow_order(order, rows))
        if rank:
            table = ranked(table, conditions.text)
        table = table if limit is None else table.slice(0, limit)
    return table


def count(
    files: Sequence[ObjectFiles],
    conditions: Conditions,
    by: Sequence[str] = (),
    rows: Rows = OBJECTS,
) -> pa.Table:
    """Returns how many objects, or replies, satisfy all conditions, in a column of their name.

    Args:
        files: files of these rows, of one or several results.
        conditions: what they have to satisfy.
        by: names of `GROUPS`, or of `REPLY_GROUPS`; empty for one number.
        rows: kind of the rows.

    Raises:
        JobError: a name is none of `GROUPS`.
        OutputError: a file is missing or damaged.
    """
    by = list(dict.fromkeys(by))
    known = REPLY_GROUPS if rows is REPLIES else GROUPS
    unknown = [name for name in by if name not in known]
    if unknown:
        raise JobError(
            f"{rows.name} are not counted by '{unknown[0]}'; give some of {', '.join(known)}"
        )
    check(conditions, None, rows)
    groups = "".join(f'{known[name]} AS "{name}", ' for name in by)
    where = sql_where(conditions, rows)
    if conditions.within is None and conditions.near is None:
        counting = f"SELECT {groups}count(*) AS {rows.name} FROM objects WHERE {where}"  # noqa: S608
        return ask(files, f"{counting} GROUP BY ALL ORDER BY ALL", rows)
    picking = f"SELECT {groups}geometry FROM objects WHERE {where}"  # noqa: S608
    table = _exactly(ask(files, picking, rows), conditions)
    counted = table.group_by(list(by)).aggregate([([], "count_all")])
    ordered = counted.sort_by([(name, "ascending") for name in by]) if by else counted
    return ordered.rename_columns([*by, rows.name])


def every_row(files: ObjectFiles, rows: Rows, columns: Sequence[str] = ()) -> pa.Table:
    """Returns all rows of some files of a result.

    Args:
        files: the files.
        rows: kind of the rows.
        columns: their columns; empty for all but `bbox`.

    Raises:
        OutputError: a file is missing or damaged.
    """
    names = ", ".join(columns or (*rows.columns, "geometry"))
    return ask([files], f"SELECT {names} FROM objects", rows)  # noqa: S608


def labels(files: Sequence[ObjectFiles]) -> list[str]:
    """Returns the labels that the objects have, sorted."""
    table = ask(files, "SELECT DISTINCT label FROM objects ORDER BY label", OBJECTS)
    return [str(label) for label in table["label"].to_pylist()]


def _order(order: str, rows: Rows, *, near: bool) -> str:
    if not order:
        return ""
    name = order.removeprefix("-")
    known = [each for each in ORDERS[rows.name] if near or each != "distance_m"]
    if name not in known:
        raise JobError(f"{rows.name} are not sorted by '{name}'; give one of {', '.join(known)}")
    how = "DESC" if order.startswith("-") else "ASC"
    return ", ".join([f"{name} {how}", *TIES[rows.name]])


def _arrow_order(order: str, rows: Rows) -> list[tuple[str, str]]:
    how = "descending" if order.startswith("-") else "ascending"
    ties = [name for name in TIES[rows.name] if name != "geometry"]  # Arrow sorts no binary
    return [(order.removeprefix("-"), how), *((name, "ascending") for name in ties)]


def _exactly(table: pa.Table, conditions: Conditions) -> pa.Table:
    """Returns the rows whose outlines satisfy the conditions; their distance if one is asked."""
    outlines = outlines_of(table)
    keep = np.ones(len(table), bool)
    if conditions.within is not None:
        shapely.prepare(conditions.within)
        keep &= shapely.intersects(conditions.within, outlines)
    if conditions.near is not None:
        lon, lat, most = conditions.near
        metres = _distances(outlines, lon, lat)
        keep &= metres <= most
        table = table.append_column("distance_m", _as_arrow(metres))
    return table.filter(_as_arrow(keep))


def _as_arrow(values: np.ndarray) -> pa.Array:
    """Returns (N,) bool or float64 values as Arrow; `pa.array` would load pandas."""
    kind = pa.bool_() if values.dtype == bool else pa.float64()
    data = np.packbits(values, bitorder="little") if values.dtype == bool else values
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


def _distances(outlines: np.ndarray, lon: float, lat: float) -> np.ndarray:
    """Returns the distance of each outline from a place in metres, on the ellipsoid.

    The nearest point of an outline is found in an azimuthal equidistant projection around the
    place, in which distances from it are exact.
    """
    import pyproj

    crs = f"+proj=aeqd +lat_0={lat} +lon_0={lon} +ellps=WGS84 +units=m"
    move = pyproj.Transformer.from_crs(LONLAT, crs, always_xy=True)
    flat = shapely.transform(outlines, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1])))
    return np.asarray(shapely.distance(flat, shapely.Point(0, 0)))
