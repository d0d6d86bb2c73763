"""Creates the Zarr groups, arrays and attributes of a result.

Takes a plan, gives an empty store: rasters, overviews, tiles and blocks per grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import array_bounds
from zarr.core.sync import sync

from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import (
    CODECS,
    LAYOUT,
    MARK,
    Status,
    array_at,
    group_at,
    group_path,
    overview_factors,
    publish,
    zarr_store,
)
from earthgptx.pipeline.storage.fence import Fence

LEDGER = ("state", "content", "tiles", "failed", "passing")
"""Fields of a block's record: its `BlockState`, the content key of what it has seen, its tiles,
those that are quarantined, and those whose cause may pass. One array, so that one write changes a
record as a whole."""
LEDGER_CHUNK, TIME_CHUNK = 512, 4096
"""Rows and columns of blocks, and time slices, of a chunk of the ledger and of a coordinate."""

_CONVENTIONS = [
    {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"},
    {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial:"},
]

_MULTISCALES = {"uuid": "d35379db-88df-4056-af3a-620245f8e347", "name": "multiscales"}


def create(plan: Plan, url: str, fence: Fence) -> zarr.Group:
    """Creates all groups and arrays that do not exist yet and writes their coordinates.

    Completes a creation that was interrupted, and mends coordinates and metadata that are missing.
    Writes no data other than coordinates. Arrays begin without time slices; see `extend`.

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
        publish(root, [])
    for grid in plan.grids.values():
        for kind, levels in (("raster", [1]), ("overview", overview_factors(grid))):
            for factor in levels:
                path = group_path(plan, kind, grid.name) + (
                    "" if kind == "raster" else f"/{factor}"
                )
                _create_raster(root, path, plan, grid, factor)
        _create_tables(root, plan, grid)
        zone = root if len(plan.lattices) == 1 else group_at(root, grid.name)
        _describe(zone, _placed(grid, 1) | _multiscales(grid))
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


def _describe(group: zarr.Group, attributes: dict[str, Any]) -> None:
    """Writes attributes of a group, if they are not there."""
    if any(group.attrs.get(name) != value for name, value in attributes.items()):
        group.attrs.update(attributes)


def _provenance(plan: Plan) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "state": "created",
        "layout": LAYOUT,
        "series": plan.series,
        "lattices": {crs: astuple(lattice) for crs, lattice in plan.lattices.items()},
        "model": {"name": plan.traits.name, "digest": plan.traits.digest},
        "modality": plan.modality,
        "software": {
            name: version(name) for name in ("earthgptx", "zarr", "rasterio", "odc-geo", "numpy")
        },
        **told(plan),
    }


def told(plan: Plan) -> dict[str, Any]:
    """Returns what the root's attributes say of the last run."""
    return {
        "job": plan.spec.redacted(),
        "grids": {name: list(grid.shape) for name, grid in plan.grids.items()},
        "refused_prompts": plan.refused_prompts,
        "refused_items": plan.refused_items,
        "warnings": list(plan.warnings),
    }


def extend(root: zarr.Group, plan: Plan, count: int, kinds: Sequence[str]) -> None:
    """Gives the arrays of groups a number of time slices, and writes their time coordinates.

    Args:
        root: root group of the result.
        plan: plan of the run; has its slices where the store has them.
        count: number of slices.
        kinds: `blocks`, `tiles`, `raster` or `overview`.
    """
    for grid in plan.grids.values():
        for kind in kinds:
            path = group_path(plan, kind, grid.name)
            factors = overview_factors(grid) if kind == "overview" else [0]
            for factor in factors:
                group = group_at(root, f"{path}/{factor}" if factor else path)
                for _, array in group.arrays():
                    _resize(array, count)
                _times(group, plan, count)


def _resize(array: Any, count: int) -> None:
    names = array.metadata.dimension_names or ()
    if "time" in names and array.ndim > 1:
        axis = names.index("time")
        if array.shape[axis] != count:
            shape = tuple(count if at == axis else side for at, side in enumerate(array.shape))
            sync(array.async_array.resize(shape, delete_outside_chunks=False))


