"""Creates the Zarr groups, arrays and attributes of a result.

Takes a plan, gives an empty store: rasters, overviews, tiles and blocks per grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.sync import sync

from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import (
    LAYOUT,
    MARK,
    Status,
    array_at,
    group_at,
    group_path,
    overview_factors,
    zarr_store,
)
from earthgptx.pipeline.storage.fence import Fence

CODECS = [BloscCodec(cname="zstd", clevel=1), Crc32cCodec()]
"""A chunk carries a checksum: a reader gets its values or an error."""

LEDGER = {"tiles": np.int32, "failed": np.int32, "passing": np.int32, "state": np.uint8}
"""Arrays of the ledger, in the order in which a block's entry is written: its tiles, those that are
quarantined, those whose cause may pass, and last its `BlockState`."""

_CONVENTIONS = [
    {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"},
    {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial:"},
]

_MULTISCALES = {"uuid": "d35379db-88df-4056-af3a-620245f8e347", "name": "multiscales"}


def create(plan: Plan, url: str, fence: Fence) -> zarr.Group:
    """Creates all groups and arrays that do not exist yet and writes their coordinates.

    Completes a creation that was interrupted, and mends coordinates and metadata that are missing.
    Writes no data other than coordinates.

    Args:
        plan: plan of the run.
        url: URL of the store.
        fence: checks the lease before each write.

    Returns:
        The root group.

    Raises:
        OutputError: the store cannot be written.
        Outage: the storage does not answer or is full.
    """
    store = zarr_store(url, fence)
    try:
        root = zarr.open_group(store, mode="r+", use_consolidated=False)
    except (FileNotFoundError, ValueError, KeyError):
        sync(store.delete("zarr.json"))  # it may be damaged
        # One write, so that a store never exists without the mark.
        root = zarr.create_group(store, attributes={MARK: _provenance(plan)})
    for grid in plan.grids.values():
        for kind, levels in (("raster", [1]), ("overview", overview_factors(grid))):
            for factor in levels:
                path = group_path(plan, kind, grid.name) + (
                    "" if kind == "raster" else f"/{factor}"
                )
                _create_raster(root, path, plan, grid, factor)
        _create_tables(root, plan, grid)
        if overview_factors(grid):
            group_at(root, group_path(plan, "overview", grid.name)).attrs.update(
                _multiscales(plan, grid)
            )
    return root


def _has(group: zarr.Group, name: str) -> bool:
    """Whether a group has an array or a group; removes metadata that cannot be read."""
    try:
        return name in group
    except (ValueError, KeyError):
        sync(group.store.delete("/".join(part for part in (group.path, name, "zarr.json") if part)))
        return False


def _group(root: zarr.Group, path: str) -> zarr.Group:
    """Returns a group; creates it, and those above it, if they do not exist."""
    group = root
    for name in path.split("/"):
        group = group_at(group, name) if _has(group, name) else group.create_group(name)
    return group


def _provenance(plan: Plan) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "state": "created",
        "layout": LAYOUT,
        "plan_id": plan.plan_id,
        "job": plan.spec.redacted(),
        "model": {"name": plan.traits.name, "digest": plan.traits.digest},
        "modality": plan.modality,
        "items": [f"{item.collection_id}/{item.id}" for item in plan.items],
        "refused_prompts": plan.refused_prompts,
        "refused_items": plan.refused_items,
        "warnings": list(plan.warnings),
        "software": {
            name: version(name) for name in ("earthgptx", "zarr", "rasterio", "odc-geo", "numpy")
        },
    }


def _create_raster(root: zarr.Group, path: str, plan: Plan, grid: Grid, factor: int) -> None:
    height, width = (-(-side // factor) for side in grid.shape)
    affine = grid.affine @ Affine.scale(factor)
    group = _group(root, path)
    group.attrs.update(
        {
            "zarr_conventions": _CONVENTIONS,
            "proj:code" if grid.crs.startswith("EPSG:") else "proj:wkt2": grid.crs,
            "spatial:dimensions": ["y", "x"],
            "spatial:shape": [height, width],
            "spatial:transform": list(affine)[:6],
        }
    )
    _coordinates(group, plan, grid, affine, (height, width))
    times = len(plan.slices)
    phrases = plan.spec.tasks.find
    flags = {
        "flag_values": list(range(len(phrases) + 1)),
        "flag_meanings": " ".join(["none", *(p.replace(" ", "_") for p in phrases)]),
    }
    layers: dict[str, tuple[Any, dict[str, Any]]] = {
        "label": (np.uint8, {"long_name": "phrase that fits best", **flags}),
        "score": (
            np.uint8,
            {"long_name": "confidence of the best phrase", "scale_factor": 1 / 255, "units": "1"},
        ),
        "object_id": (np.uint64, {"long_name": "object, 0 for none; see the group objects"}),
        "status": (
            np.uint8,
            {
                "long_name": "why a pixel is as it is",
                "flag_values": [int(status) for status in Status],
                "flag_meanings": " ".join(status.name.lower() for status in Status),
            },
        ),
    }
    shard = plan.spec.grid.block_px
    chunk = plan.spec.grid.chunk_px
    for name, (dtype, attributes) in layers.items():
        _array(
            group, name, (times, height, width), dtype, ("time", "y", "x"), attributes, chunk, shard
        )
    if plan.spec.tasks.keep_scores and phrases and factor == 1:
        attributes = {
            "long_name": "confidence per phrase",
            "scale_factor": 1 / 255,
            "phrases": phrases,
        }
        _array(
            group,
            "scores",
            (len(phrases), times, height, width),
            np.uint8,
            ("phrase", "time", "y", "x"),
            attributes,
            chunk,
            shard,
        )


def _array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    attributes: dict[str, Any],
    chunk: int,
    shard: int,
) -> None:
    if _has(group, name):
        return
    leading = (1,) * (len(shape) - 2)
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(*leading, chunk, chunk),
        shards=(*leading, shard, shard),
        compressors=CODECS,
        fill_value=0,
        dimension_names=dims,
        attributes={**attributes, "grid_mapping": "spatial_ref", "coordinates": "spatial_ref"},
    )


def _coordinates(
    group: zarr.Group, plan: Plan, grid: Grid, affine: Affine, shape: tuple[int, int]
) -> None:
    height, width = shape
    crs = CRS.from_user_input(grid.crs)
    transform = " ".join(repr(float(value)) for value in affine.to_gdal())
    _values(
        group,
        "x",
        affine.c + affine.a * (np.arange(width) + 0.5),
        ("x",),
        {"standard_name": "projection_x_coordinate", "axis": "X"},
    )
    _values(
        group,
        "y",
        affine.f + affine.e * (np.arange(height) + 0.5),
        ("y",),
        {"standard_name": "projection_y_coordinate", "axis": "Y"},
    )
    _values(
        group, "spatial_ref", np.array(0), (), {"crs_wkt": crs.to_wkt(), "GeoTransform": transform}
    )
    _times(group, plan)


def _times(group: zarr.Group, plan: Plan) -> None:
    seconds = np.array([round(piece.start.timestamp()) for piece in plan.slices], np.int64)
    _values(
        group,
        "time",
        seconds,
        ("time",),
        {
            "units": "seconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
            "standard_name": "time",
            "axis": "T",
        },
    )


def _values(
    group: zarr.Group,
    name: str,
    values: NDArray[Any],
    dims: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    if not _has(group, name):
        group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            compressors=CODECS,
            dimension_names=dims,
            attributes=attributes,
        )
    array = array_at(group, name)
    try:
        complete = np.array_equal(array[...], values)
    except (ValueError, RuntimeError):  # damaged
        complete = False
    if not complete:
        array[...] = values


def _create_tables(root: zarr.Group, plan: Plan, grid: Grid) -> None:
    times = len(plan.slices)
    tiles = _group(root, group_path(plan, "tiles", grid.name))
    per_block = grid.block_px // grid.core_px
    layers: dict[str, Any] = {
        "status": np.uint8,
        "seconds": np.float32,
        "label": "T",
        "caption": "T",
        "error": "T",
        "cause": "T",
    }
    for name, dtype in layers.items():
        if not _has(tiles, name):
            tiles.create_array(
                name,
                shape=(times, *grid.tiles_shape),
                dtype=np.dtypes.StringDType() if dtype == "T" else dtype,
                chunks=(1, per_block, per_block),
                compressors=CODECS,
                dimension_names=("time", "row", "col"),
            )
    _times(tiles, plan)
    blocks = _group(root, group_path(plan, "blocks", grid.name))
    for name, kind in LEDGER.items():
        if not _has(blocks, name):
            blocks.create_array(
                name,
                shape=(times, *grid.blocks_shape),
                dtype=kind,
                chunks=(1, 1, 1),
                compressors=[Crc32cCodec()],
                fill_value=0,
                dimension_names=("time", "row", "col"),
            )
    _times(blocks, plan)


def _multiscales(plan: Plan, grid: Grid) -> dict[str, Any]:
    base = "../raster" if len(plan.grids) == 1 else f"../../raster/{grid.name}"
    layout: list[dict[str, Any]] = [{"asset": base}]
    for factor in overview_factors(grid):
        before = layout[-1]["asset"]
        layout.append(
            {
                "asset": str(factor),
                "derived_from": before,
                "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
            }
        )
    return {
        "zarr_conventions": [_MULTISCALES],
        "multiscales": {"layout": layout, "resampling_method": "max"},
    }
