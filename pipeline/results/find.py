"""Finds objects of one or several results: DuckDB over their GeoParquet files.

What a file can decide by its statistics is asked of DuckDB as explicit predicates, the bounds of an
outline among them; what needs the outline itself is decided by shapely on what remains. Nothing is
loaded that a question does not need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

import fsspec
import numpy as np
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.redaction import redact
from earthgptx.pipeline.errors import JobError, Outage, OutputError
from earthgptx.pipeline.job.lonlat import LONLAT, METRES_PER_DEGREE, boxes
from earthgptx.pipeline.results.condition import quoted, sql_of
from earthgptx.pipeline.results.object_table import MOMENT, OBJECTS, REPLIES, Rows, outlines_of
from earthgptx.pipeline.results.words import pattern, ranked, words_of
from earthgptx.pipeline.storage.blobs import CLOUD
from earthgptx.pipeline.storage.cloud import file_system

if TYPE_CHECKING:
    import duckdb

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
SAID = {
    OBJECTS.name: "label || ' ' || caption",
    REPLIES.name: "label || ' ' || question || ' ' || reply",
}
"""Where words are searched, as SQL."""
ORDERS = {
    OBJECTS.name: ("score", "time", "area_m2", "length_m", "width_m", "distance_m"),
    REPLIES.name: ("likelihood", "time", "distance_m"),
}
"""Columns that rows are sorted by; the largest first with `-` before it."""
TIES = {OBJECTS.name: ("object_id",), REPLIES.name: ("object_id", "question", "geometry")}
"""Columns that decide which of equal ones comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What objects have to satisfy; all of it."""

    label: str | None = None
    """Exact label, of a reply that of the object that it is about."""
    text: str = ""
    """Words, each of which label or caption (of a reply: question or reply) must contain as a word,
    singular or plural."""
    within: BaseGeometry | None = None
    """Lon/lat geometry that outlines must intersect."""
    start: datetime | None = None
    """Earliest time; the time is that of the Item on which an object was seen."""
    end: datetime | None = None
    """Latest time."""
    min_score: float = 0.0
    """Lowest score, 0..1."""
    length_m: tuple[float, float] | None = None
    """Least and largest length in metres."""
    track: int | None = None
    """Id of a track."""
    where: str = ""
    """More of them as CQL2 text over the columns; see `condition.sql_of`."""
    near: tuple[float, float, float] | None = None
    """Longitude, latitude, and the largest distance of the outline from there in metres."""


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """Files of the rows of a result, such as its objects."""

    result: str
    """URL of the result."""
    files: tuple[str, ...]
    """Their URLs or paths."""


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
    _check(conditions, limit, rows)
    if rank and (order or not words_of(conditions.text)):
        raise JobError("rank sorts by how well words match: give text, and no order")
    if rank and rows is not OBJECTS:
        raise JobError(f"{rows.name} are not ranked; sort them by {ORDERS[rows.name][0]}")
    by = _order(order, rows, near=conditions.near is not None)
    columns = [*rows.columns, "geometry", *(["result"] if len(files) > 1 else [])]
    sql = f"SELECT {', '.join(columns)} FROM objects"  # noqa: S608
    sql += f" WHERE {_where(conditions, rows, any_word=rank)}"
    if not exact:
        sql += by and f" ORDER BY {by}"
        sql += "" if limit is None else f" LIMIT {int(limit)}"
    table = _ask(files, sql, rows)
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
    _check(conditions, None, rows)
    groups = "".join(f'{known[name]} AS "{name}", ' for name in by)
    where = _where(conditions, rows)
    if conditions.within is None and conditions.near is None:
        counting = f"SELECT {groups}count(*) AS {rows.name} FROM objects WHERE {where}"  # noqa: S608
        return _ask(files, f"{counting} GROUP BY ALL ORDER BY ALL", rows)
    picking = f"SELECT {groups}geometry FROM objects WHERE {where}"  # noqa: S608
    table = _exactly(_ask(files, picking, rows), conditions)
    counted = table.group_by(list(by)).aggregate([([], "count_all")])
    ordered = counted.sort_by([(name, "ascending") for name in by]) if by else counted
    return ordered.rename_columns([*by, rows.name])


def density(files: Sequence[ObjectFiles], conditions: Conditions, step: float) -> pa.Table:
    """Returns how many objects there are around places of a lon/lat lattice.

    Outlines count where their bounds meet the area; the middle of these says of which place.

    Args:
        files: files of objects.
        conditions: what the objects have to satisfy; `near` and `within` by bounds alone.
        step: distance of the places in degrees.

    Returns:
        Columns `lon`, `lat` (mean middle of the objects), `label` (the commonest) and `objects`.
    """
    _check(conditions, None, OBJECTS)
    x, y = "(bbox.xmin + bbox.xmax) / 2", "(bbox.ymin + bbox.ymax) / 2"
    places = f"floor({x} / {step!r}), floor({y} / {step!r})"
    return _ask(
        files,
        f"SELECT avg({x}) AS lon, avg({y}) AS lat, mode(label) AS label, count(*) AS objects"  # noqa: S608
        f" FROM objects WHERE {_where(conditions, OBJECTS)} GROUP BY {places} ORDER BY ALL",
        OBJECTS,
    )


def check_limit(limit: int | None) -> None:
    """Lets a largest number of objects pass; None for all.

    Raises:
        JobError: it is below 1.
    """
    if limit is not None and limit < 1:
        raise JobError(f"limit {limit} is no number of objects; give 1 or more")


def _check(conditions: Conditions, limit: int | None, rows: Rows) -> None:
    """Lets conditions pass that have a meaning.

    Raises:
        JobError: a number is none, or lies outside its range, or such rows have no such column.
    """
    needs = {
        "score": conditions.min_score > 0,
        "length_m": conditions.length_m is not None,
        "track_id": conditions.track is not None,
    }
    missing = [name for name, asked in needs.items() if asked and name not in rows.schema.names]
    if missing:
        raise JobError(f"{rows.name} have no {missing[0]}; leave out what asks for it")
    if conditions.near is not None:
        lon, lat, metres = conditions.near
        if not (-180 <= lon <= 180 and -90 <= lat <= 90 and 0 <= metres < np.inf):
            raise JobError(
                f"near {lon:g} {lat:g} {metres:g} is no longitude, latitude and distance in metres"
            )
    if conditions.length_m is not None:
        least, most = conditions.length_m
        if not (0 <= least <= most and least < np.inf):
            raise JobError(f"length {least:g} {most:g} is no least and largest length in metres")
    check_limit(limit)
    if conditions.where:
        _check_types(conditions.where, rows)
    for name, given in (("text", conditions.text), ("label", conditions.label or "")):
        if not " ".join(given.split()).isprintable():
            raise JobError(f"{name} holds characters that cannot be printed; give words")


def _check_types(where: str, rows: Rows) -> None:
    """Lets a condition pass whose values can be compared with its columns.

    Raises:
        JobError: it is no condition, names no column, or compares what cannot be.
    """
    import duckdb

    sql = sql_of(where, rows.columns)
    with _local().cursor() as connection:
        connection.register("objects", _one_row(rows))
        try:
            connection.execute(f"SELECT 1 FROM objects WHERE {sql}").fetchall()  # noqa: S608
        except duckdb.Error as error:
            raise JobError(
                f"'{where}' cannot be asked of {rows.name} ({_reason(error)})"
            ) from error


def _one_row(rows: Rows) -> pa.Table:
    """Returns a row with some value in each column: constants are converted where there is one."""
    blank = {pa.string(): "", pa.binary(): b"", MOMENT: 0}
    fields = [rows.schema.field(name) for name in (*rows.columns, "geometry")]
    columns = [pa.array([blank.get(field.type, 0)], field.type) for field in fields]
    return pa.Table.from_arrays(columns, names=(*rows.columns, "geometry"))


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
    return _ask([files], f"SELECT {names} FROM objects", rows)  # noqa: S608


def labels(files: Sequence[ObjectFiles]) -> list[str]:
    """Returns the labels that the objects have, sorted."""
    table = _ask(files, "SELECT DISTINCT label FROM objects ORDER BY label", OBJECTS)
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


def _where(conditions: Conditions, rows: Rows, *, any_word: bool = False) -> str:
    """Returns the conditions as SQL, as far as it can decide them."""
    terms = ["true"]
    if conditions.label is not None:
        terms.append(f"label = {quoted(conditions.label)}")
    if conditions.where:
        terms.append(sql_of(conditions.where, rows.columns))
    if conditions.track is not None:
        terms.append(f"track_id = {int(conditions.track)}")
    if conditions.min_score > 0:
        terms.append(f"score >= {float(conditions.min_score)!r}")
    if conditions.start is not None:
        terms.append(f"time >= to_timestamp({conditions.start.timestamp()!r})")
    if conditions.end is not None:
        terms.append(f"time <= to_timestamp({conditions.end.timestamp()!r})")
    if conditions.length_m is not None:
        least, most = map(float, conditions.length_m)
        upper = f" AND length_m <= {most!r}" if np.isfinite(most) else ""
        terms.append(f"length_m >= {least!r}{upper}")
    for area in (conditions.within, _around(conditions.near)):
        if area is not None:
            terms.append(f"({' OR '.join(_meets(*edges) for edges in _boxes_of(area)) or 'false'})")
    said = f"lower(nfc_normalize({SAID[rows.name]}))"
    matches = [
        f"regexp_matches({said}, {quoted(pattern(word))})" for word in words_of(conditions.text)
    ]
    if matches:
        terms.append(f"({(' OR ' if any_word else ' AND ').join(matches)})")
    return " AND ".join(terms)


def _meets(west: float, south: float, east: float, north: float) -> str:
    return (
        f"bbox.xmin <= {east!r} AND bbox.xmax >= {west!r}"
        f" AND bbox.ymin <= {north!r} AND bbox.ymax >= {south!r}"
    )


def _boxes_of(area: BaseGeometry) -> list[tuple[float, float, float, float]]:
    """Returns the bounds of an area, of each side where it is cut at the antimeridian."""
    return [part.bounds for part in shapely.get_parts(boxes(area))]


def _around(near: tuple[float, float, float] | None) -> BaseGeometry | None:
    """Returns a lon/lat box, or two, that holds all within a distance of a place."""
    if near is None:
        return None
    lon, lat, metres = near
    high = metres / METRES_PER_DEGREE
    cosine = np.cos(np.deg2rad(min(abs(lat) + high, 90.0)))
    wide = min(high / cosine, 180.0) if cosine > 1e-6 else 180.0
    south, north = max(lat - high, -90.0), min(lat + high, 90.0)
    whole = shapely.box(-180, south, 180, north)
    if wide >= 180:
        return whole
    turned = [
        shapely.box(lon - wide + turn, south, lon + wide + turn, north) for turn in (-360, 0, 360)
    ]
    return shapely.union_all(turned).intersection(whole)


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


def _ask(files: Sequence[ObjectFiles], sql: str, rows: Rows) -> pa.Table:
    """Returns what DuckDB answers; `objects` in the SQL stands for the rows of all files."""
    import duckdb

    there = [each for each in files if each.files]
    sources = [
        f"SELECT *, {quoted(each.result)} AS result"  # noqa: S608
        f" FROM read_parquet([{', '.join(map(_file, each.files))}], hive_partitioning = false)"
        for each in there
    ]
    try:
        with _connection([file for each in there for file in each.files]) as connection:
            if there:
                sql = f"WITH objects AS ({' UNION ALL '.join(sources)}) {sql}"
            else:
                nothing = rows.schema.empty_table().append_column(
                    "result", pa.array([], pa.string())
                )
                connection.register("objects", nothing)
            return connection.execute(sql).to_arrow_table()
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        raise OutputError(
            f"a file of {rows.name} is missing, damaged, or of another version "
            f"({_reason(error)}); run the job again, which writes it anew"
        ) from error
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise JobError(
            f"a condition cannot be asked of these {rows.name} ({_reason(error)})"
        ) from error
    except duckdb.Error as error:  # of the file system of an object store
        raise Outage(
            f"the {rows.name} of {there[0].result if there else 'a result'} cannot be read now "
            f"({_reason(error)}); try again later"
        ) from error


def _reason(error: Exception) -> str:
    return redact((str(error).splitlines() or [""])[0])


def _file(address: str) -> str:
    """Returns an address as an SQL literal of which DuckDB takes no character for a pattern."""
    return quoted(re.sub(r"[*?\[]", r"[\g<0>]", address))


def _connection(files: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """Returns a connection that can open the files."""
    remote = {file.partition("://")[0] for file in files if "://" in file}
    if not remote:
        return _local().cursor()
    connection = _new()  # what the environment says of a store may change
    for scheme in remote:
        known = file_system(f"{scheme}://") if scheme in CLOUD else fsspec.filesystem(scheme)
        connection.register_filesystem(known)
    return connection


@cache
def _local() -> duckdb.DuckDBPyConnection:
    """Returns the database of this process, which keeps what it knows of files on disks."""
    return _new()


def _new() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    return connection
