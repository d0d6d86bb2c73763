"""The Zarr groups `objects`, `answers` and `replies`: the rows of a result's files, by slice.

Written from these files. What a slice that is made again has in front of it stays; the rows of the
slices behind it are written anew. Nothing is held as a whole: a slice may have millions of rows.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from earthgptx.model.interface.allocator import trim_allocator
from earthgptx.pipeline.objects.finals import EDGES
from earthgptx.pipeline.results.object_table import ROW_GROUP, Rows, files_in, files_of, regrouped
from earthgptx.pipeline.results.partitions import partition
from earthgptx.pipeline.results.slices_group import TIMES, SliceTable
from earthgptx.pipeline.results.store import CODECS, branch_of
from earthgptx.pipeline.storage.fence import FencedBlobs

CHUNK = 16_384
"""Rows of a chunk."""


def sync_rows(root: zarr.Group, folder: FencedBlobs, table: SliceTable, rows: Rows) -> None:
    """Makes a group hold the rows of all finished slices.

    Reads and writes nothing of the slices in front of the first one whose rows are missing, unless
    the group is damaged.

    Args:
        root: root group of a result.
        folder: folder of the files of these rows.
        table: slices of the result; gets the places of their rows.
        rows: kind of the rows.
    """
    group = _group(root, rows)
    at, first = _first_missing(group, table, rows)
    if at is None:
        return
    try:
        _write_from(group, folder, table, rows, at, first)
    except (ValueError, RuntimeError):  # of the checksum or the codec
        _write_from(group, folder, table, rows, 0, 0)


def put_files(
    folder: FencedBlobs, slice_name: str, tables: Iterable[pa.Table], rows: Rows, version: str = ""
) -> dict[str, int | str]:
    """Writes the files of a slice's rows.

    Args:
        folder: folder of the files of these rows.
        slice_name: name of the slice.
        tables: the rows, in tables of `ROW_GROUP` rows.
        rows: kind of the rows.
        version: what tells their names from those of files that are kept; see `new_version`.

    Returns:
        Columns of `slices` with the number, the size and the hash of the files, and the version.
    """
    sizes: list[int] = []
    hashed = hashlib.blake2b(digest_size=8)
    for data in files_of(tables, rows):
        folder.put(partition(slice_name, len(sizes), version), data)
        sizes.append(len(data))
        hashed.update(data)
        trim_allocator()
    digest = {rows.digest: hashed.hexdigest()} if rows.digest else {}
    files: dict[str, int | str] = {rows.files: len(sizes), rows.size: sum(sizes)}
    return files | {rows.version: version} | digest


def new_version(root: zarr.Group) -> str:
    """Returns the version of files that are written now; empty where only the last is kept."""
    return uuid.uuid4().hex[:8] if branch_of(root) else ""


def _write_from(
    group: zarr.Group, folder: FencedBlobs, table: SliceTable, rows: Rows, at: int, first: int
) -> None:
    """Writes the rows of the slices from a position on, behind so many rows."""
    for behind in range(at, len(table.rows)):
        table.change(behind, **{rows.first: -1})
    table.save()
    places, last = {}, first
    for behind in range(at, len(table.rows)):
        places[behind] = last
        if table.rows[behind].finished:
            last += getattr(table.rows[behind], rows.count)
    for field in rows.schema:
        array: Any = group[field.name]
        # What is behind the rows that stay is written anew. What of it lies in their last chunk
        # would stay there, and the bytes would depend on what the group has held before.
        if array.shape[0] > first:
            array[first : min(array.shape[0], -(-first // CHUNK) * CHUNK)] = array.fill_value
        array.resize((first, *array.shape[1:]))
        array.resize((last, *array.shape[1:]))
    _write(group, first, _batches(folder, table, rows, at), rows)
    for behind, place in places.items():
        table.change(behind, **{rows.first: place})
    table.save()


def _batches(
    folder: FencedBlobs, table: SliceTable, rows: Rows, at: int
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the finished slices from a position on."""
    for row in table.rows[at:]:
        for name in files_in(row, rows) if row.finished else ():
            with folder.open(name) as file, pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(CHUNK, columns=rows.schema.names)