def _create_raster(root: zarr.Group, path: str, plan: Plan, grid: Grid, factor: int) -> None:
    height, width = (-(-side // factor) for side in grid.padded_shape)
    affine = grid.affine @ Affine.scale(factor)
    group = _group(root, path)
    _describe(group, _placed(grid, factor))
    _coordinates(group, grid, affine, (height, width))
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
        _array(group, name, (0, height, width), dtype, ("time", "y", "x"), attributes, chunk, shard)
    if plan.spec.tasks.keep_scores and phrases and factor == 1:
        attributes = {
            "long_name": "confidence per phrase",
            "scale_factor": 1 / 255,
            "phrases": phrases,
        }
        _array(
            group,
            "scores",
            (len(phrases), 0, height, width),
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


def _coordinates(group: zarr.Group, grid: Grid, affine: Affine, shape: tuple[int, int]) -> None:
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


def _times(group: zarr.Group, plan: Plan, count: int) -> None:
    starts = [piece.start for piece in plan.slices[:count]]
    seconds = np.array([round(start.timestamp()) for start in starts], np.int64)
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
            chunks=(TIME_CHUNK,) if dims == ("time",) else values.shape,
            compressors=CODECS,
            dimension_names=dims,
            attributes=attributes,
        )
    array = array_at(group, name)
    if array.shape != values.shape:
        array.resize(values.shape)
    try:
        complete = np.array_equal(array[...], values)
    except (ValueError, RuntimeError):  # damaged
        complete = False
    if not complete:
        array[...] = values


def _create_tables(root: zarr.Group, plan: Plan, grid: Grid) -> None:
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
                shape=(0, *grid.tiles_shape),
                dtype=np.dtypes.StringDType() if dtype == "T" else dtype,
                chunks=(1, per_block, per_block),
                compressors=CODECS,
                dimension_names=("time", "row", "col"),
            )
    blocks = _group(root, group_path(plan, "blocks", grid.name))
    if not _has(blocks, "record"):
        blocks.create_array(
            "record",
            shape=(0, *grid.blocks_shape, len(LEDGER)),
            dtype=np.uint64,
            chunks=(1, *(min(side, LEDGER_CHUNK) for side in grid.blocks_shape), len(LEDGER)),
            compressors=CODECS,
            fill_value=0,
            dimension_names=("time", "row", "col", "field"),
        )
    names = np.array(LEDGER, np.dtypes.StringDType())
    _values(blocks, "field", names, ("field",), {"long_name": "field of a block's record"})


def _placed(grid: Grid, factor: int) -> dict[str, Any]:
    """Returns what the conventions `proj:` and `spatial:` say of a group."""
    height, width = (-(-side // factor) for side in grid.padded_shape)
    affine = grid.affine @ Affine.scale(factor)
    west, south, east, north = array_bounds(height, width, affine)
    return {
        "zarr_conventions": _CONVENTIONS,
        "proj:code" if grid.crs.startswith("EPSG:") else "proj:wkt2": grid.crs,
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [height, width],
        "spatial:bbox": [west, south, east, north],
        "spatial:transform": list(affine)[:6],
    }


def _multiscales(grid: Grid) -> dict[str, Any]:
    """Returns what the convention `multiscales` says of the group of a grid.

    The assets lie below the group, as GeoZarr viewers expect it.
    """
    layout: list[dict[str, Any]] = [{"asset": "raster", **_extent(grid, 1)}]
    for factor in overview_factors(grid):
        layout.append(
            {
                "asset": f"overview/{factor}",
                "derived_from": layout[-1]["asset"],
                "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
                **_extent(grid, factor),
            }
        )
    return {
        "zarr_conventions": [*_CONVENTIONS, _MULTISCALES],
        "multiscales": {"layout": layout, "resampling_method": "max"},
    }


def _extent(grid: Grid, factor: int) -> dict[str, Any]:
    placed = _placed(grid, factor)
    return {name: placed[name] for name in ("spatial:shape", "spatial:transform")}
