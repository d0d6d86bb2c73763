"""Median of the Items of a window, as a Dask graph of cells that is computed in this process.

All Items of a cell are in memory at once: 2 MB each. Dask's threads would hold several cells; its
synchronous scheduler holds one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.item import ItemPixels, SceneItem, pixel_bounds
from earthgptx.pipeline.reading.warping import cells


@dataclass(frozen=True, slots=True)
class Median:
    """Median of a window of H x W."""

    pixels: NDArray[np.uint8]
    """(3, H, W), 0 where no Item has unmasked data."""
    count: NDArray[np.uint16]
    """(H, W). Number of Items with unmasked data."""
    hidden: NDArray[np.bool_]
    """(H, W). True where an Item has data that is masked."""


def median(
    grid: Grid,
    window: Window,
    items: list[SceneItem],
    read: Callable[[Window, SceneItem], ItemPixels | None],
) -> Median:
    """Returns the median of each channel over all Items with unmasked data.

    Of an even number of values it is the lower middle one: a value that was observed.

    Args:
        grid: target grid.
        window: window of the grid.
        items: Items of the time slice.
        read: reads a part of an Item; None if it cannot be read.
    """
    import dask.array as da
    from dask.delayed import delayed

    work = delayed(_cell, pure=False)
    planes = da.block(
        [
            [
                da.from_delayed(work(grid, cell, items, read), (5, *cell.shape), np.uint16)
                for cell in (whole & window for whole in row)
            ]
            for row in cells(window)
        ]
    ).compute(scheduler="synchronous")
    return Median(planes[:3].astype(np.uint8), planes[3], planes[4] > 0)


def _cell(
    grid: Grid,
    cell: Window,
    items: list[SceneItem],
    read: Callable[[Window, SceneItem], ItemPixels | None],
) -> NDArray[np.uint16]:
    """Returns the median of a cell, the number of values, and whether one is masked: (5, h, w)."""
    values: list[NDArray[np.uint8]] = []
    valids: list[NDArray[np.bool_]] = []
    result = np.zeros((5, *cell.shape), np.uint16)
    for item in items:
        part = cell & pixel_bounds(grid, item.footprint)
        found = None if part.empty else read(part, item)
        if found is None:
            continue
        at = part.within(cell)
        # No data sorts behind every value.
        layer = np.full((3, *cell.shape), 255, np.uint8)
        valid = np.zeros(cell.shape, bool)
        hidden = np.zeros_like(found.valid) if found.hidden is None else found.hidden
        valid[at] = found.valid & ~hidden
        layer[(slice(None), *at)] = np.where(valid[at], found.channels, 255)
        result[4][at] |= found.valid & hidden
        values.append(layer)
        valids.append(valid)
    if not values:
        return result
    count = np.sum(valids, axis=0, dtype=np.uint16)
    ordered = np.sort(np.stack(values), axis=0)
    middle = np.maximum(count.astype(np.intp) - 1, 0) // 2
    picked = np.take_along_axis(ordered, middle[None, None], axis=0)[0]
    result[:3] = np.where(count > 0, picked, 0)
    result[3] = count
    return result
