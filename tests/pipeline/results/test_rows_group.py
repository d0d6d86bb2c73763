"""Rows of objects in Zarr and GeoParquet: in several files, mended, and made again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr

from earthgptx.pipeline.objects.finals import outline_columns
from earthgptx.pipeline.results import object_table, rows_group
from earthgptx.pipeline.results.object_table import OBJECTS, SCHEMA, files_of
from earthgptx.pipeline.results.partitions import partition
from earthgptx.pipeline.results.rows_group import mend_partitions, rows_of, sync_rows
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState, SliceTable
from earthgptx.pipeline.storage.blobs import open_blobs

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Row groups and chunks of a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_table, "ROW_GROUP", 50)
        patch.setattr(rows_group, "ROW_GROUP", 50)
        patch.setattr(rows_group, "CHUNK", 64)
        yield


def objects(seed: int, count: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    x, y = rng.random((2, count))
    texts = {name: [f"{name} {seed} {n}" for n in range(count)] for name in SCHEMA.names}
    geometry, bbox = outline_columns(shapely.box(x, y, x + 0.01, y + 0.01))
    columns: list[Any] = []
    for field in SCHEMA:
        if field.name in ("geometry", "bbox"):
            columns.append(geometry if field.name == "geometry" else bbox)
        elif pa.types.is_string(field.type):
            columns.append(pa.array(texts[field.name]))
        elif pa.types.is_float64(field.type):
            columns.append(pa.array(rng.random(count)))
        else:
            columns.append(pa.array(rng.integers(1, 2**40, count)).cast(field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


class Store:
    """The rows of a result, without anything else."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.root = zarr.open_group(folder / "a.zarr", mode="a")
        self.folder: Any = open_blobs(str(folder / "a.objects"))
        self.table = SliceTable(self.root)

    def put(self, at: int, table: pa.Table) -> None:
        name = f"s{at}"
        pieces = [table.slice(start, 50) for start in range(0, len(table), 50)]
        sizes = []
        for number, data in enumerate(files_of(pieces, OBJECTS)):
            self.folder.put(partition(name, number), data)
            sizes.append(len(data))
        start = FIRST + timedelta(days=at)
        row = SliceRow(
            name, start, start, 1, "", 1, 1, objects=len(table), files=len(sizes), bytes=sum(sizes)
        )
        if at == len(self.table.rows):
            self.table.rows.append(row)
        self.table.rows[at] = row
        self.table.change(at, state=SliceState.FINISHED)
        self.table.save()

    def sync(self) -> None:
        sync_rows(self.root, self.folder, self.table, OBJECTS)

    def bytes(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted((self.path / "a.zarr" / "objects").rglob("*"))
            if path.is_file()
        }


def test_the_group_has_the_rows_of_all_files_in_order(tmp_path: Path) -> None:
    store, tables = Store(tmp_path), [objects(0, 333), objects(1, 0), objects(2, 71)]
    for at, table in enumerate(tables):
        store.put(at, table)
    store.sync()
    assert [row.files for row in store.table.rows] == [2, 0, 1]
    assert [row.first_object for row in store.table.rows] == [0, 333, 333]
    assert rows_of(store.root, OBJECTS, 0, 404).equals(pa.concat_tables(tables).combine_chunks())


def test_a_slice_that_is_made_again_leaves_the_bytes_of_one_that_was_made_once(
    tmp_path: Path,
) -> None:
    first, many, few = objects(0, 100), objects(1, 140), objects(2, 20)
    grown, once = Store(tmp_path / "grown"), Store(tmp_path / "once")
    grown.put(0, first)
    grown.put(1, many)
    grown.sync()
    grown.put(1, few)
    grown.sync()
    once.put(0, first)
    once.put(1, few)
    once.sync()
    assert grown.bytes() == once.bytes()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_file_of_several_is_mended_with_the_same_bytes(tmp_path: Path, lost: int) -> None:
    store = Store(tmp_path)
    store.put(0, objects(0, 333))
    store.sync()
    files = sorted((tmp_path / "a.objects").rglob("*.parquet"))
    before = [path.read_bytes() for path in files]
    files[lost].unlink()
    assert mend_partitions(store.root, store.folder, store.table, OBJECTS) == []
    assert [path.read_bytes() for path in files] == before


def test_a_file_that_is_lost_before_its_rows_are_in_the_group_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(0, objects(0, 70))
    next((tmp_path / "a.objects").rglob("*.parquet")).unlink()
    assert mend_partitions(store.root, store.folder, store.table, OBJECTS) == [0]
