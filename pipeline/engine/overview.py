"""Task that writes one shard of an overview from the next finer level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.engine.commit import ShardLost
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.painting import BlockMasks, masks_in, paint
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.job.grid import BlockKey, Grid, Window
from earthgptx.pipeline.objects.stitch import Piece
from earthgptx.pipeline.results.store import (
    Status,
    array_for,
    block_of,
    group_path,
    overview_factors,
    write,
)

STRIP_PX = 256
"""Rows of an overview read at once: a chunk of the level below."""
RANKED_PX = 64
"""Rows of an overview computed at once, so that the intermediate values stay in the cache."""
LAYERS = ("label", "score", "object_id", "status")
"""Layers that have overviews."""


def overview_shard(
    run: RunContext,
    key: BlockKey,
    factor: int,
    stitched: Mapping[BlockKey, Sequence[Piece]] | None = None,
) -> None:
    """Writes one shard of an overview; each pixel is the best of four of the next finer level.

    A shard that shows the whole grid is reduced further at once, down to the coarsest overview.

    Args:
        run: context of the run.
        key: key of the shard; row and column count the shards of the overview.
        factor: grid pixels per overview pixel along a side: 2, 4, 8 ...
        stitched: for factor 2, the pieces of stitched objects in each block below that shows
            objects; painting objects again costs less than reading them.

    Raises:
        ScratchLost: the final objects of a block below are missing or damaged.
        ShardLost: a shard of the finer level is damaged or lost.
        RunLost: another run holds the output.
    """
    grid = run.plan.grids[key.grid]
    target = block_of(grid, key, factor)
    base = group_path(run.plan, "raster", key.grid)
    levels = group_path(run.plan, "overview", key.grid)
    source = run.group_at(base if factor == 2 else f"{levels}/{factor // 2}")
    masks = [masks_in(run, below, pieces) for below, pieces in (stitched or {}).items()]
    try:
        layers = _reduced(source, key.time, target, masks if factor == 2 else None)
    except (ValueError, RuntimeError, KeyError):  # of the checksum, the codec, the metadata
        raise ShardLost(_damaged(run, source, key, factor)) from None
    half = grid.block_px // 2
    if not all(_has_answers(layers["status"], below, half) for below in _shown(run, key, factor)):
        raise ShardLost(_damaged(run, source, key, factor))
    coarser = [each for each in overview_factors(grid) if each > factor]
    for level in [factor, *(coarser if is_whole(grid, factor) else [])]:
        if level > factor:
            layers = best_of_four(layers)
        target = block_of(grid, key, level)
        for name, values in layers.items():
            write(run.group_at(f"{levels}/{level}"), name, key.time, target, values)


def is_whole(grid: Grid, factor: int) -> bool:
    """Whether one shard of an overview shows the whole grid."""
    return max(grid.blocks_shape) <= factor


def _reduced(
    source: zarr.Group, time: int, target: Window, masks: Sequence[BlockMasks] | None
) -> dict[str, NDArray[Any]]:
    """Returns the layers of a window of an overview.

    Args:
        source: next finer level.
        time: number of the time slice.
        target: pixels of the overview.
        masks: objects to paint instead of reading them; None to read them.
    """
    arrays = {name: array_for(source, name, time) for name in LAYERS}
    whole = Window(0, 0, *arrays["score"].shape[-2:])
    layers = {name: np.zeros(target.shape, array.dtype) for name, array in arrays.items()}
    # In strips: reading four times a block's pixels at once would need more memory than anything
    # else in a replica.
    for y0 in range(target.y0, target.y1, STRIP_PX):
        y1 = min(y0 + STRIP_PX, target.y1)
        below = Window(2 * y0, 2 * target.x0, 2 * y1, 2 * target.x1) & whole
        at = (time, slice(below.y0, below.y1), slice(below.x0, below.x1))
        strip = {
            name: array[at]
            for name, array in arrays.items()
            if masks is None or name != "object_id"
        }
        if masks is not None:
            strip["object_id"] = paint(below, masks, strip["status"])
        for top in range(0, y1 - y0, RANKED_PX):
            piece = {name: layer[2 * top : 2 * (top + RANKED_PX)] for name, layer in strip.items()}
            row = y0 - target.y0 + top
            for name, values in best_of_four(piece).items():
                layers[name][row : row + len(values)] = values
        del strip, piece  # before the next one is read
    return layers


def best_of_four(below: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Returns layers of half the size: the best of each four pixels, the first of equal ones.

    A pixel with an object is better than one without; then the higher score is better, then one
    that was answered.
    """
    height, width = below["score"].shape
    if height % 2 or width % 2:
        pad = ((0, height % 2), (0, width % 2))
        below = {name: np.pad(layer, pad) for name, layer in below.items()}
    ids = below["object_id"]
    # One number ranks a pixel and carries its values. Bits: 27 whether it has an object, 19 score,
    # 18 whether it was answered, 16 place among the four (the first is highest), 8 label, 0 status.
    rank = below["score"].astype(np.uint32)
    rank <<= 11
    rank |= below["label"]
    rank <<= 8
    rank |= below["status"]
    rank[below["status"] == Status.DONE] |= 1 << 18
    rank[ids > 0] |= 1 << 27
    top, bottom = rank[::2], rank[1::2]
    best = np.maximum(
        np.maximum(top[:, ::2] | 3 << 16, top[:, 1::2] | 2 << 16),
        np.maximum(bottom[:, ::2] | 1 << 16, bottom[:, 1::2]),
    )
    rows, cols = np.nonzero(best >> 27)
    place = 3 - (best[rows, cols] >> 16 & 3).astype(np.intp)
    objects = np.zeros(best.shape, ids.dtype)
    objects[rows, cols] = ids[2 * rows + place // 2, 2 * cols + place % 2]
    return {
        "label": (best >> 8).astype(np.uint8),
        "score": (best >> 19).astype(np.uint8),
        "object_id": objects,
        "status": best.astype(np.uint8),
    }


def _shown(run: RunContext, key: BlockKey, factor: int) -> Iterator[BlockKey]:
    """Yields those of the four shards below one of an overview that show a block of the plan."""
    span = factor // 2
    shown = {
        (each.row // span, each.col // span)
        for each in run.plan.blocks_of(key.time)
        if each.grid == key.grid
    }
    for row in (2 * key.row, 2 * key.row + 1):
        for col in (2 * key.col, 2 * key.col + 1):
            if (row, col) in shown:
                yield BlockKey(key.grid, key.time, row, col)


def _has_answers(status: NDArray[np.uint8], below: BlockKey, half: int) -> bool:
    """Whether a shard below was there: a lost one reads as zeros.

    Args:
        status: (h, w), of the shard of the overview.
        below: one of the four shards below it.
        half: side in pixels that the shard below has here.
    """
    rows, cols = (slice(at % 2 * half, (at % 2 + 1) * half) for at in (below.row, below.col))
    return bool(status[rows, cols].any())


def _damaged(run: RunContext, source: zarr.Group, key: BlockKey, factor: int) -> list[Task]:
    """Returns the tasks that write the damaged shards below a shard of an overview."""
    grid = run.plan.grids[key.grid]
    return [
        _maker(below, name, factor // 2)
        for below in _shown(run, key, factor)
        for name in LAYERS
        if not _is_whole(source, name, key.time, block_of(grid, below, factor // 2))
    ]


def _is_whole(source: zarr.Group, name: str, time: int, window: Window) -> bool:
    try:
        values = array_for(source, name, time)[time, window.y0 : window.y1, window.x0 : window.x1]
    except (ValueError, RuntimeError, KeyError):
        return False
    return name != "status" or bool(values.any())


def _maker(key: BlockKey, name: str, factor: int) -> Task:
    if factor > 1:
        return Task(Kind.OVERVIEW, key, factor)
    return Task(Kind.PAINT if name == "object_id" else Kind.COMMIT, key)
