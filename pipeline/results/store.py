"""Opens, writes and deletes the Zarr v3 store of a result.

The arrays are sharded, with one writer per shard. Plain xarray can read them. The status layer
gives for every pixel whether it has an answer, and if not, why.
"""

from __future__ import annotations

import warnings
from enum import IntEnum
from typing import Any, Literal, cast

import fsspec
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.job.grid import BlockKey, Grid, Window
from earthgptx.pipeline.planning.plan import Plan

MARK = "earthgptx"
"""Root attribute that marks a store as a result; only marked stores are ever overwritten."""
OVERVIEW_PX = 256
"""Overviews are added until the longer side has at most this many pixels, rounded down."""


class Status(IntEnum):
    """Whether a pixel has an answer, and if not, why."""

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
    """Opens the root group of a result.

    Args:
        url: fsspec URL or local path.
        mode: "r" to read, "r+" to read and write.

    Raises:
        OutputError: there is no Zarr store, or it is not a result.
    """
    try:
        root = zarr.open_group(
            zarr_store(url, read_only=mode == "r"), mode=mode, use_consolidated=False
        )
    except (FileNotFoundError, KeyError, ValueError, OSError) as error:
        raise OutputError(
            f"{url} holds no Zarr store ({type(error).__name__}); is the path right?"
        ) from error
    if MARK not in root.attrs:
        raise OutputError(
            f"{url} is a Zarr store, but no result of earthgptx; choose another output"
        )
    return root


def exists(url: str) -> bool:
    """Whether a file or folder exists at a URL or path."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return bool(fs.exists(path))


def remove(url: str) -> None:
    """Deletes a result.

    Raises:
        OutputError: there is no Zarr store at `url`, or it is not a result.
    """
    open_group(url, mode="r")
    fs, path = fsspec.core.url_to_fs(url)
    fs.rm(path, recursive=True)


def group_path(plan: Plan, kind: str, grid: str) -> str:
    """Returns a group's path: `raster`, or `raster/epsg32631` if the result has several grids."""
    return kind if len(plan.grids) == 1 else f"{kind}/{grid}"


def group_at(root: zarr.Group, path: str) -> zarr.Group:
    """Returns an existing group.

    Raises:
        KeyError: nothing exists at the path.
        OutputError: the path is an array.
    """
    found = root[path]
    if not isinstance(found, zarr.Group):
        raise OutputError(f"{path} is no group; the store is not a result of this version")
    return found


def array_at(root: zarr.Group, path: str) -> Any:
    """Returns an existing array; untyped, since zarr's types do not cover numpy indexing.

    Raises:
        KeyError: nothing exists at the path.
    """
    return root[path]


def mark_of(root: zarr.Group) -> dict[str, Any]:
    """Returns the root attributes of a result: state, plan, job, provenance."""
    return dict(cast("dict[str, Any]", root.attrs[MARK]))


def overview_factors(grid: Grid) -> list[int]:
    """Returns the factors 2, 4, 8 ... of a grid's overviews; see `OVERVIEW_PX`."""
    factors, factor = [], 2
    while max(grid.shape) // (factor // 2) > OVERVIEW_PX:
        factors.append(factor)
        factor *= 2
    return factors


def write(group: zarr.Group, name: str, time: int, window: Window, values: NDArray[Any]) -> None:
    """Writes whole shards of a raster layer.

    Args:
        group: group of the layer.
        name: name of the layer.
        time: number of the time slice.
        window: pixels to write; whole shards, so that each shard has one writer.
        values: (h, w), or (K, h, w) for a layer per phrase.
    """
    rows, cols = slice(window.y0, window.y1), slice(window.x0, window.x1)
    array = array_at(group, name)
    if values.ndim == 3:
        array[:, time, rows, cols] = values
    else:
        array[time, rows, cols] = values


def finish(root: zarr.Group, state: str, failed: int) -> None:
    """Writes state and number of quarantined tiles to the root and consolidates the metadata.

    Args:
        root: root group.
        state: job status as in openEO; also used at the start of a run, with "running".
        failed: number of quarantined tiles.
    """
    root.attrs.update({MARK: mark_of(root) | {"state": state, "failed_tiles": failed}})
    with warnings.catch_warnings():
        # Not yet in the Zarr v3 specification, but xarray opens a remote store far faster with it.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(root.store)


def zarr_store(url: str, *, read_only: bool = False) -> Any:
    """Returns the zarr store at an fsspec URL or local path."""
    if "://" not in url:
        return zarr.storage.LocalStore(url, read_only=read_only)
    return zarr.storage.FsspecStore.from_url(url, read_only=read_only)


def block_of(grid: Grid, key: BlockKey, factor: int) -> Window:
    """Returns the window of an overview shard, in pixels of the overview.

    Args:
        grid: grid at full resolution.
        key: row and column of the shard.
        factor: overview factor, 2, 4, 8 ...
    """
    height, width = (-(-side // factor) for side in grid.shape)
    side = grid.block_px
    window = Window(key.row * side, key.col * side, (key.row + 1) * side, (key.col + 1) * side)
    return window & Window(0, 0, height, width)


class BlockState(IntEnum):
    """State of a block in the ledger."""

    OPEN = 0
    COMMITTED = 1
