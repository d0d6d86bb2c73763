"""The table of a result's objects: as Arrow, as GeoParquet, and as GeoDataFrame.

One table a time slice, in the order of a Hilbert curve, so that what lies together on the ground
lies together in the file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from earthgptx.pipeline.job.lonlat import LONLAT

if TYPE_CHECKING:
    import geopandas as gpd

    from earthgptx.pipeline.objects.measure import GroundedObject
    from earthgptx.pipeline.planning.plan import Plan

ROW_GROUP = 50_000
"""Rows that a reader of GeoParquet takes or leaves together."""
_MOMENT = pa.timestamp("us", tz="UTC")
EDGES = ("xmin", "ymin", "xmax", "ymax")
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
        ("item_id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", pa.struct([(edge, pa.float64()) for edge in EDGES])),
    ]
)
"""Columns of the table. `slice` is the start of the time slice, `time` that of the Item that the
object was seen on (in a median, the start of the slice); outlines are lon/lat."""
COLUMNS = tuple(name for name in SCHEMA.names if name not in ("geometry", "bbox"))


def item_times(plan: Plan) -> dict[str, datetime]:
    """Returns the time of each Item of a plan, by collection and id."""
    from earthgptx.catalogs.moments import start_of

    return {
        source.name: start_of(item) for source, item in zip(plan.sources, plan.items, strict=True)
    }


def to_table(
    objects: Sequence[GroundedObject], start: datetime, times: Mapping[str, datetime]
) -> pa.Table:
    """Returns the table of the objects of a time slice.

    Args:
        objects: objects of one slice.
        start: start of the slice.
        times: time of each Item, by collection and id.
    """
    outlines = np.array([each.geometry for each in objects], object)
    names = [each.part.item for each in objects]
    columns: dict[str, Any] = {
        "object_id": [each.object_id for each in objects],
        "slice": [start] * len(objects),
        "time": [times.get(name, start) for name in names],
        "label": [each.part.label for each in objects],
        "score": [each.part.score for each in objects],
        "caption": [each.caption for each in objects],
        "length_m": [each.length_m for each in objects],
        "width_m": [each.width_m for each in objects],
        "orientation_deg": [each.orientation_deg for each in objects],
        "area_m2": [each.area_m2 for each in objects],
        "prompt_ids": [" ".join(each.part.prompt_ids) for each in objects],
        "item_id": [name.partition("/")[2] for name in names],
    }
    arrays = [pa.array(columns[name], SCHEMA.field(name).type) for name in COLUMNS]
    return ordered([*arrays, *outline_columns(outlines)])


def outline_columns(outlines: NDArray[np.object_]) -> tuple[pa.Array, pa.Array]:
    """Returns the columns `geometry` and `bbox`."""
    edges = shapely.bounds(outlines).reshape(-1, 4).T
    box = pa.StructArray.from_arrays([pa.array(edge) for edge in edges], list(EDGES))
    return pa.array(shapely.to_wkb(outlines), pa.binary()), box


def ordered(columns: Sequence[pa.Array]) -> pa.Table:
    """Returns a table of these columns in the order of a Hilbert curve, then of the id."""
    table = pa.Table.from_arrays(list(columns), schema=SCHEMA)
    if not len(table):
        return table
    import geopandas as gpd

    outlines = gpd.GeoSeries.from_wkb(table["geometry"].to_pandas())
    along = outlines.hilbert_distance().to_numpy()
    return table.take(pa.array(np.lexsort([table["object_id"].to_numpy(), along])))


def as_geoparquet(table: pa.Table) -> bytes:
    """Returns a table of objects as GeoParquet 1.1, marked as ours."""
    from earthgptx.catalogs.publish import MARK

    column: dict[str, Any] = {
        "encoding": "WKB",  # and no `crs`, which stands for OGC:CRS84
        "geometry_types": ["Polygon", "MultiPolygon"],
        "covering": {"bbox": {edge: ["bbox", edge] for edge in EDGES}},
    }
    if len(table):
        edges = [table["bbox"].combine_chunks().field(edge).to_numpy() for edge in EDGES]
        column["bbox"] = [float(find(edge)) for find, edge in zip(_OUTER, edges, strict=True)]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    marked = table.replace_schema_metadata({"geo": json.dumps(geo), MARK: "1"})
    buffer = io.BytesIO()
    pq.write_table(marked, buffer, row_group_size=ROW_GROUP, compression="zstd")
    return buffer.getvalue()


_OUTER = (np.min, np.min, np.max, np.max)


def to_frame(table: pa.Table) -> gpd.GeoDataFrame:
    """Returns a table of objects, or some of its columns, as GeoDataFrame with lon/lat outlines."""
    import geopandas as gpd

    frame = table.drop_columns(
        [name for name in ("geometry", "bbox") if name in table.column_names]
    )
    outlines = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return gpd.GeoDataFrame(frame.to_pandas(), geometry=outlines, crs=LONLAT)