def _first_missing(group: zarr.Group, table: SliceTable, rows: Rows) -> tuple[int | None, int]:
    """Returns the first slice whose rows are missing, None if none are, and the rows before it."""
    first, found = 0, None
    for at, row in enumerate(table.rows):
        if getattr(row, rows.first) != first:
            found = at
            break
        first += getattr(row, rows.count) if row.finished else 0
    lengths = {array.shape[0] for _, array in group.arrays()}
    if (found is None and lengths != {first}) or min(lengths) < first:
        return 0, 0  # it was lost
    return found, first


def _group(root: zarr.Group, rows: Rows) -> zarr.Group:
    """Returns the group of the rows; creates what is missing of it."""
    group = root.require_group(rows.name)
    for field in rows.schema:
        if field.name not in group:
            _create(group, field.name, field.type, rows)
    return group


def _create(group: zarr.Group, name: str, kind: pa.DataType, rows: Rows) -> None:
    text = pa.types.is_string(kind) or pa.types.is_binary(kind)
    dtype = np.dtypes.StringDType() if text else "f8" if pa.types.is_float64(kind) else "i8"
    bounds = (4,) if name == "bbox" else ()
    attributes: dict[str, Any] = dict(TIMES) if pa.types.is_timestamp(kind) else {}
    if name == "geometry":
        attributes["long_name"] = "geometry, WKB in hexadecimal, lon/lat (OGC:CRS84)"
    group.create_array(
        name,
        shape=(0, *bounds),
        dtype="f8" if bounds else dtype,
        chunks=(CHUNK, *bounds),
        dimension_names=(rows.name.removesuffix("s"), "bound")[: 1 + len(bounds)],
        compressors=CODECS,
        attributes=attributes,
    )


def _write(group: zarr.Group, first: int, batches: Iterator[pa.RecordBatch], rows: Rows) -> None:
    """Writes rows by whole chunks: a chunk that is written in two parts is read between them."""
    tables = (pa.Table.from_batches([batch.cast(rows.schema)]) for batch in batches)
    for table in regrouped(tables, CHUNK, CHUNK - first % CHUNK):
        _write_table(group, first, table)
        first += len(table)
        trim_allocator()  # texts of all sizes leave holes


def _write_table(group: zarr.Group, first: int, table: pa.Table) -> None:
    for column in table.column_names:
        array: Any = group[column]
        array[first : first + len(table)] = _values(table, column)


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


def rows_of(root: zarr.Group, rows: Rows, first: int, count: int) -> pa.Table:
    """Returns rows of a group as a table.

    Args:
        root: root group of a result.
        rows: kind of the rows.
        first: number of the first row.
        count: number of rows.
    """
    columns = []
    for field in rows.schema:
        array: Any = root[f"{rows.name}/{field.name}"]
        values = np.asarray(array[first : first + count])
        if field.name == "bbox":
            edges = [pa.array(edge) for edge in values.T]
            columns.append(pa.StructArray.from_arrays(edges, list(EDGES)))
        elif field.name == "geometry":
            columns.append(pa.array([bytes.fromhex(str(text)) for text in values], field.type))
        else:
            columns.append(pa.array(values.tolist(), field.type))
    return pa.Table.from_arrays(columns, schema=rows.schema)


def mend_partitions(
    root: zarr.Group, folder: FencedBlobs, table: SliceTable, rows: Rows
) -> list[int]:
    """Writes those files of rows anew that are missing or cut off.

    Args:
        root: root group of a result.
        folder: folder of the files.
        table: slices of the result.
        rows: kind of the rows.

    Returns:
        Positions of the slices whose rows are not in the group either.
    """
    sizes = folder.sizes()
    lost = []
    for at, row in enumerate(table.rows):
        names, size = files_in(row, rows), getattr(row, rows.size)
        if not row.finished or sum(sizes.get(name, 0) for name in names) == size:
            continue
        count, first = getattr(row, rows.count), getattr(row, rows.first)
        if first < 0:  # its rows are not there yet
            lost.append(at)
            continue
        starts = range(first, first + count, ROW_GROUP)
        pieces = (rows_of(root, rows, at, min(ROW_GROUP, first + count - at)) for at in starts)
        try:
            table.change(at, **put_files(folder, row.name, pieces, rows, new_version(root)))
        except (ValueError, RuntimeError, KeyError, pa.ArrowException):
            lost.append(at)
    table.save()
    return lost
