"""The Zarr group `objects` of a result: the rows of its files of objects, in the order of slices.

Written from these files. What a slice that is made again has in front of it stays; the rows of the
slices behind it are written anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.results.object_table import EDGES, SCHEMA, as_geoparquet
from earthgptx.pipeline.results.partitions import partition
from earthgptx.pipeline.results.slices_group import TIMES, SliceTable
from earthgptx.pipeline.results.store import CODECS
from earthgptx.pipeline.storage.fence import FencedBlobs

CHUNK = 16_384
"""Rows of a chunk."""


def sync_objects(root: zarr.Group, folder: FencedBlobs, table: SliceTable) -> None:
    """Makes the group `objects` hold the rows of all finished slices.

    Reads and writes nothing of the slices in front of the first one whose rows are missing, unless
    the group is damaged.

    Args:
        root: root group of a result.
        folder: folder of its files of objects.
        table: its slices; gets the places of their rows.
    """
    group = _group(root)
    at, first = _first_missing(group, table)
    if at is None:
        return
    try:
        _write_from(group, folder, table, at, first)
    except (ValueError, RuntimeError):  # of the checksum or the codec
        _write_from(group, folder, table, 0, 0)


def _write_from(
    group: zarr.Group, folder: FencedBlobs, table: SliceTable, at: int, first: int
) -> None:
    """Writes the rows of the slices from a position on, behind so many rows."""
    for behind in range(at, len(table.rows)):
        table.change(behind, first_object=-1)
    table.save()
    for field in SCHEMA:
        array: Any = group[field.name]
        array.resize((first, *array.shape[1:]))
    waiting: list[pa.Table] = []
    for behind in range(at, len(table.rows)):
        row = table.rows[behind]
        table.change(behind, first_object=first)
        if row.finished and row.objects:
            with folder.open(partition(row.name)) as file:
                waiting.append(pq.read_table(file, schema=SCHEMA))
            first += row.objects
        if sum(map(len, waiting)) >= CHUNK:
            _append(group, waiting)
            waiting = []
    _append(group, waiting)
    table.save()


def _first_missing(group: zarr.Group, table: SliceTable) -> tuple[int | None, int]:
    """Returns the first slice whose rows are missing, None if none are, and the rows before it."""
    first, found = 0, None
    for at, row in enumerate(table.rows):
        if row.first_object != first:
            found = at
            break
        first += row.objects if row.finished else 0
    lengths = {array.shape[0] for _, array in group.arrays()}
    if (found is None and lengths != {first}) or min(lengths) < first:
        return 0, 0  # it was lost
    return found, first


def _group(root: zarr.Group) -> zarr.Group:
    """Returns the group `objects`; creates what is missing of it."""
    group = root.require_group("objects")
    for field in SCHEMA:
        if field.name not in group:
            _create(group, field.name, field.type)
    return group


def _create(group: zarr.Group, name: str, kind: pa.DataType) -> None:
    text = pa.types.is_string(kind) or pa.types.is_binary(kind)
    dtype = np.dtypes.StringDType() if text else "f8" if pa.types.is_float64(kind) else "i8"
    bounds = (4,) if name == "bbox" else ()
    attributes: dict[str, Any] = dict(TIMES) if pa.types.is_timestamp(kind) else {}
    if name == "geometry":
        attributes["long_name"] = "outline, WKB in hexadecimal, lon/lat (OGC:CRS84)"
    group.create_array(
        name,
        shape=(0, *bounds),
        dtype="f8" if bounds else dtype,
        chunks=(CHUNK, *bounds),
        dimension_names=("object", "bound")[: 1 + len(bounds)],
        compressors=CODECS,
        attributes=attributes,
    )


def _append(group: zarr.Group, tables: list[pa.Table]) -> None:
    """Appends rows of several slices: for each alone, the last chunk would be read again."""
    if tables:
        table = pa.concat_tables(tables)
        for column in SCHEMA.names:
            array: Any = group[column]
            array.append(_values(table, column))


def _values(table: pa.Table, column: str) -> NDArray[Any]:
    """Returns a column as the Zarr group keeps it."""
    values = table[column].combine_chunks()
    if column == "bbox":
        return np.column_stack([values.field(edge).to_numpy() for edge in EDGES])
    if column == "geometry":
        texts = [outline.hex().upper() for outline in values.to_pylist()]
        return np.array(texts, np.dtypes.StringDType())
    if pa.types.is_timestamp(values.type):
        return np.asarray(values.cast(pa.int64()).to_numpy())
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), np.dtypes.StringDType())
    return np.asarray(values.to_numpy())


def rows_of(root: zarr.Group, first: int, count: int) -> pa.Table:
    """Returns rows of the group `objects` as a table of objects.

    Args:
        root: root group of a result.
        first: number of the first row.
        count: number of rows.
    """
    columns = []
    for field in SCHEMA:
        array: Any = root[f"objects/{field.name}"]
        values = np.asarray(array[first : first + count])
        if field.name == "bbox":
            edges = [pa.array(edge) for edge in values.T]
            columns.append(pa.StructArray.from_arrays(edges, list(EDGES)))
        elif field.name == "geometry":
            columns.append(pa.array([bytes.fromhex(str(text)) for text in values], field.type))
        else:
            columns.append(pa.array(values.tolist(), field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def mend_partitions(root: zarr.Group, folder: FencedBlobs, table: SliceTable) -> list[int]:
    """Writes those files of objects anew that are missing or cut off.

    Args:
        root: root group of a result.
        folder: folder of its files of objects.
        table: its slices.

    Returns:
        Positions of the slices whose rows are not in the group either.
    """
    sizes = folder.sizes()
    lost = []
    for at, row in enumerate(table.rows):
        file = partition(row.name)
        if not (row.finished and row.objects) or sizes.get(file) == row.bytes:
            continue
        if row.first_object < 0:  # its rows are not there yet
            lost.append(at)
            continue
        try:
            data = as_geoparquet(rows_of(root, row.first_object, row.objects))
        except (ValueError, RuntimeError, KeyError, pa.ArrowException):
            lost.append(at)
        else:
            folder.put(file, data)
            table.change(at, bytes=len(data))
    table.save()
    return lost
