"""Tasks that write a block: commit its layers, paint its objects; and what removes one.

Read scores and sums from scratch and write whole shards of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.ledger import Entry
from earthgptx.pipeline.engine.painting import masks_in, paint
from earthgptx.pipeline.engine.scratch import BlockScores, ScratchLost, count_failed
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.objects.blend import Sums
from earthgptx.pipeline.objects.stitch import Piece
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import (
    Status,
    array_for,
    erase,
    group_at,
    group_path,
    overview_factors,
    replace,
    write,
)

YES = 128
"""Lowest score, 0..255, with which a pixel gets the label of a phrase."""


class ShardLost(Exception):
    """A shard of the result is damaged; the tasks that write it have to be done again."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        """Sets the tasks that write the damaged shards."""
        self.tasks = tuple(sorted(set(tasks)))
        super().__init__(self.tasks)

    def __str__(self) -> str:
        return f"what {', '.join(str(task) for task in self.tasks[:3])} wrote is damaged"

    def __reduce__(self) -> tuple[object, ...]:
        return ShardLost, (self.tasks,)


@contextmanager
def lost_shard(task: Task) -> Iterator[None]:
    """Turns what comes of reading a damaged shard into `ShardLost`.

    Args:
        task: task that writes the shard.
    """
    try:
        yield
    except (ValueError, RuntimeError, KeyError):  # of the checksum, the codec, the metadata
        raise ShardLost([task]) from None


def commit_block(run: RunContext, key: BlockKey, *, border: bool) -> Entry | None:
    """Blends a block with its neighbours at the borders, and writes its shards.

    Args:
        run: context of the run.
        key: key of the block.
        border: whether the block is committed already, and only its neighbours have changed, so
            that nothing is read of scratch and all but the pixels near its border stay.

    Returns:
        What the ledger is to say of it; None if that stays.

    Raises:
        ScratchLost: what the commit reads is missing or damaged.
        RunLost: another run holds the output.
    """
    if border and _blend_border(run, key):
        return None
    own = run.plan.grids[key.grid].block_window(key)
    block, frame, around = _inputs(run, key, own)
    scores = block.scores
    for piece in frame:
        window = piece.window & own
        scores[(slice(None), *window.within(own))] = piece.crop(window).plus(around).divided()
    scores[:, block.status != Status.DONE] = 0
    best = _best(scores)
    raster = run.group("raster", key.grid)
    write(raster, "label", key.time, own, _labels(scores, best))
    write(raster, "score", key.time, own, best)
    write(raster, "status", key.time, own, block.status)
    if "scores" in raster:
        write(raster, "scores", key.time, own, scores)
    _write_tiles(run, key, block)
    return Entry(len(block.tiles), count_failed(block.tiles), run.plan.content_of(key))


def _blend_border(run: RunContext, key: BlockKey) -> bool:
    """Blends the pixels near a committed block's border anew.

    Returns:
        Whether that is done; False if a shard of the block is damaged or lost.

    Raises:
        ScratchLost: sums around a border are missing or damaged.
    """
    own = run.plan.grids[key.grid].block_window(key)
    frame, around = _borders(run, key, own)
    raster = run.group("raster", key.grid)
    names = ["status", "label", "score", *(["scores"] if "scores" in raster else [])]
    at = (key.time, slice(own.y0, own.y1), slice(own.x0, own.x1))
    try:
        layers = {
            name: array_for(raster, name, key.time)[(..., *at) if name == "scores" else at]
            for name in names
        }
    except (ValueError, RuntimeError):  # of the checksum or the codec
        return False
    if not layers["status"].any():  # a shard that is not there reads as zeros
        return False
    for piece in frame:
        window = piece.window & own
        place = window.within(own)
        scores = piece.crop(window).plus(around).divided()
        scores[:, layers["status"][place] != Status.DONE] = 0
        best = _best(scores)
        layers["score"][place], layers["label"][place] = best, _labels(scores, best)
        if "scores" in layers:
            layers["scores"][(slice(None), *place)] = scores
    for name in names[1:]:
        write(raster, name, key.time, own, layers[name])
    return True


def erase_blocks(root: zarr.Group, plan: Plan, at: int, keys: Set[BlockKey]) -> None:
    """Removes what is written of blocks of a slice that no Item shows any more, and its overviews.

    Raises:
        RunLost: another run holds the output.
    """
    shown = plan.blocks_of(at)
    for name in sorted({key.grid for key in keys}):
        here = [key for key in sorted(keys) if key.grid == name]
        for kind in ("raster", "tiles"):
            group = group_at(root, group_path(plan, kind, name))
            for layer, array in group.arrays():
                for key in here if array.ndim > 2 else ():
                    erase(group, layer, at, key.row, key.col)
        for factor in overview_factors(plan.grids[name]):
            kept = {(key.row // factor, key.col // factor) for key in shown if key.grid == name}
            shards = {(key.row // factor, key.col // factor) for key in here} - kept
            group = group_at(root, f"{group_path(plan, 'overview', name)}/{factor}")
            for layer, array in group.arrays():
                for row, col in sorted(shards) if array.ndim > 2 else ():
                    erase(group, layer, at, row, col)


def paint_block(run: RunContext, key: BlockKey, stitched: Sequence[Piece]) -> None:
    """Writes the object layer of a block; where objects overlap, the highest-scoring one wins.

    Args:
        run: context of the run.
        key: key of the block.
        stitched: score, id and piece of each stitched object that the block shows.

    Raises:
        ScratchLost: the final objects of the block are missing or damaged.
        ShardLost: the shard of the block's status is damaged.
        RunLost: another run holds the output.
    """
    own = run.plan.grids[key.grid].block_window(key)
    raster = run.group("raster", key.grid)
    with lost_shard(Task(Kind.COMMIT, key)):
        status = array_for(raster, "status", key.time)[key.time, own.y0 : own.y1, own.x0 : own.x1]
    layer = paint(own, [masks_in(run, key, stitched)], status)
    write(raster, "object_id", key.time, own, layer)


def _inputs(
    run: RunContext, key: BlockKey, own: Window
) -> tuple[BlockScores, list[Sums], list[Sums]]:
    """Returns a block's scores, the sums around its border, and its neighbours' sums there.

    Raises:
        ScratchLost: some of it is missing or damaged; names all blocks to infer again.
    """
    try:
        block = run.scratch.get_scores(key)
    except ScratchLost:
        try:
            _borders(run, key, own)
        except ScratchLost as error:
            raise ScratchLost([key, *error.keys]) from None
        raise
    return (block, *_borders(run, key, own))


def _borders(run: RunContext, key: BlockKey, own: Window) -> tuple[list[Sums], list[Sums]]:
    """Returns the sums around a block's border, and its neighbours' sums there.

    Raises:
        ScratchLost: some of it is missing or damaged; names all blocks to infer again.
    """
    lost: list[BlockKey] = []
    frame, around = [], []
    try:
        frame = run.scratch.get_frame(key, own)
    except ScratchLost:
        lost.append(key)
    for other in key.neighbours():
        if run.plan.holds(other):
            try:
                around += run.scratch.get_frame(other, own)
            except ScratchLost:
                lost.append(other)
    if lost:
        raise ScratchLost(lost)
    return frame, around


def _best(scores: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns each pixel's highest score (h, w) of those of K phrases (K, h, w); 0 of no phrase."""
    return scores.max(axis=0, initial=0)


