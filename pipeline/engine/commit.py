"""Tasks that write a block: commit its layers, paint its objects, record why it is empty.

Read scores and sums from scratch and write whole shards of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.engine.ledger import commit
from earthgptx.pipeline.engine.scratch import BlockScores
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.reading.scene import inside
from earthgptx.pipeline.results.store import Status, array_at, write

YES = 128
"""Lowest score, 0..255, with which a pixel gets the label of a phrase."""


def commit_block(run: RunContext, key: BlockKey) -> None:
    """Blends a block with its neighbours at the borders, writes its shards, then its ledger entry.

    Raises:
        RunLost: another run holds the output.
    """
    plan = run.plan
    block = run.scratch.get_scores(key)
    own = plan.grids[key.grid].block_window(key)
    scores = _blended_with_neighbours(run, key, own, block.scores)
    scores[:, block.status != Status.DONE] = 0
    best = scores.max(axis=0) if len(scores) else np.zeros(own.shape, np.uint8)
    raster = run.group("raster", key.grid)
    run.check_lease()
    write(raster, "label", key.time, own, _labels(scores, best))
    write(raster, "score", key.time, own, best)
    write(raster, "status", key.time, own, block.status)
    if "scores" in raster:
        write(raster, "scores", key.time, own, scores)
    _write_tiles(run, key, block)
    failed = sum(tile.status == Status.QUARANTINED for tile in block.tiles)
    commit(run.root, plan, key, run.scratch, run.token, tiles=len(block.tiles), failed=failed)


def blank_block(run: RunContext, key: BlockKey) -> None:
    """Writes the status layer of a block outside the plan: outside the AOI, or no source data.

    Raises:
        RunLost: another run holds the output.
    """
    grid = run.plan.grids[key.grid]
    own = grid.block_window(key)
    status = np.full(own.shape, Status.NO_SOURCE_DATA, np.uint8)
    status[~inside(grid.answer_area, grid, own)] = Status.OUTSIDE_AOI
    run.check_lease()
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
    layer = np.zeros(own.shape, np.uint64)
    for object_id, mask in masks:
        window = own & Window(mask.y0, mask.x0, mask.y0 + mask.height, mask.x0 + mask.width)
        piece = mask.window(window.y0, window.x0, window.y1, window.x1)
        layer[window.within(own)][piece] = object_id
    raster = run.group("raster", key.grid)
    status = array_at(raster, "status")[key.time, own.y0 : own.y1, own.x0 : own.x1]
    layer[status != Status.DONE] = 0
    run.check_lease()
    write(raster, "object_id", key.time, own, layer)


def _blended_with_neighbours(
    run: RunContext, key: BlockKey, own: Window, scores: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Returns a block's scores (K, h, w), blended near its border with those of its neighbours."""
    around = [
        piece
        for other in key.neighbours()
        if other in run.plan.block_set
        for piece in run.scratch.get_frame(other, own)
    ]
    for piece in run.scratch.get_frame(key, own):
        window = piece.window & own
        scores[(slice(None), *window.within(own))] = piece.crop(window).plus(around).divided()
    return scores


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
    }
    for name, kind in kinds.items():
        values: NDArray[Any] = np.zeros((rows, cols), kind)
        for tile in block.tiles:
            values[tile.row - row0, tile.col - col0] = getattr(tile, name)
        array_at(group, name)[key.time, row0 : row0 + rows, col0 : col0 + cols] = values
