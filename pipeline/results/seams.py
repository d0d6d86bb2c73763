"""How labels and scores change from pixel to pixel, on the borders of tiles and blocks and inside.

Pure: arrays in, sums out. Where tiles are blended well, a border is a line like any other. Lines
are compared as wholes, since the pixels of an object on a line are not independent of one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

INSIDE, TILE, BLOCK = 0, 1, 2
"""Kinds of lines between pixels; one between two blocks is no TILE."""


class Lines:
    """Sums over the pairs of neighbouring pixels on either side of each line of one direction."""

    def __init__(self, count: int, core_px: int, block_px: int) -> None:
        """Begins without pairs.

        Args:
            count: number of pixels across the lines; a line lies in front of each, by its number.
            core_px: side of a tile's core.
            block_px: side of a block.
        """
        at = np.arange(count)
        self.kinds = np.where(at % block_px == 0, BLOCK, np.where(at % core_px == 0, TILE, INSIDE))
        self.pairs = np.zeros(count)
        """Pairs of pixels that both have an answer."""
        self.label = np.zeros(count)
        """Those whose labels differ."""
        self.score = np.zeros(count)
        """Sum of the absolute differences of their scores, 0..1 each."""

    def add(
        self,
        first: int,
        label: NDArray[np.uint8],
        score: NDArray[np.uint8],
        answered: NDArray[np.bool_],
    ) -> None:
        """Adds the pairs of a window.

        Args:
            first: number of the pixel behind the window's first line.
            label: (Y, X + 1), from the pixel in front of the first line on.
            score: (Y, X + 1), in 1/255.
            answered: (Y, X + 1), whether a pixel has an answer.
        """
        both = answered[:, 1:] & answered[:, :-1]
        lines = slice(first, first + both.shape[1])
        self.pairs[lines] += both.sum(0)
        self.label[lines] += ((label[:, 1:] != label[:, :-1]) & both).sum(0)
        self.score[lines] += (np.abs(np.diff(score.astype(np.int16), axis=1)) * both).sum(0) / 255


def seam(
    directions: Sequence[Lines], layer: Literal["label", "score"], kind: int
) -> tuple[float, float] | None:
    """Returns how much more changes on lines of a kind than inside, and how sure that is.

    Args:
        directions: lines of both directions.
        layer: what changes.
        kind: TILE or BLOCK.

    Returns:
        Change a pair, divided by that inside; and how far the mean of these lines is from that of
        the others, in standard errors of so many lines. None if there are no such lines.
    """
    kinds = np.concatenate([each.kinds for each in directions])
    pairs = np.concatenate([each.pairs for each in directions])
    change = np.concatenate([getattr(each, layer) for each in directions])
    mine, inside = (pairs > 0) & (kinds == kind), (pairs > 0) & (kinds == INSIDE)
    if not mine.any() or not inside.any():
        return None
    here = change[mine].sum() / pairs[mine].sum()
    there = change[inside].sum() / pairs[inside].sum()
    rates = change[inside] / pairs[inside]
    error = max(float(rates.std()), 1e-9) / np.sqrt(mine.sum())
    ratio = here / there if there else (np.inf if here else 1.0)
    return float(ratio), float((here - there) / error)


def step_of(
    score: NDArray[np.uint8], other: NDArray[np.uint8], both: NDArray[np.bool_]
) -> tuple[float, float]:
    """Returns the mean step of scores across one line, -1..1, and how sure it is no chance.

    Args:
        score: (N,) in 1/255, on one side of the line.
        other: (N,) on the other side.
        both: (N,) where both have an answer.
    """
    if both.sum() < 2:
        return 0.0, 0.0
    steps = (other[both].astype(float) - score[both]) / 255
    spread = max(float(steps.std()), 1 / 255)
    return float(steps.mean()), float(abs(steps.mean()) / spread * np.sqrt(len(steps)))