def _labels(scores: NDArray[np.uint8], best: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns each pixel's highest-scoring phrase, counted from 1; 0 if all are below `YES`."""
    label = np.zeros(best.shape, np.uint8)
    # In reverse order, so that the first of two phrases with equal scores wins.
    for number, plane in reversed(list(enumerate(scores, start=1))):
        label[(plane == best) & (plane >= YES)] = number
    return label


def _write_tiles(run: RunContext, key: BlockKey, block: BlockScores) -> None:
    """Writes the outcome of each tile to the group `tiles`."""
    group, grid = run.group("tiles", key.grid), run.plan.grids[key.grid]
    per_block = grid.block_px // grid.core_px
    row0, col0 = key.row * per_block, key.col * per_block
    rows = max(tile.row for tile in block.tiles) - row0 + 1
    cols = max(tile.col for tile in block.tiles) - col0 + 1
    text = np.dtypes.StringDType()
    kinds: dict[str, Any] = {
        "status": np.uint8,
        "seconds": np.float32,
        "label": text,
        "caption": text,
        "error": text,
        "cause": text,
    }
    for name, kind in kinds.items():
        values: NDArray[Any] = np.zeros((rows, cols), kind)
        for tile in block.tiles:
            values[tile.row - row0, tile.col - col0] = getattr(tile, name)
        at = (key.time, slice(row0, row0 + rows), slice(col0, col0 + cols))
        replace(array_for(group, name, key.time), at, values, (key.time, key.row, key.col))
