"""Opens, writes and deletes the Zarr v3 store of a result.

The arrays are sharded, with one writer per shard. Plain xarray can read them. The status layer
gives for every pixel whether it has an answer, and if not, why.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from earthgptx.pipeline.errors import OutputError, PipelineError
from earthgptx.pipeline.job.grid import BlockKey, Grid, Window
from earthgptx.pipeline.storage.blobs import CLOUD, ICECHUNK, is_versioned, open_blobs, plain
from earthgptx.pipeline.storage.errors import storage_errors
from earthgptx.pipeline.storage.fence import Fence, fenced
from earthgptx.pipeline.storage.local import PARTIAL
from earthgptx.pipeline.storage.versions import LAST, BranchStore, Version, read_store, write_store

if TYPE_CHECKING:
    from earthgptx.pipeline.planning.plan import Plan

MARK = "earthgptx"
"""Root attribute that marks a store as a result; only marked stores are ever overwritten."""
CODECS = [BloscCodec(cname="zstd", clevel=1), Crc32cCodec()]
"""A chunk carries a checksum: a reader gets its values or an error."""
LAYOUT = 7
"""Version of the layout of a result's groups and arrays; others are not read."""
OVERVIEW_PX = 256
"""Overviews are added until the longer side has at most this many pixels, rounded down."""


class Status(IntEnum):
    """Whether a pixel has an answer, and if not, why."""

    NO_ANSWER = 0
    """No Item shows the block, or it has not run; the ledger says which."""
    DONE = 1
    OUTSIDE_AOI = 2
    NO_SOURCE_DATA = 3
    MASKED = 4
    QUARANTINED = 5


STATUS_WORDS = {
    Status.NO_ANSWER: "no answer",
    Status.DONE: "done",
    Status.OUTSIDE_AOI: "outside the AOI",
    Status.NO_SOURCE_DATA: "no source data",
    Status.MASKED: "masked by cloud or shadow",
    Status.QUARANTINED: "quarantined: its tile failed",
}


class Cause(StrEnum):
    """Why a tile is quarantined."""

    UNREACHABLE = "unreachable"
    """The server of its imagery refused or did not answer."""
    DAMAGED = "damaged"
    """Its imagery is damaged, or not as its Item says."""
    MODEL = "model"
    """The model raised on it, or answered nonsense."""
    UNPROVEN = "unproven"
    """The model failed on it, on a replica that has answered no tile."""
    DIED = "died"
    """Processes died on it."""
    MEMORY = "memory"
    """Processes ran out of memory on it."""
    HUNG = "hung"
    """The model did not come back from it in time."""

    @property
    def passing(self) -> bool:
        """Whether a later run may succeed on the tile."""
        return self not in (Cause.DAMAGED, Cause.MODEL)


def open_group(
    url: str,
    fence: Fence | None = None,
    *,
    version: Version = LAST,
    unfinished: bool = False,
    any_layout: bool = False,
) -> zarr.Group:
    """Opens the root group of a result.

    Args:
        url: local path or URL.
        fence: checks the lease before each write; None to open for reading only.
        version: state of a result that keeps its states, for reading.
        unfinished: whether to see what a run has done that has not ended.
        any_layout: whether to open a result of another version.

    Raises:
        OutputError: there is no Zarr store, or it is not a result of this version.
        Outage: the storage does not answer.
    """
    mode: Literal["r", "r+"] = "r" if fence is None else "r+"
    try:
        with storage_errors(url):
            found = zarr_store(url, fence, version=version, unfinished=unfinished)
            root = zarr.open_group(found, mode=mode, use_consolidated=False)
    except PipelineError:
        raise
    except (FileNotFoundError, KeyError, ValueError) as error:
        with suppress(NotADirectoryError):
            refuse_other_kind(url)
        raise OutputError(
            f"{url} holds no Zarr store ({type(error).__name__}); is the path right?"
        ) from error
    if MARK not in root.attrs:
        raise OutputError(
            f"{url} is a Zarr store, but no result of earthgptx; choose another output"
        )
    if not any_layout and mark_of(root).get("layout") != LAYOUT:
        raise OutputError(
            f"{url} was written by another version of earthgptx; read it with that version, or "
            "remove it with the files beside it and run its job again"
        )
    return root


def refuse_other_kind(url: str) -> None:
    """Refuses to write a result where one of the other kind lies: plain, or versioned.

    Raises:
        OutputError: there is one.
    """
    other = plain(url) if is_versioned(url) else f"{ICECHUNK}{url}"
    try:
        open_blobs(other).get(_root_file(other))
    except FileNotFoundError:
        return
    kind = "a plain Zarr store" if is_versioned(url) else "an Icechunk repository"
    raise OutputError(f"{url} is {kind}; its address is {other}")


