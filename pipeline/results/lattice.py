"""Objects by places: counted, or the surest of each place, where there are too many to show all."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from earthgptx.pipeline.results.conditions import Conditions, check, sql_where
from earthgptx.pipeline.results.duck import ObjectFiles, ask
from earthgptx.pipeline.results.object_table import OBJECTS

MIDDLE = "(bbox.xmin + bbox.xmax) / 2", "(bbox.ymin + bbox.ymax) / 2"
"""Middle of an outline's bounds, as SQL."""


def density(files: Sequence[ObjectFiles], conditions: Conditions, step: float) -> pa.Table:
    """Returns how many objects there are around places of a lon/lat lattice.

    Outlines count where their bounds meet the area; the middle of these says of which place.

    Args:
        files: files of objects.
        conditions: what the objects have to satisfy; `near` and `within` by bounds alone.
        step: distance of the places in degrees.

    Returns:
        Columns `west`, `south` (corner of the place), `lon`, `lat` (mean middle of its objects),
        `label` (the commonest) and `objects`.
    """
    check(conditions, None, OBJECTS)
    x, y = MIDDLE
    column, row = f"floor({x} / {step!r})", f"floor({y} / {step!r})"
    cell = f"{column} * {step!r} AS west, {row} * {step!r} AS south"
    return ask(
        files,
        f"SELECT {cell}, avg({x}) AS lon, avg({y}) AS lat,"  # noqa: S608
        " mode(label) AS label, count(*) AS objects"
        f" FROM objects WHERE {sql_where(conditions, OBJECTS)}"
        f" GROUP BY {column}, {row} ORDER BY ALL",
        OBJECTS,
    )


def surest(files: Sequence[ObjectFiles], conditions: Conditions, step: float) -> pa.Table:
    """Returns the object with the highest score of each label around each place of a lattice.

    Args:
        files: files of objects.
        conditions: what the objects have to satisfy; `near` and `within` by bounds alone.
        step: distance of the places in degrees.

    Returns:
        The columns of objects without `bbox`, the surest first.
    """
    check(conditions, None, OBJECTS)
    x, y = MIDDLE
    columns = ", ".join([*OBJECTS.columns, "geometry"])
    return ask(
        files,
        f"SELECT {columns} FROM objects WHERE {sql_where(conditions, OBJECTS)}"  # noqa: S608
        f" QUALIFY row_number() OVER (PARTITION BY label, floor({x} / {step!r}),"
        f" floor({y} / {step!r}) ORDER BY score DESC, object_id) = 1"
        " ORDER BY score DESC, object_id",
        OBJECTS,
    )
