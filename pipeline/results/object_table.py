"""The tables of a result: its objects, and the answers to its visual prompts.

As Arrow, as GeoParquet, and as GeoDataFrame. Files of each a time slice, in row groups that follow
a Hilbert curve, so that what lies together on the ground lies together in a file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.objects.finals import ANSWER, BBOX, EDGES, FINAL, PENDING, Outcome
from earthgptx.pipeline.objects.measure import measured_caption
from earthgptx.pipeline.results.partitions import partition

if TYPE_CHECKING:
    import geopandas as gpd

    from earthgptx.pipeline.planning.plan import Plan
    from earthgptx.pipeline.results.slices_group import SliceRow

ROW_GROUP = 50_000
"""Rows that a reader of GeoParquet takes or leaves together."""
FILE_GROUPS = 4
"""Row groups of a file: what a process holds to write one."""
_MOMENT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("slice", _MOMENT),
        ("time", _MOMENT),
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
"""Columns of the objects. `slice` is the start of the time slice, `time` that of the Item that the
object was seen on (in a median, the start of the slice); outlines are lon/lat."""
COLUMNS = tuple(name for name in SCHEMA.names if name not in ("geometry", "bbox"))
ANSWER_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt_kind", pa.string()),
        ("slice", _MOMENT),
        ("time", _MOMENT),
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


@dataclass(frozen=True, slots=True)
class Rows:
    """A kind of rows that a result has: where they lie, and which columns of `slices` say so."""

    name: str
    """Name of the Zarr group, and ending of the folder of GeoParquet files."""
    schema: pa.Schema
    count: str
    """Column of `slices` with the number of a slice's rows."""
    first: str
    """That with the row of the first of them in the Zarr group; -1 if they are not there yet."""
    files: str
    """That with the number of its files."""
    size: str
    """That with the size of its files."""
    geometry_types: tuple[str, ...]


def files_in(row: SliceRow, rows: Rows) -> list[str]:
    """Returns the names of a slice's files of such rows, in their folder."""
    return [partition(row.name, number) for number in range(getattr(row, rows.files))]


OBJECTS = Rows(
    "objects", SCHEMA, "objects", "first_object", "files", "bytes", ("Polygon", "MultiPolygon")
)
ANSWERS = Rows(
    "answers", ANSWER_SCHEMA, "answers", "first_answer", "answer_files", "answer_bytes", ()
)
KINDS = (OBJECTS, ANSWERS)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same of all rows of a time slice."""

    start: datetime
    """Start of the slice."""
    times: Mapping[str, datetime]
    """Time of each Item, by collection and id."""
    model: str
    digest: str
    """Name and digest of the model."""

    @classmethod
    def of(cls, plan: Plan, time: int) -> Origin:
        """Returns that of a slice of a plan."""
        from earthgptx.catalogs.moments import start_of

        named = zip(plan.sources, plan.items, strict=True)
        times = {source.name: start_of(item) for source, item in named}
        return cls(plan.slices[time].start, times, plan.traits.name, plan.traits.digest)

    def columns(self, items: pa.ChunkedArray) -> dict[str, pa.Array]:
        """Returns the columns that follow from the Item of each row.

        Args:
            items: collection and id of each row's Item; empty for none.
        """
        rows = len(items)
        coded = items.combine_chunks().dictionary_encode()
        names = coded.dictionary.to_pylist()
        moments = pa.array([self.times.get(name, self.start) for name in names], _MOMENT)
        ids = pa.array([name.partition("/")[2] for name in names], pa.string())
        return {
            "slice": pa.repeat(pa.scalar(self.start, _MOMENT), rows),
            "time": moments.take(coded.indices),
            "item_id": ids.take(coded.indices),
            "model": pa.repeat(pa.scalar(self.model), rows),
            "model_digest": pa.repeat(pa.scalar(self.digest), rows),
        }


def completed(finals: pa.Table, nearest_m: NDArray[np.float64], origin: Origin) -> pa.Table:
    """Returns the rows of `SCHEMA` of objects, along a Hilbert curve, then by id.

    Args:
        finals: N rows of `finals.FINAL`.
        nearest_m: (N,) distance of each to the nearest other one of its label; NaN for none.
        origin: what is the same of all.
    """
    measures = ("label", "length_m", "width_m", "orientation_deg", "caption")
    captions = [
        caption or measured_caption(label, length, width, orientation, nearest)
        for label, length, width, orientation, caption, nearest in zip(
            *(finals[name].to_pylist() for name in measures), nearest_m.tolist(), strict=True
        )
    ]
    given = origin.columns(finals["item"]) | {"caption": pa.array(captions, pa.string())}
    columns = [
        given.get(name, finals[name] if name in FINAL.names else None) for name in SCHEMA.names
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    along = along_curve(finals["lon"].to_numpy(), finals["lat"].to_numpy())
    return table.take(pa.array(np.lexsort([table["object_id"].to_numpy(), along])))


def completed_answers(answers: pa.Table, objects: Mapping[str, int], origin: Origin) -> pa.Table:
    """Returns the rows of `ANSWER_SCHEMA` of answers, in their order.

    Args:
        answers: rows of `finals.ANSWER`.
        objects: object by prompt id, of those that no block could decide alone.
        origin: what is the same of all.
    """
    ids, outcomes = answers["object_id"].to_pylist(), answers["outcome"].to_pylist()
    names = answers["prompt_id"].to_pylist()
    for at, found in enumerate(ids):
        if found == PENDING:
            ids[at] = objects.get(names[at], 0)
            outcomes[at] = Outcome.OBJECT if ids[at] else Outcome.NOTHING
    given = origin.columns(answers["item"]) | {
        "object_id": pa.array(ids, pa.int64()),
        "outcome": pa.array(outcomes, pa.string()),
    }
    columns = [given.get(n, answers[n] if n in ANSWER.names else None) for n in ANSWER_SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=ANSWER_SCHEMA)


def along_curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the distance of N places along a Hilbert curve over their bounds, (N,)."""
    import geopandas as gpd

    if not len(x):
        return np.empty(0, np.int64)
    return np.asarray(gpd.GeoSeries(gpd.points_from_xy(x, y)).hilbert_distance())


def files_of(tables: Iterable[pa.Table], rows: Rows) -> Iterator[pa.Buffer]:
    """Yields tables of about `ROW_GROUP` rows as GeoParquet files of `FILE_GROUPS` of them each."""
    rest = iter(tables)
    while group := list(itertools.islice(rest, FILE_GROUPS)):
        data = as_geoparquet(group, rows)
        group.clear()
        yield data


def as_geoparquet(tables: Sequence[pa.Table], rows: Rows) -> pa.Buffer:
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
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
    return sink.getvalue()


def to_frame(table: pa.Table) -> gpd.GeoDataFrame:
    """Returns a table of objects, or some of its columns, as GeoDataFrame with lon/lat outlines."""
    import geopandas as gpd

    frame = table.drop_columns(
        [name for name in ("geometry", "bbox") if name in table.column_names]
    )
    outlines = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return gpd.GeoDataFrame(frame.to_pandas(), geometry=outlines, crs=LONLAT)