def exists(url: str) -> bool:
    """Whether files exist below a URL or path, apart from ones that a dead process left unfinished.

    Raises:
        OutputError: a file lies at the path.
    """
    blobs = open_blobs(url)
    try:
        blobs.get(_root_file(url))
    except FileNotFoundError:
        return any(not name.endswith(PARTIAL) for name in blobs.names())
    return True


def is_result(url: str) -> bool:
    """Whether the root of a Zarr store carries our mark."""
    try:
        with storage_errors(url):
            found = zarr_store(url, unfinished=True)
            root = zarr.open_group(found, mode="r", use_consolidated=False)
    except (FileNotFoundError, KeyError, ValueError):
        return False
    return MARK in root.attrs


def remove(url: str, fence: Fence) -> None:
    """Deletes all files of a result; its root, which carries the mark, goes last."""
    blobs = fenced(url, fence)
    names = blobs.names()
    last = _root_file(url)
    blobs.delete(name for name in names if name != last)
    blobs.delete([last])
    blobs.tidy()


def _root_file(url: str) -> str:
    """Returns the name of the file without which nothing is there."""
    return "refs/branch.main/ref.json" if is_versioned(url) else "zarr.json"


def group_path(plan: Plan, kind: str, grid: str) -> str:
    """Returns a group's path: `raster`, or `epsg32631/raster` if the series has several CRSs."""
    return kind if len(plan.lattices) == 1 else f"{grid}/{kind}"


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


def grids_of(root: zarr.Group) -> tuple[str, ...]:
    """Returns the names of the groups of a result's zones; one empty name if it has one CRS."""
    if "raster" in root:
        return ("",)
    return tuple(sorted(name for name in mark_of(root)["grids"] if f"{name}/raster" in root))


def array_at(root: zarr.Group, path: str) -> Any:
    """Returns an existing array; untyped, since zarr's types do not cover numpy indexing.

    Raises:
        KeyError: nothing exists at the path.
    """
    return root[path]


def array_for(group: zarr.Group, path: str, time: int) -> Any:
    """Returns an existing array with room for a time slice, which its metadata may not have yet.

    A slice's data is written before the arrays say that it is there.

    Args:
        group: group above the array.
        path: path of the array in it.
        time: position of the slice.

    Raises:
        KeyError: nothing exists at the path.
    """
    array = array_at(group, path)
    axis = array.metadata.dimension_names.index("time")
    if array.shape[axis] > time:
        return array
    shape = tuple(time + 1 if at == axis else side for at, side in enumerate(array.shape))
    return zarr.Array(
        zarr.AsyncArray(
            metadata=array.metadata.update_shape(shape),
            store_path=array.store_path,
            config=array.async_array.config,
        )
    )


def mark_of(root: zarr.Group) -> dict[str, Any]:
    """Returns the root attributes of a result: state, plan, job, provenance."""
    return dict(cast("dict[str, Any]", root.attrs[MARK]))


def overview_factors(grid: Grid) -> list[int]:
    """Returns the factors 2, 4, 8 ... of a grid's overviews; see `OVERVIEW_PX`."""
    factors, factor = [], 2
    while max(grid.padded_shape) // (factor // 2) > OVERVIEW_PX:
        factors.append(factor)
        factor *= 2
    return factors


def write(group: zarr.Group, name: str, time: int, window: Window, values: NDArray[Any]) -> None:
    """Writes one whole shard of a raster layer, so that nothing is read before.

    Args:
        group: group of the layer.
        name: name of the layer.
        time: number of the time slice.
        window: pixels of the shard that have values; the others become 0.
        values: (h, w), or (K, h, w) for a layer per phrase.
    """
    array = array_for(group, name, time)
    side = array.shards[-1]
    y0, x0 = window.y0 // side * side, window.x0 // side * side
    whole = Window(y0, x0, y0 + side, x0 + side)
    rows, cols = slice(y0, y0 + side), slice(x0, x0 + side)
    planes = values if values.ndim == 3 else values[None]
    for number, plane in enumerate(planes):
        if window != whole:
            padded = np.zeros((side, side), plane.dtype)
            padded[window.within(whole)] = plane
            plane = padded
        array[(*((number,) if values.ndim == 3 else ()), time, rows, cols)] = plane


