"""What objects and other rows are asked to satisfy: checked, and as SQL where it can decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import METRES_PER_DEGREE, boxes
from earthgptx.pipeline.results.condition import quoted, sql_of
from earthgptx.pipeline.results.duck import local, reason
from earthgptx.pipeline.results.object_table import MOMENT, OBJECTS, REPLIES, Rows
from earthgptx.pipeline.results.words import pattern, words_of

SAID = {
    OBJECTS.name: "label || ' ' || caption",
    REPLIES.name: "label || ' ' || question || ' ' || reply",
}
"""Where words are searched, as SQL."""


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


def check_limit(limit: int | None) -> None:
    """Lets a largest number of objects pass; None for all.

    Raises:
        JobError: it is below 1.
    """
    if limit is not None and limit < 1:
        raise JobError(f"limit {limit} is no number of objects; give 1 or more")


def check(conditions: Conditions, limit: int | None, rows: Rows) -> None:
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
    with local().cursor() as connection:
        connection.register("objects", _one_row(rows))
        try:
            connection.execute(f"SELECT 1 FROM objects WHERE {sql}").fetchall()  # noqa: S608
        except duckdb.Error as error:
            raise JobError(f"'{where}' cannot be asked of {rows.name} ({reason(error)})") from error


def _one_row(rows: Rows) -> pa.Table:
    """Returns a row with some value in each column: constants are converted where there is one."""
    blank = {pa.string(): "", pa.binary(): b"", MOMENT: 0}
    fields = [rows.schema.field(name) for name in (*rows.columns, "geometry")]
    columns = [pa.array([blank.get(field.type, 0)], field.type) for field in fields]
    return pa.Table.from_arrays(columns, names=(*rows.columns, "geometry"))


def sql_where(conditions: Conditions, rows: Rows, *, any_word: bool = False) -> str:
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
