"""Unites and splits masks by their runs, without drawing them: one object may span a region.

A span is a row of pixels, `start <= x < end`, of one mask. Spans are three int64 arrays of equal
length: rows, starts and ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.region import Mask

DRAWN_PX = 4096
"""Pixels of a window that takes less time to draw than to go through span by span."""

Spans = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def union(masks: Sequence[Mask]) -> Mask:
    """Returns the mask of all pixels that are in any of the masks."""
    rows, starts, ends = (np.concatenate(each) for each in zip(*map(spans_of, masks), strict=True))
    order = np.lexsort([starts, rows])
    return mask_of((rows[order], starts[order], ends[order]))


def split(mask: Mask, side: int) -> Iterator[tuple[int, int, Mask]]:
    """Yields the pieces of a mask in square cells that count from pixel (0, 0).

    Args:
        mask: the mask.
        side: side of a cell in pixels.

    Yields:
        Row and column of the cell, and the piece.
    """
    cells = [
        (row, col)
        for row in range(mask.y0 // side, (mask.y0 + mask.height - 1) // side + 1)
        for col in range(mask.x0 // side, (mask.x0 + mask.width - 1) // side + 1)
    ]
    if len(cells) == 1:
        yield (*cells[0], mask)
        return
    if mask.height * mask.width <= DRAWN_PX:
        for row, col in cells:
            y0, x0 = max(row * side, mask.y0), max(col * side, mask.x0)
            y1 = min((row + 1) * side, mask.y0 + mask.height)
            x1 = min((col + 1) * side, mask.x0 + mask.width)
            inside = mask.window(y0, x0, y1, x1)
            if inside.any():
                yield row, col, Mask.from_array(inside, y0=y0, x0=x0)
        return
    rows, starts, ends = spans_of(mask)
    cols, starts, ends, owner = _cells(starts, ends, side)
    rows = rows[owner]
    cell_rows = rows // side
    order = np.lexsort([starts, rows, cols, cell_rows])
    rows, starts, ends = rows[order], starts[order], ends[order]
    cell_rows, cols = cell_rows[order], cols[order]
    changes = (np.diff(cell_rows) != 0) | (np.diff(cols) != 0)
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(rows)]
    for first, last in itertools.pairwise(edges):
        piece = (rows[first:last], starts[first:last], ends[first:last])
        yield int(cell_rows[first]), int(cols[first]), mask_of(piece)


def spans_of(mask: Mask) -> Spans:
    """Returns the spans of a mask, by row and start."""
    edges = np.cumsum(np.array(mask.runs, np.int64))
    starts, ends = edges[0::2], edges[1::2]
    starts = starts[: len(ends)]
    there = ends > starts
    rows, starts, ends, _ = _cells(starts[there], ends[there], mask.width)
    left = rows * mask.width - mask.x0
    return rows + mask.y0, starts - left, ends - left


def mask_of(spans: Spans) -> Mask:
    """Returns the mask of spans that are sorted by row and start; they may overlap.

    There is at least one.
    """
    rows, starts, ends = spans
    y0, x0 = int(rows[0]), int(starts.min())
    height, width = int(rows[-1]) - y0 + 1, int(ends.max()) - x0
    first = (rows - y0) * width + starts - x0
    last = np.maximum.accumulate((rows - y0) * width + ends - x0)
    apart = first[1:] > last[:-1]
    begins = first[np.concatenate([[True], apart])]
    stops = last[np.concatenate([apart, [True]])]
    edges = np.empty(2 * len(begins) + 1, np.int64)
    edges[0], edges[1::2], edges[2::2] = 0, begins, stops
    runs = np.diff(edges).tolist()
    if stops[-1] < height * width:
        runs.append(height * width - int(stops[-1]))
    return Mask(y0, x0, height, width, tuple(runs))


def _cells(
    starts: NDArray[np.int64], ends: NDArray[np.int64], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cuts intervals at the multiples of a length.

    Returns:
        Of each piece: its cell, its start and end, and the position of its interval.
    """
    first = starts // side
    counts = (ends - 1) // side - first + 1
    owner = np.repeat(np.arange(len(starts)), counts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    cells = first[owner] + nth
    low = np.maximum(starts[owner], cells * side)
    high = np.minimum(ends[owner], (cells + 1) * side)
    return cells, low, high, owner
