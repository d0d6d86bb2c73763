"""Objects as files: GeoJSON and GeoParquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import shapely

from earthgptx.pipeline.results.object_table import outlines_of

if TYPE_CHECKING:
    import geopandas as gpd

ROWS = 5000
"""Rows of a GeoJSON document that are made at once."""


def features(found: pa.Table) -> list[dict[str, Any]]:
    """Returns a table of objects, or of other rows, as GeoJSON features."""
    made = []
    outlines = outlines_of(found)
    for row, shape in zip(found.drop_columns("geometry").to_pylist(), outlines, strict=True):
        # Ids have 63 bits, but many JSON readers keep only 53 bits of a number.
        properties = {name: plain_value(value) for name, value in row.items()}
        ids = [name for name in ("object_id", "track_id") if name in row]
        properties |= {name: str(row[name]) for name in ids}
        outline = shapely.geometry.mapping(shape)
        made.append({"type": "Feature", "properties": properties, "geometry": outline})
    return made


def geojson(found: pa.Table) -> str:
    """Returns a table of objects, or of other rows, as a GeoJSON FeatureCollection."""
    return "".join(geojson_texts(found))


def geojson_texts(found: pa.Table) -> Iterator[str]:
    """Yields the parts of a GeoJSON FeatureCollection, some rows at a time."""
    yield '{"type": "FeatureCollection", "features": ['
    for start in range(0, len(found), ROWS):
        texts = [json.dumps(each) for each in features(found.slice(start, ROWS))]
        yield (", " if start else "") + ", ".join(texts)
    yield "]}"


def write_geoparquet(found: gpd.GeoDataFrame, path: Path | None) -> None:
    """Writes a table of objects as GeoParquet 1.1, with a covering."""
    found.to_parquet(path, schema_version="1.1.0", write_covering_bbox=True, index=False)


def plain_value(value: Any) -> Any:
    """Returns a value as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
