"""The Zarr groups `objects` and `slices` of a result: the table of objects, slice by slice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from earthgptx.pipeline.results.layout import CODECS
from earthgptx.pipeline.results.object_table import EDGES, SCHEMA, as_geoparquet
from earthgptx.pipeline.results.partitions import partition
from earthgptx.pipeline.storage.fence import FencedBlobs

CHUNK = 16_384
"""Rows of a chunk."""
SLICE_COLUMNS = ("name", "start", "end", "items", "first_object", "objects")
"""Arrays of the group `slices`."""
_TIMES: dict[str, Any] = {
    "units": "microseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}


class ObjectsWriter:
    """Writes the Zarr groups `objects` and `slices`, slice by slice."""

    def __init__(self, root: zarr.Group) -> None:
        """Begins anew: what the groups hold is removed."""
        for name in ("objects", "slices"):
            sync(root.store.delete_dir(name))
        self._root, self._group = root, root.create_group("objects")
        self._slices: list[dict[str, Any]] = []
        self._waiting: list[pa.Table] = []
        self.count = 0
        for field in SCHEMA:
            self._create(field.name, field.type)
        self._group["geometry"].attrs["long_name"] = (
            "outline, WKB in hexadecimal, lon/lat (OGC:CRS84)"
        )

    def _create(self, name: str, kind: pa.DataType) -> None:
        text = pa.types.is_string(kind) or pa.types.is_binary(kind)
        dtype = np.dtypes.StringDType() if text else "f8" if pa.types.is_float64(kind) else "i8"
        bounds = (4,) if name == "bbox" else ()
        self._group.create_array(
            name,
            shape=(0, *bounds),
            dtype="f8" if bounds else dtype,
            chunks=(CHUNK, *bounds),
            dimension_names=("object", "bound")[: 1 + len(bounds)],
            compressors=CODECS,
            attributes=_TIMES if pa.types.is_timestamp(kind) else None,
        )

    def add(self, name: str, start: datetime, end: datetime, items: int, table: pa.Table) -> None:
        """Appends the objects of a time slice.

        Args:
            name: name of the slice.
            start: time of its first Item, or start of its day or month.
            end: time of its last Item.
            items: number of its Items.
            table: table of its objects.
        """
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= CHUNK:
            self._flush()
        self._slices.append(
            {
                "name": name,
                "start": _microseconds(start),
                "end": _microseconds(end),
                "items": items,
                "first_object": self.count,
                "objects": len(table),
            }
        )
        self.count += len(table)

    def _flush(self) -> None:
        """Appends the rows that wait: for each slice alone, its last chunk would be read again."""
        table = pa.concat_tables(self._waiting) if self._waiting else SCHEMA.empty_table()
        self._waiting = []
        if len(table):
            for column in SCHEMA.names:
                array: Any = self._group[column]
                array.append(_values(table, column))

    def finish(self) -> None:
        """Writes the group `slices`, which says which objects belong to which slice."""
        self._flush()
        group = self._root.create_group("slices")
        for name in SLICE_COLUMNS:
            text = np.dtypes.StringDType() if name == "name" else np.int64
            values = np.array([each[name] for each in self._slices], text)
            array: Any = group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(max(len(values), 1),),
                dimension_names=("slice",),
                compressors=CODECS,
                attributes=_TIMES if name in ("start", "end") else None,
            )
            array[...] = values


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
    """Returns rows of the group `objects` as the table that was added.

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


def mend_partitions(root: zarr.Group, folder: FencedBlobs) -> None:
    """Writes those files of objects anew that are missing or damaged.

    Args:
        root: root group of a finished result.
        folder: folder of its objects.
    """
    table: Any = root["slices"]
    columns = (table[name][...].tolist() for name in ("name", "first_object", "objects"))
    there = set(folder.names())
    for name, first, count in zip(*columns, strict=True):
        file = partition(name)
        if count and not (file in there and _rows_in(folder, file) == count):
            folder.put(file, as_geoparquet(rows_of(root, first, count)))


def _rows_in(folder: FencedBlobs, name: str) -> int:
    """Returns the number of rows of a Parquet file; -1 if it is damaged."""
    try:
        with folder.open(name) as file:
            return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return -1


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
