"""Paints objects into pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.objects.finals import masks_of
from earthgptx.pipeline.objects.parts import window_of
from earthgptx.pipeline.objects.stitch import Piece
from earthgptx.pipeline.results.store import Status

BlockMasks = tuple[Window, Sequence[tuple[int, Mask]]]
"""Window of a block, with ids and masks of its objects, in pixels of the grid."""


def masks_in(run: RunContext, key: BlockKey, stitched: Sequence[Piece]) -> BlockMasks:
    """Returns the objects of a block, the highest-scoring last.

    Args:
        run: context of the run.
        key: key of the block.
        stitched: score, id and piece of each stitched object that the block shows.

    Raises:
        ScratchLost: the final objects of the block are missing or damaged.
    """
    found = [*stitched, *masks_of(run.scratch.get_finals(key))]
    ordered = sorted(found, key=lambda each: each[:2])
    window = run.plan.grids[key.grid].block_window(key)
    return window, [(object_id, mask) for _, object_id, mask in ordered]


def paint(
    window: Window, blocks: Sequence[BlockMasks], status: NDArray[np.uint8]
) -> NDArray[np.uint64]:
    """Returns the object layer of a window, (h, w); where objects overlap, the last one wins.

    Args:
        window: pixels of the grid.
        blocks: blocks that meet the window.
        status: (h, w), pixels that are not `Status.DONE` have no object.
    """
    layer = np.zeros(window.shape, np.uint64)
    for block, masks in blocks:
        for object_id, mask in masks:
            shared = window & block & window_of(mask)
            if shared.empty:
                continue
            at = shared.within(window)
            piece = mask.window(shared.y0, shared.x0, shared.y1, shared.x1)
            layer[at][piece & (status[at] == Status.DONE)] = object_id
    return layer
