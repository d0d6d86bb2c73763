"""The Zarr groups `objects` and `slices` of a result: the table of objects, slice by slice."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from earthgptx.pipeline.results.layout import CODECS
from earthgptx.pipeline.results.object_table import EDGES, SCHEMA

CHUNK = 16_384
"""Rows of a chunk."""
_TIMES: dict[str, Any] = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}


class ObjectsWriter:
    """Writes the Zarr groups `objects` and `slices`, slice by slice."""

    def __init__(self, root: zarr.Group) -> None:
        """Begins anew: what the groups hold is removed."""
        for name in ("objects", "slices"):
            sync(root.store.delete_dir(name))
        self._root, self._group = root, root.create_group("objects")
        self._slices: list[dict[str, Any]] = []
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
        if len(table):
            for column in SCHEMA.names:
                array: Any = self._group[column]
                array.append(_values(table, column))
        self._slices.append(
            {
                "name": name,
                "start": round(start.timestamp()),
                "end": round(end.timestamp()),
                "items": items,
                "first_object": self.count,
                "objects": len(table),
            }
        )
        self.count += len(table)

    def finish(self) -> None:
        """Writes the group `slices`, which says which objects belong to which slice."""
        group = self._root.create_group("slices")
        for name in ("name", "start", "end", "items", "first_object", "objects"):
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
        return np.asarray(values.cast(pa.int64()).to_numpy() // 1_000_000)
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), np.dtypes.StringDType())
    return np.asarray(values.to_numpy())
