"""Task that writes one shard of an overview from the next finer level."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.engine.context import RunContext
from earthgptx.pipeline.job.grid import BlockKey, Window
from earthgptx.pipeline.results.store import (
    Status,
    array_at,
    block_of,
    group_at,
    group_path,
    write,
)

STRIP_PX = 256
"""Rows of an overview computed at once."""
LAYERS = ("label", "score", "object_id", "status")
"""Layers that have overviews."""


def overview_shard(run: RunContext, key: BlockKey, factor: int) -> None:
    """Writes one shard of an overview; each pixel is the best of four of the next finer level.

    Args:
        run: context of the run.
        key: key of the shard; row and column count the shards of the overview.
        factor: grid pixels per overview pixel along a side: 2, 4, 8 ...
    """
    grid = run.plan.grids[key.grid]
    target = block_of(grid, key, factor)
    base = group_path(run.plan, "raster", key.grid)
    levels = group_path(run.plan, "overview", key.grid)
    source = group_at(run.root, base if factor == 2 else f"{levels}/{factor // 2}")
    layers = {name: np.zeros(target.shape, array_at(source, name).dtype) for name in LAYERS}
    # In strips: reading four times a block's pixels at once would need more memory than anything
    # else in a replica.
    for y0 in range(target.y0, target.y1, STRIP_PX):
        strip = Window(y0, target.x0, min(y0 + STRIP_PX, target.y1), target.x1)
        for name, values in _best_of_four(source, key.time, strip).items():
            layers[name][strip.within(target)] = values
    for name, values in layers.items():
        write(group_at(run.root, f"{levels}/{factor}"), name, key.time, target, values)


def _best_of_four(source: zarr.Group, time: int, window: Window) -> dict[str, NDArray[Any]]:
    """Returns the layers of a window: the best of each four pixels of the next finer level.

    A pixel with an object is better than one without; then the higher score is better.
    """
    rows, cols = slice(2 * window.y0, 2 * window.y1), slice(2 * window.x0, 2 * window.x1)
    below = {name: array_at(source, name)[time, rows, cols] for name in LAYERS}
    sides = zip(window.shape, below["score"].shape, strict=True)
    pad = [(0, 2 * side - have) for side, have in sides]
    if any(after for _, after in pad):
        below = {name: np.pad(layer, pad) for name, layer in below.items()}
    # Ranks pixels by object first, then by score, then by whether they were answered.
    worth = below["score"].astype(np.int16) * 2
    worth[below["object_id"] > 0] += 1024
    worth += below["status"] == Status.DONE
    best = worth[::2, ::2].copy()
    chosen = {name: layer[::2, ::2].copy() for name, layer in below.items()}
    even, odd = slice(0, None, 2), slice(1, None, 2)
    for quarter in ((even, odd), (odd, even), (odd, odd)):
        better = worth[quarter] > best
        np.copyto(best, worth[quarter], where=better)
        for name, layer in below.items():
            np.copyto(chosen[name], layer[quarter], where=better)
    return chosen
