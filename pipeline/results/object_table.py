"""The tables of a result: its objects, answers to its visual prompts, replies to its questions.

As Arrow, as GeoParquet, and as GeoDataFrame. Files of each a time slice, in row groups that follow
a Hilbert curve, so that what lies together on the ground lies together in a file.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.objects.finals import BBOX, EDGES
from earthgptx.pipeline.results.partitions import partition

if TYPE_CHECKING:
    import geopandas as gpd

    from earthgptx.pipeline.results.slices_group import SliceRow

ROW_GROUP = 50_000
"""Rows that a reader of GeoParquet takes or leaves together."""
FILE_GROUPS = 4
"""Row groups of a file: what a process holds to write one."""
MOMENT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("track_id", pa.int64()),
        ("slice", MOMENT),
        ("time", MOMENT),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("caption", pa.string()),
        ("length_m", pa.float64()),
        ("width_m", pa.float64()),
        ("orientation_deg", pa.float64()),
        ("area_m2", pa.float64()),
        ("prompt_ids", pa.string()),
        ("prompt_kind", pa.string()),
        ("item_id", pa.string()),
        ("model", pa.string()),
        ("model_digest", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)
"""Columns of the objects. `track_id` is the id of the first of those that are the same object in
slice after slice, see `engine.tracking`; `slice` is the start of the time slice, `time` that of the
Item that the object was seen on (in a median, the start of the slice); `prompt_ids` are separated
by spaces, ids with spaces quoted as in a shell (`shlex.split`); outlines are lon/lat."""
ANSWER_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt_kind", pa.string()),
        ("slice", MOMENT),
        ("time", MOMENT),
        ("outcome", pa.string()),
        ("object_id", pa.int64()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("caption", pa.string()),
        ("item_id", pa.string()),
        ("model", pa.string()),
        ("model_digest", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)
"""Columns of the answers, one row a visual prompt: what came of it, see `finals.Outcome`, the
object that it marks (0 for none), and the geometry of the prompt, lon/lat."""


REPLY_SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("about", pa.string()),
        ("reply", pa.string()),
        ("likelihood", pa.float64()),
        ("object_id", pa.int64()),
        ("label", pa.string()),
        ("slice", MOMENT),
        ("time", MOMENT),
        ("item_id", pa.string()),
        ("model", pa.string()),
        ("model_digest", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)
"""Columns of the replies, one row a question and what it is about: `about` is tiles or objects;
`likelihood` the probability of exactly this reply; `object_id` and `label` those of the object (0
and empty for a tile); the geometry is the object's outline or the tile's core, lon/lat."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A kind of rows that a result has: where they lie, and their columns of `slices`."""

    name: str
    """Name of the Zarr group, and ending of the folder of GeoParquet files."""
    schema: pa.Schema
    count: str
    """Column with the number of a slice's rows."""
    first: str
    """Column with the place of a slice's first row in the Zarr group; -1 before it is there."""
    files: str
    """Column with the number of a slice's GeoParquet files."""
    size: str
    """Column with the bytes of these files."""
    version: str
    """Column with the version in the names of these files; empty where only the last is kept."""
    geometry_types: tuple[str, ...]
    digest: str = ""
    """Column with a hash of these files; empty for none."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns without the geometry and its bounds: those that a condition may name."""
        return tuple(name for name in self.schema.names if name not in ("geometry", "bbox"))


def files_in(row: SliceRow, rows: Rows) -> list[str]:
    """Returns the names of a slice's files of such rows, in their folder."""
    version = getattr(row, rows.version)
    return [partition(row.name, number, version) for number in range(getattr(row, rows.files))]


OBJECTS = Rows(
    "objects",
    SCHEMA,
    "objects",
    "first_object",
    "files",
    "bytes",
    "object_version",
    ("Polygon", "MultiPolygon"),
    "object_digest",
)
ANSWERS = Rows(
    "answers",
    ANSWER_SCHEMA,
    "answers",
    "first_answer",
    "answer_files",
    "answer_bytes",
    "answer_version",
    (),
)
REPLIES = Rows(
    "replies",
    REPLY_SCHEMA,
    "replies",
    "first_reply",
    "reply_files",
    "reply_bytes",
    "reply_version",
    (),
)
KINDS = (OBJECTS, ANSWERS, REPLIES)
COLUMNS = OBJECTS.columns


def regrouped(
    tables: Iterable[pa.Table], size: int, first: int | None = None
) -> Iterator[pa.Table]:
    """Yields the rows of tables of one schema in tables of `size` rows; the last may have fewer.

    Args:
        tables: tables of any number of rows.
        size: rows of a table.
        first: rows of the first table; None for `size`.
    """
    waiting: list[pa.Table] = []
    count, wanted = 0, size if first is None else first
    for table in tables:
        waiting.append(table)
        count += len(table)
        while count >= wanted:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, wanted)
            waiting, count, wanted = [whole.slice(wanted)], count - wanted, size
    if count:
        yield pa.concat_tables(waiting)


def files_of(tables: Iterable[pa.Table], rows: Rows) -> Iterator[bytes]:
    """Yields tables of `ROW_GROUP` rows as GeoParquet files of `FILE_GROUPS` of them each."""
    rest = iter(tables)
    while group := list(itertools.islice(rest, FILE_GROUPS)):
        data = as_geoparquet(group, rows)
        group.clear()
        yield data


def as_geoparquet(tables: Sequence[pa.Table], rows: Rows) -> bytes:
    """Returns tables one after the other as GeoParquet 1.1, marked as ours.

    Args:
        tables: tables of the columns of `rows.schema`.
        rows: what they are.
    """
    from earthgptx.catalogs.publish import MARK

    column: dict[str, Any] = {
        "encoding": "WKB",  # and no `crs`, which stands for OGC:CRS84
        "geometry_types": list(rows.geometry_types),
        "covering": {"bbox": {edge: ["bbox", edge] for edge in EDGES}},
    }
    boxes = [table["bbox"].combine_chunks() for table in tables if len(table)]
    if boxes:
        column["bbox"] = [
            float(find([find(box.field(edge).to_numpy()) for box in boxes]))
            for find, edge in zip((np.min, np.min, np.max, np.max), EDGES, strict=True)
        ]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = rows.schema.with_metadata({"geo": json.dumps(geo), MARK: "1"})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for table in tables:
            # In one chunk, so that the bytes do not depend on how the rows came together.
            whole = table.cast(schema).combine_chunks()
            writer.write_table(whole, row_group_size=ROW_GROUP)
    return sink.getvalue()


def outlines_of(table: pa.Table) -> NDArray[np.object_]:
    """Returns the column `geometry` of N rows, (N,)."""
    # Not by to_numpy, for which pyarrow loads pandas: that takes longer than most questions.
    return shapely.from_wkb(np.array([*table["geometry"].to_pylist(), None], object)[:-1])


def to_frame(table: pa.Table) -> gpd.GeoDataFrame:
    """Returns a table of objects, or some of its columns, as GeoDataFrame with lon/lat outlines."""
    import geopandas as gpd

    frame = table.drop_columns(
        [name for name in ("geometry", "bbox") if name in table.column_names]
    )
    return gpd.GeoDataFrame(frame.to_pandas(), geometry=outlines_of(table), crs=LONLAT)