def replace(array: Any, selection: tuple[Any, ...], values: Any, place: tuple[int, ...]) -> None:
    """Writes all of a chunk.

    At the border of an array zarr reads what is there before it writes. If that is damaged, it is
    removed first.

    Args:
        array: zarr array.
        selection: index of the values.
        values: what to write.
        place: row, column and so on of the chunk among the chunks.
    """
    try:
        array[selection] = values
    except (ValueError, RuntimeError):  # of the checksum or the codec
        key = array.metadata.encode_chunk_key(place)
        sync(array.store.delete(f"{array.path}/{key}"))
        array[selection] = values


def set_state(root: zarr.Group, state: str, failed: int) -> None:
    """Writes the state and the number of quarantined tiles to the root.

    Args:
        root: root group.
        state: job status as in openEO, other than finished.
        failed: number of quarantined tiles.
    """
    root.attrs.update({MARK: mark_of(root) | {"state": state, "failed_tiles": failed}})


def branch_of(root: zarr.Group) -> BranchStore | None:
    """Returns the branch that a run writes to; None of a plain store."""
    return root.store if isinstance(root.store, BranchStore) else None


def save(root: zarr.Group, message: str) -> None:
    """Keeps what was written, where that needs a commit.

    Args:
        root: root group of a result.
        message: what was done, for the history.
    """
    branch = branch_of(root)
    if branch is not None:
        branch.save(message)


def publish(root: zarr.Group, slices: Sequence[str]) -> None:
    """Lets readers see what was written of slices.

    Args:
        root: root group of a result.
        slices: names of the slices.
    """
    branch = branch_of(root)
    if branch is not None:
        said = f"finished {', '.join(slices)}" if slices else "begun, or mended"
        branch.publish(said, slices)
    else:
        consolidate(root)


def end(root: zarr.Group) -> None:
    """Removes the branch of a run, if it has one."""
    branch = branch_of(root)
    if branch is not None:
        branch.end()


def consolidate(root: zarr.Group) -> None:
    """Writes the metadata of all arrays into the root's document, and a zone's into its group's.

    A reader may open a zone by itself.
    """
    with warnings.catch_warnings():
        # Not yet in the Zarr v3 specification, but xarray opens a remote store far faster with it.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        for zone in grids_of(root):
            if zone:
                zarr.consolidate_metadata(root.store, path=zone)
        zarr.consolidate_metadata(root.store)


def set_finished(root: zarr.Group, failed: int) -> None:
    """Marks a result as finished, by one write of the root's document; see `consolidate`."""
    branch = branch_of(root)
    if branch is not None:
        set_state(root, "finished", failed)
        branch.publish("finished")
        return

    async def write_state() -> None:
        prototype = default_buffer_prototype()
        found = await root.store.get("zarr.json", prototype)
        assert found is not None
        document = json.loads(found.to_bytes())
        document["attributes"][MARK] |= {"state": "finished", "failed_tiles": failed}
        data = json.dumps(document, indent=2).encode()
        await root.store.set("zarr.json", prototype.buffer.from_bytes(data))

    sync(write_state())


def zarr_store(
    url: str, fence: Fence | None = None, *, version: Version = LAST, unfinished: bool = False
) -> Any:
    """Returns the zarr store at a local path or URL.

    Args:
        url: local path or URL; one that cannot be written may be of any kind that fsspec reads.
        fence: checks the lease before each write; None for a store that is only read.
        version: state of a result that keeps its states, for reading.
        unfinished: whether to see what a run has done that has not ended.
    """
    if is_versioned(url):
        return write_store(url, fence) if fence else read_store(url, version, unfinished=unfinished)
    if not version.is_last:
        raise OutputError(
            f"{url} keeps its last state only, and has no {version.words}; an output that begins "
            "with icechunk+ keeps them all"
        )
    scheme, separator, _ = url.partition("://")
    if separator and fence is None and scheme not in (*CLOUD, "file"):
        return zarr.storage.FsspecStore.from_url(url, read_only=True)
    if fence is not None:
        return fenced(url, fence).zarr_store()
    return open_blobs(url).zarr_store(read_only=True)


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


def erase(group: zarr.Group, name: str, time: int, row: int, col: int) -> None:
    """Removes a shard of a raster layer, or a chunk of a table; its pixels become 0."""
    array = array_for(group, name, time)
    places: list[tuple[int, ...]] = [(time, row, col)]
    if array.ndim == 4:
        places = [(number, time, row, col) for number in range(array.shape[0])]
    for place in places:
        sync(array.store.delete(f"{array.path}/{array.metadata.encode_chunk_key(place)}"))


class BlockState(IntEnum):
    """State of a block in the ledger."""

    NONE = 0
    """Nothing is written of it."""
    OPEN = 1
    """It has to be committed, for the first time or again."""
    COMMITTED = 2
