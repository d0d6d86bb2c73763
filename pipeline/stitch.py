"""Objects of the whole region: parts cut by block borders become one, and all get ids, measures, words."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import zarr

from model.region import Mask
from pipeline.assemble import Part, merge, resolve
from pipeline.grid import BlockKey, Grid
from pipeline.objects import GroundedObject, ground, measured_caption, nearest_neighbours
from pipeline.plan import Plan
from pipeline.scratch import Scratch
from pipeline.vectors import LONLAT

SAME_ACROSS_ZONES = 0.3
"""IoU from which objects of two zones' grids at their common border are one."""


def stitch(plan: Plan, scratch: Scratch) -> list[GroundedObject]:
    """All objects of a run, in the order of time, zone and place."""
    whole: dict[tuple[str, int], list[Part]] = defaultdict(list)
    pieces: dict[tuple[str, int], list[Part]] = defaultdict(list)
    for key in plan.blocks:
        settled, open_parts = scratch.get_parts(key)
        whole[key.grid, key.time] += settled
        pieces[key.grid, key.time] += open_parts
    found: list[GroundedObject] = []
    for place in sorted(whole.keys() | pieces.keys()):
        merged = [resolve(group, plan.traits) for group in merge(pieces[place], plan.traits)]
        parts = whole[place] + [part for part in merged if part is not None]
        name, time = place
        grid, start = plan.grids[name], plan.slices[time].start.isoformat()
        found += [each for each in ground(parts, grid, time, start) if _owned(each, grid)]
    if len(plan.grids) > 1:
        found = _once_across_zones(found)
    found.sort(key=lambda each: (each.time, each.grid, each.part.mask.y0, each.part.mask.x0, each.object_id))
    return _described(plan, found)


def painted(plan: Plan, objects: Iterable[GroundedObject]) -> dict[BlockKey, list[tuple[int, Mask]]]:
    """For each block the ids and pixels of its objects, the surest last."""
    by_block: dict[BlockKey, list[tuple[int, Mask]]] = defaultdict(list)
    for each in sorted(objects, key=lambda one: (one.part.score, one.object_id)):
        mask, side = each.part.mask, plan.spec.grid.block_px
        for row in range(max(mask.y0, 0) // side, (mask.y0 + mask.height - 1) // side + 1):
            for col in range(max(mask.x0, 0) // side, (mask.x0 + mask.width - 1) // side + 1):
                key = BlockKey(each.grid, each.time, row, col)
                if key in plan.block_set:
                    by_block[key].append((each.object_id, mask))
    return by_block


def to_frame(plan: Plan, objects: list[GroundedObject]) -> gpd.GeoDataFrame:
    """The objects as a table, lon/lat."""
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
            "prompt_ids": pd.Series([" ".join(each.part.prompt_ids) for each in objects], dtype="str"),
            "item_id": pd.Series([each.item_id for each in objects], dtype="str"),
            "bbox": [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in bounds],
        },
        geometry=[each.geometry for each in objects],
        crs=LONLAT,
    )


def write_objects(root: zarr.Group, frame: gpd.GeoDataFrame, url: str) -> None:
    """Write the table into the store's group `objects`, and as GeoParquet at `url`."""
    if "objects" in root:
        del root["objects"]
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
    for name, values, attributes in [*((n, v, None) for n, v in columns.items()), ("time", seconds, times)]:
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(max(min(len(frame), 65536), 1), *values.shape[1:]),
            dimension_names=("object", "bound")[: values.ndim], attributes=attributes,
        )  # fmt: skip
        if len(frame):
            array[...] = values
    group["geometry"].attrs["long_name"] = "outline, WKB in hexadecimal, lon/lat (OGC:CRS84)"
    buffer = io.BytesIO()
    frame.drop(columns="bbox").to_parquet(buffer, schema_version="1.1.0", write_covering_bbox=True, index=False)
    with fsspec.open(url, "wb") as file:
        file.write(buffer.getvalue())


def _owned(found: GroundedObject, grid: Grid) -> bool:
    if grid.zone is None:
        return True
    # A pixel's width of doubt at a zone's border, where the two grids round differently.
    middle, doubt = found.geometry.envelope.centroid, 2 * abs(grid.transform[0]) / 111_000
    west, south, east, north = grid.zone
    return west - doubt <= middle.x < east + doubt and south <= middle.y < north


def _once_across_zones(objects: list[GroundedObject]) -> list[GroundedObject]:
    """Of objects that two zones both found, the surer one, then the first zone's."""
    ranked = sorted(objects, key=lambda each: (-each.part.score, each.grid, each.object_id))
    shapes = np.array([each.geometry for each in ranked], object)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    dropped: set[int] = set()
    for a, b in sorted(zip(first.tolist(), second.tolist(), strict=True)):
        one, other = ranked[a], ranked[b]
        if (
            a >= b
            or a in dropped
            or one.grid == other.grid
            or one.time != other.time
            or one.part.label != other.part.label
        ):
            continue
        both = shapely.intersection(shapes[a], shapes[b]).area
        if both >= SAME_ACROSS_ZONES * (shapes[a].area + shapes[b].area - both):
            dropped.add(b)
    return [each for at, each in enumerate(ranked) if at not in dropped]


def _described(plan: Plan, objects: list[GroundedObject]) -> list[GroundedObject]:
    described = []
    for each, nearest in zip(objects, nearest_neighbours(objects), strict=True):
        caption = each.part.caption or measured_caption(each, nearest)
        described.append(replace(each, caption=caption, item_id=_item_of(plan, each)))
    return described


def _item_of(plan: Plan, found: GroundedObject) -> str:
    grid, mask = plan.grids[found.grid], found.part.mask
    middle = shapely.Point(grid.affine @ (mask.centre.x, mask.centre.y))
    prints = plan.footprints[found.grid]
    return next((plan.items[at].id for at in plan.slices[found.time].items if prints[at].intersects(middle)), "")
