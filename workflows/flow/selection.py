"""Tables made of a step's objects: kept, or counted by columns and areas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import LONLAT, cut
from earthgptx.pipeline.job.vectors import read_vector
from earthgptx.pipeline.results.find import Conditions, count
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
        JobError: a condition is none, or an area has no name.
    """
    path = folder / asked.to
    path.parent.mkdir(parents=True, exist_ok=True)
    if asked.areas is None and not asked.count_by:
        found = to_frame(find_objects([result], where=asked.where))
        partial = path.with_name(f".{path.name}.partial{path.suffix}")
        if path.suffix == ".parquet":
            found.to_parquet(partial, schema_version="1.1.0", write_covering_bbox=True, index=False)
        elif path.suffix == ".geojson":
            ids = dict.fromkeys(("object_id", "track_id"), str)
            partial.write_text(found.astype(ids).to_json())
        else:
            found.assign(geometry=found.geometry.to_wkt()).to_csv(partial, index=False)
        partial.replace(path)
        return len(found)
    table = _counted(result, asked, folder)
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, partial)
    else:
        pyarrow.parquet.write_table(table, partial)
    partial.replace(path)
    return len(table)


def _counted(result: Result, asked: Select, folder: Path) -> pa.Table:
    if asked.areas is None:
        return count_objects([result], *asked.count_by, where=asked.where)
    tables = []
    for name, area in _areas(folder / asked.areas):
        # An area where the result saw nothing is counted too: as none.
        conditions = Conditions(where=asked.where, within=cut(area))
        found = count([result.files(conditions)], conditions, asked.count_by)
        tables.append(found.add_column(0, "area", pa.array([name] * len(found), pa.string())))
    return pa.concat_tables(tables)


def _areas(path: Path) -> list[tuple[str, Any]]:
    """Returns names and lon/lat geometries of the areas of a vector file."""
    frame = read_vector(str(path), "select.areas").to_crs(LONLAT)
    column = next((name for name in ("name", "id") if name in frame), None)
    if column is None:
        raise JobError(f"select.areas: {path} has neither a column name nor id")
    return list(zip(frame[column].astype(str), frame.geometry, strict=True))
