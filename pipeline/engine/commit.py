"""Tasks that write a block: commit its layers, paint its objects, record why it is empty.

Read scores and sums from scratch and write whole shards of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.ledger import Entry, commit
from earthgptx.pipeline.engine.painting import paint
from earthgptx.pipeline.engine.scratch import BlockScores, ScratchLost, count_failed
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.objects.blend import Sums
from earthgptx.pipeline.reading.scene import inside
from earthgptx.pipeline.results.store import Status, array_at, replace, write

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


def commit_block(run: RunContext, key: BlockKey) -> None:
    """Blends a block with its neighbours at the borders, writes its shards, then its ledger entry.

    Raises:
        ScratchLost: what the commit reads is missing or damaged.
        RunLost: another run holds the output.
    """
    plan = run.plan
    own = plan.grids[key.grid].block_window(key)
    block, frame, around = _inputs(run, key, own)
    scores = block.scores
    for piece in frame:
        window = piece.window & own
        scores[(slice(None), *window.within(own))] = piece.crop(window).plus(around).divided()
    scores[:, block.status != Status.DONE] = 0
    best = scores.max(axis=0) if len(scores) else np.zeros(own.shape, np.uint8)
    raster = run.group("raster", key.grid)
    write(raster, "label", key.time, own, _labels(scores, best))
    write(raster, "score", key.time, own, best)
    write(raster, "status", key.time, own, block.status)
    if "scores" in raster:
        write(raster, "scores", key.time, own, scores)
    _write_tiles(run, key, block)
    entry = Entry(len(block.tiles), count_failed(block.tiles))
    commit(run.root, plan, key, entry)


def blank_block(run: RunContext, key: BlockKey) -> None:
    """Writes the status layer of a block outside the plan: outside the AOI, or no source data.

    Raises:
        RunLost: another run holds the output.
    """
    grid = run.plan.grids[key.grid]
    own = grid.block_window(key)
    status = np.full(own.shape, Status.NO_SOURCE_DATA, np.uint8)
    status[~inside(grid.answer_area, grid, own)] = Status.OUTSIDE_AOI
    write(run.group("raster", key.grid), "status", key.time, own, status)


def paint_block(run: RunContext, key: BlockKey, masks: Sequence[tuple[int, Mask]]) -> None:
    """Writes the object layer of a block; where objects overlap, the last one wins.

    Args:
        run: context of the run.
        key: key of the block.
        masks: object ids and masks, in pixels of the grid.

    Raises:
        RunLost: another run holds the output.
    """
    own = run.plan.grids[key.grid].block_window(key)
    raster = run.group("raster", key.grid)
    with lost_shard(Task(Kind.COMMIT, key)):
        status = array_at(raster, "status")[key.time, own.y0 : own.y1, own.x0 : own.x1]
    layer = paint(own, [(own, masks)], status)
    write(raster, "object_id", key.time, own, layer)


def _inputs(
    run: RunContext, key: BlockKey, own: Window
) -> tuple[BlockScores, list[Sums], list[Sums]]:
    """Returns a block's scores, the sums around its border, and its neighbours' sums there.

    Raises:
        ScratchLost: some of it is missing or damaged; names all blocks to infer again.
    """
    lost: list[BlockKey] = []
    block, frame, around = None, [], []
    try:
        block = run.scratch.get_scores(key)
        frame = run.scratch.get_frame(key, own)
    except ScratchLost:
        lost.append(key)
    for other in key.neighbours():
        if other in run.plan.block_set:
            try:
                around += run.scratch.get_frame(other, own)
            except ScratchLost:
                lost.append(other)
    if block is None or lost:
        raise ScratchLost(lost)
    return block, frame, around


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
        replace(array_at(group, name), at, values, (key.time, key.row, key.col))
