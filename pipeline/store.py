"""The result on disk: Zarr v3, sharded, one writer per shard. What stands where, and writing it.

Plain xarray reads it. The status layer says of every pixel whether it was answered, and if not, why.
"""

from __future__ import annotations

import json
import warnings
from enum import IntEnum
from typing import Any, Literal, cast

import fsspec
import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from zarr.codecs import BloscCodec

from pipeline.errors import OutputError
from pipeline.grid import BlockKey, Grid, Window
from pipeline.plan import Plan

MARK = "earthgptx"
"""Root attribute by which a store is known as ours; only such a store is ever overwritten."""
OVERVIEW_PX = 256
"""Overviews are made until one is at most this wide and high."""
_CODECS = [BloscCodec(cname="zstd", clevel=1)]
_CONVENTIONS = [
    {"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"},
    {"uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "name": "spatial:"},
]
_MULTISCALES = {"uuid": "d35379db-88df-4056-af3a-620245f8e347", "name": "multiscales"}


class Status(IntEnum):
    """Why a pixel is as it is."""

    NOT_YET_RUN = 0
    DONE = 1
    OUTSIDE_AOI = 2
    NO_SOURCE_DATA = 3
    MASKED = 4
    QUARANTINED = 5


STATUS_WORDS = {
    Status.NOT_YET_RUN: "not yet run",
    Status.DONE: "done",
    Status.OUTSIDE_AOI: "outside the AOI",
    Status.NO_SOURCE_DATA: "no source data",
    Status.MASKED: "masked by cloud or shadow",
    Status.QUARANTINED: "quarantined: its tile failed",
}


def open_group(url: str, mode: Literal["r", "r+"] = "r+") -> zarr.Group:
    """The root group of a store at any fsspec URL.

    Raises:
        OutputError: there is none, or it is not ours.
    """
    try:
        root = zarr.open_group(_store(url, read_only=mode == "r"), mode=mode, use_consolidated=False)
    except (FileNotFoundError, KeyError, ValueError, OSError) as error:
        raise OutputError(f"{url} holds no Zarr store ({type(error).__name__}); is the path right?") from error
    if MARK not in root.attrs:
        raise OutputError(f"{url} is a Zarr store, but no result of earthgptx; choose another output")
    return root


def exists(url: str) -> bool:
    """Whether anything is at the place of an output."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return bool(fs.exists(path))


def remove(url: str) -> None:
    """Delete a result.

    Raises:
        OutputError: what is there is not ours.
    """
    open_group(url, mode="r")
    fs, path = fsspec.core.url_to_fs(url)
    fs.rm(path, recursive=True)


def group_path(plan: Plan, kind: str, grid: str) -> str:
    """Path of a group: `raster`, or `raster/epsg32631` where the result has several grids."""
    return kind if len(plan.grids) == 1 else f"{kind}/{grid}"


def create(plan: Plan, url: str) -> zarr.Group:
    """Make all groups and arrays, or those that an interrupted creation left out; writes no data but coordinates.

    Raises:
        OutputError: the place cannot be written.
    """
    try:
        root = zarr.open_group(_store(url), mode="a", use_consolidated=False)
        if MARK not in root.attrs:
            root.attrs.put({MARK: _provenance(plan)})
        for grid in plan.grids.values():
            for kind, levels in (("raster", [1]), ("overview", overview_factors(grid))):
                for factor in levels:
                    path = group_path(plan, kind, grid.name) + ("" if kind == "raster" else f"/{factor}")
                    _create_raster(root, path, plan, grid, factor)
            _create_tables(root, plan, grid)
            if overview_factors(grid):
                group_at(root, group_path(plan, "overview", grid.name)).attrs.update(_multiscales(plan, grid))
    except OSError as error:
        raise OutputError(
            f"{url} cannot be written ({error}); check the path, its rights and the space left"
        ) from error
    return root


def group_at(root: zarr.Group, path: str) -> zarr.Group:
    """A group that must be there."""
    found = root[path]
    if not isinstance(found, zarr.Group):
        raise OutputError(f"{path} is no group; the store is not a result of this version")
    return found


def array_at(root: zarr.Group, path: str) -> Any:
    """An array that must be there; untyped, since zarr's own types do not know numpy's indexing."""
    return root[path]


def mark_of(root: zarr.Group) -> dict[str, Any]:
    """What the store says of itself: state, plan, job, provenance."""
    return dict(cast("dict[str, Any]", root.attrs[MARK]))


def overview_factors(grid: Grid) -> list[int]:
    """2, 4, 8 ... until the overview is small."""
    factors, factor = [], 2
    while max(grid.shape) // (factor // 2) > OVERVIEW_PX:
        factors.append(factor)
        factor *= 2
    return factors


def write(group: zarr.Group, name: str, time: int, window: Window, values: NDArray[Any]) -> None:
    """Write whole shards of a raster layer; `values` is (h, w) or (K, h, w)."""
    rows, cols = slice(window.y0, window.y1), slice(window.x0, window.x1)
    array = array_at(group, name)
    if values.ndim == 3:
        array[:, time, rows, cols] = values
    else:
        array[time, rows, cols] = values


def finish(root: zarr.Group, state: str, failed: int) -> None:
    """Say in the root how the job ended, and make the metadata readable at once."""
    root.attrs.update({MARK: mark_of(root) | {"state": state, "failed_tiles": failed}})
    with warnings.catch_warnings():
        # Not yet in the specification of Zarr v3, but xarray opens a remote store far quicker with it.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(root.store)


def _store(url: str, *, read_only: bool = False) -> Any:
    if "://" not in url:
        return zarr.storage.LocalStore(url, read_only=read_only)
    return zarr.storage.FsspecStore.from_url(url, read_only=read_only)


def _provenance(plan: Plan) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "state": "created",
        "plan_id": plan.plan_id,
        "job": json.loads(plan.spec.model_dump_json(by_alias=True)),
        "model": {"name": plan.traits.name, "digest": plan.traits.digest},
        "modality": plan.modality,
        "items": [f"{item.collection_id}/{item.id}" for item in plan.items],
        "refused_prompts": plan.refused_prompts,
        "software": {name: version(name) for name in ("earthgptx", "zarr", "rasterio", "odc-stac", "numpy")},
    }


def _create_raster(root: zarr.Group, path: str, plan: Plan, grid: Grid, factor: int) -> None:
    height, width = (-(-side // factor) for side in grid.shape)
    affine = grid.affine @ Affine.scale(factor)
    group = root.require_group(path)
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
        "score": (np.uint8, {"long_name": "confidence of the best phrase", "scale_factor": 1 / 255, "units": "1"}),
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
        _array(group, name, (times, height, width), dtype, ("time", "y", "x"), attributes, chunk, shard)
    if plan.spec.tasks.keep_scores and phrases and factor == 1:
        attributes = {"long_name": "confidence per phrase", "scale_factor": 1 / 255, "phrases": phrases}
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
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any, dims: tuple[str, ...],
    attributes: dict[str, Any], chunk: int, shard: int,
) -> None:  # fmt: skip
    if name in group:
        return
    leading = (1,) * (len(shape) - 2)
    group.create_array(
        name, shape=shape, dtype=dtype, chunks=(*leading, chunk, chunk), shards=(*leading, shard, shard),
        compressors=_CODECS, fill_value=0, dimension_names=dims,
        attributes={**attributes, "grid_mapping": "spatial_ref", "coordinates": "spatial_ref"},
    )  # fmt: skip


def _coordinates(group: zarr.Group, plan: Plan, grid: Grid, affine: Affine, shape: tuple[int, int]) -> None:
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
    _values(group, "spatial_ref", np.array(0), (), {"crs_wkt": crs.to_wkt(), "GeoTransform": transform})
    _times(group, plan)


def _times(group: zarr.Group, plan: Plan) -> None:
    seconds = np.array([round(piece.start.timestamp()) for piece in plan.slices], np.int64)
    _values(
        group, "time", seconds, ("time",),
        {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time", "axis": "T"},
    )  # fmt: skip


def _values(
    group: zarr.Group, name: str, values: NDArray[Any], dims: tuple[str, ...], attributes: dict[str, Any]
) -> None:
    if name in group:
        return
    array = group.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=values.shape, dimension_names=dims, attributes=attributes
    )
    array[...] = values


def _create_tables(root: zarr.Group, plan: Plan, grid: Grid) -> None:
    times = len(plan.slices)
    tiles = root.require_group(group_path(plan, "tiles", grid.name))
    per_block = grid.block_px // grid.core_px
    layers: dict[str, Any] = {"status": np.uint8, "seconds": np.float32, "label": "T", "caption": "T", "error": "T"}
    for name, dtype in layers.items():
        if name not in tiles:
            tiles.create_array(
                name, shape=(times, *grid.tiles_shape), dtype=np.dtypes.StringDType() if dtype == "T" else dtype,
                chunks=(1, per_block, per_block), dimension_names=("time", "row", "col"),
            )  # fmt: skip
    _times(tiles, plan)
    blocks = root.require_group(group_path(plan, "blocks", grid.name))
    for name, kind in {"state": np.uint8, "tiles": np.int32, "failed": np.int32}.items():
        if name not in blocks:
            blocks.create_array(
                name, shape=(times, *grid.blocks_shape), dtype=kind, chunks=(1, 1, 1), fill_value=0,
                dimension_names=("time", "row", "col"),
            )  # fmt: skip
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
    return {"zarr_conventions": [_MULTISCALES], "multiscales": {"layout": layout, "resampling_method": "max"}}


def block_of(grid: Grid, key: BlockKey, factor: int) -> Window:
    """Pixels of an overview that the shard at a block's place holds."""
    height, width = (-(-side // factor) for side in grid.shape)
    side = grid.block_px
    window = Window(key.row * side, key.col * side, (key.row + 1) * side, (key.col + 1) * side)
    return window & Window(0, 0, height, width)
