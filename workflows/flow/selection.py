"""Tables made of a step's objects: kept, or counted by columns and areas."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.job.lonlat import LONLAT, cut
from earthgptx.pipeline.job.vectors import read_vector
from earthgptx.pipeline.results.conditions import Conditions
from earthgptx.pipeline.results.find import count
from earthgptx.pipeline.results.formats import geojson, write_geoparquet
from earthgptx.pipeline.results.object_table import to_frame
from earthgptx.pipeline.results.query import count_objects, find_objects
from earthgptx.pipeline.results.result import Result
from earthgptx.workflows.flow.spec import Select


def select(result: Result, asked: Select, folder: Path) -> int:
    """Writes the table that a step asks for; returns the number of its rows.

    Args:
        result: the result whose objects are asked.
        asked: what is asked for.
        folder: folder that its paths are relative to.

    Raises:
        JobError: a condition is none, or an area has no name or no geometry.
        OutputError: the file cannot be written.
    """
    counted = asked.areas is not None or asked.count_by
    table = (
        _counted(result, asked, folder)
        if counted
        else find_objects([result], where=asked.where, rows=asked.rows)
    )
    with _written(folder / asked.to) as partial:
        if partial.suffix == ".geojson":
            partial.write_text(geojson(table))
        elif counted and partial.suffix == ".csv":
            pyarrow.csv.write_csv(table, partial)
        elif counted:
            pyarrow.parquet.write_table(table, partial)
        elif partial.suffix == ".csv":
            frame = to_frame(table)
            frame.assign(geometry=frame.geometry.to_wkt()).to_csv(partial, index=False)
        else:
            write_geoparquet(to_frame(table), partial)
    return len(table)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which then takes the place of a file.

    Raises:
        OutputError: it cannot be written.
    """
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _counted(result: Result, asked: Select, folder: Path) -> pa.Table:
    if asked.areas is None:
        return count_objects([result], *asked.count_by, rows=asked.rows, where=asked.where)
    tables = []
    for name, area in _areas(folder / asked.areas):
        # Not refused where the result saw nothing, as one area of many may lie there.
        conditions = Conditions(where=asked.where, within=cut(area))
        files = [result.files(conditions, asked.rows)]
        found = count(files, conditions, asked.count_by, asked.rows)
        tables.append(found.add_column(0, "area", pa.array([name] * len(found), pa.string())))
    return pa.concat_tables(tables)


def _areas(path: Path) -> list[tuple[str, BaseGeometry]]:
    """Returns names and lon/lat geometries of the areas of a vector file."""
    frame = read_vector(str(path), "select.areas").to_crs(LONLAT)
    column = next((name for name in ("name", "id") if name in frame), None)
    if column is None or frame[column].isna().any():
        raise JobError(f"select.areas: {path} has areas without a name or id")
    if not len(frame) or any(area is None or area.is_empty for area in frame.geometry):
        raise JobError(f"select.areas: {path} has no areas, or some without a geometry")
    return list(zip(frame[column].astype(str), frame.geometry, strict=True))
