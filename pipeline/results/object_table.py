"""Writes the object table of a result: into the Zarr group `objects`, and as GeoParquet."""

from __future__ import annotations

import io
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import zarr
from zarr.core.sync import sync

from earthgptx.catalogs.publish import marked_parquet
from earthgptx.pipeline.job.vectors import LONLAT
from earthgptx.pipeline.objects.measure import (
    GroundedObject,
)
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.layout import CODECS


def to_frame(plan: Plan, objects: list[GroundedObject]) -> gpd.GeoDataFrame:
    """Returns a table with one row per object and lon/lat outlines."""
    starts = [plan.slices[each.time].start.replace(tzinfo=None) for each in objects]
    bounds = [each.geometry.bounds for each in objects]
    return gpd.GeoDataFrame(
        {
            "object_id": np.array([each.object_id for each in objects], np.int64),
            "time": pd.to_datetime(pd.Series(starts, dtype="datetime64[s]"), utc=True),
            "label": pd.Series([each.part.label for each in objects], dtype="str"),
            "score": np.array([each.part.score for each in objects], np.float64),
            "area_m2": np.array([each.area_m2 for each in objects], np.float64),
            "length_m": np.array([each.length_m for each in objects], np.float64),
            "width_m": np.array([each.width_m for each in objects], np.float64),
            "orientation_deg": np.array([each.orientation_deg for each in objects], np.float64),
            "caption": pd.Series([each.caption for each in objects], dtype="str"),
            "prompt_ids": pd.Series(
                [" ".join(each.part.prompt_ids) for each in objects], dtype="str"
            ),
            "item_id": pd.Series([each.item_id for each in objects], dtype="str"),
            "bbox": [
                dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in bounds
            ],
        },
        geometry=[each.geometry for each in objects],
        crs=LONLAT,
    )


def write_objects(root: zarr.Group, frame: gpd.GeoDataFrame) -> bytes:
    """Writes the object table into the store, and returns it as GeoParquet.

    Args:
        root: root group of the store; its group `objects` is replaced.
        frame: table from `to_frame`.
    """
    sync(root.store.delete_dir("objects"))
    group = root.create_group("objects")
    text = ("label", "caption", "prompt_ids", "item_id")
    columns = {
        name: frame[name].to_numpy()
        for name in ("object_id", "score", "area_m2", "length_m", "width_m", "orientation_deg")
    }
    columns |= {name: np.array(frame[name].to_list(), np.dtypes.StringDType()) for name in text}
    columns["geometry"] = np.array(
        [shapely.to_wkb(shape, hex=True) for shape in frame.geometry], np.dtypes.StringDType()
    )
    columns["bbox"] = frame.bounds.to_numpy(np.float64).reshape(-1, 4)
    seconds = np.array([round(moment.timestamp()) for moment in frame["time"]], np.int64)
    times: dict[str, Any] = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    for name, values, attributes in [
        *((n, v, None) for n, v in columns.items()),
        ("time", seconds, times),
    ]:
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(max(min(len(frame), 65536), 1), *values.shape[1:]),
            dimension_names=("object", "bound")[: values.ndim],
            compressors=CODECS,
            attributes=attributes,
        )
        if len(frame):
            array[...] = values
    group["geometry"].attrs["long_name"] = "outline, WKB in hexadecimal, lon/lat (OGC:CRS84)"
    buffer = io.BytesIO()
    frame.drop(columns="bbox").to_parquet(
        buffer, schema_version="1.1.0", write_covering_bbox=True, index=False
    )
    return marked_parquet(buffer)
