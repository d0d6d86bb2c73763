"""One object out of an instance's log-odds: its outline, and its box."""

# Y X cells at stride 2

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.perception import OUTSIDE, STRIDE
from model.region import Mask

Edges = tuple[float, float, float, float]
"""x0, y0, x1, y1 in cells."""


def outlined(
    scored: NDArray[np.float32], peak: tuple[int, int], judged: Edges, *, drawn: bool
) -> tuple[Mask | None, Edges]:
    """The outline and the box of one object.

    Each edge of the box that was judged goes halfway to where the mask reaches beyond it: boxes are rather judged too
    small, and a mask that ends sooner has often lost a part, as wings are (docs/evaluation.md).

    Args:
        scored: (Y, X) log-odds, `OUTSIDE` where it may not reach.
        peak: row and column that it was asked from.
        judged: its box, as it was judged from there.
        drawn: whether a prompt drew the box; then all that lies in it may be the object's, and its edges are given.

    Returns:
        The mask in pixels, None where there is nothing, and the box in cells.
    """
    rows, cols = (np.flatnonzero((scored > OUTSIDE).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None, judged
    y0, x0 = int(rows[0]), int(cols[0])
    window = scored[y0 : int(rows[-1]) + 1, x0 : int(cols[-1]) + 1]
    inside = window > 0
    if not inside.any():
        return None, judged
    if not drawn:
        window = np.where(inside & ~_piece(inside, (peak[0] - y0, peak[1] - x0)), np.float32(OUTSIDE), window)
    upsampled = ndimage.zoom(
        np.pad(window, 1, constant_values=OUTSIDE), STRIDE, order=1, mode="nearest", grid_mode=True
    )
    mask = upsampled[STRIDE:-STRIDE, STRIDE:-STRIDE] > 0
    if not mask.any():
        return None, judged
    if not drawn:
        (top, bottom), (left, right) = (_reach(window.max(axis=axis)) for axis in (1, 0))
        judged = (
            judged[0] - max(judged[0] - x0 - left, 0) / 2, judged[1] - max(judged[1] - y0 - top, 0) / 2,
            judged[2] + max(x0 + right - judged[2], 0) / 2, judged[3] + max(y0 + bottom - judged[3], 0) / 2,
        )  # fmt: skip
    return Mask.from_array(mask, y0=y0 * STRIDE, x0=x0 * STRIDE), judged


def _piece(inside: NDArray[np.bool_], peak: tuple[int, int]) -> NDArray[np.bool_]:
    """The piece that holds the peak; the largest, where none does."""
    # Corners touch: a ship may lie aslant and be a cell wide.
    pieces, count = ndimage.label(inside, structure=np.ones((3, 3)))
    if count == 1:
        return inside
    row, col = peak
    within = 0 <= row < inside.shape[0] and 0 <= col < inside.shape[1]
    number = int(pieces[row, col]) if within else 0
    number = number or int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    return np.asarray(pieces == number)


def _reach(scored: NDArray[np.float32]) -> tuple[float, float]:
    """Where log-odds along an axis, one a cell, rise above even for the first time and fall for the last, in cells."""
    sure = 1 / (1 + np.exp(-scored))
    above = np.flatnonzero(sure > 0.5)
    first, last = int(above[0]), int(above[-1])
    low, high = first + 0.5, last + 0.5
    low -= (sure[first] - 0.5) / (sure[first] - sure[first - 1]) if first > 0 else 0.5
    high += (sure[last] - 0.5) / (sure[last] - sure[last + 1]) if last + 1 < len(sure) else 0.5
    return float(low), float(high)
