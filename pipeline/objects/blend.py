"""Blends the scores of overlapping tiles.

Takes uint8 scores per tile, gives uint8 scores per pixel. All sums are integers, so the result does
not depend on the order in which tiles and blocks are processed.
"""

# K phrases, h w pixels of a window

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.job.grid import Tile, Window

STRIP_PX = 256
"""Rows per division."""
RAMP_PX = 64
"""Pixels over which a tile's weight rises to its maximum, counted from the end of its context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Weighted scores of a window before division; neighbouring blocks can still add to them."""

    window: Window
    scores: NDArray[np.uint32]
    """(K, h, w) uint32, sum of weight times score."""
    weights: NDArray[np.uint32]
    """(h, w) uint32, sum of weights; 0 where no tile answered."""

    def divided(self) -> NDArray[np.uint8]:
        """Returns blended scores (K, h, w) uint8, rounded half up; 0 where no tile answered."""
        blended = np.empty(self.scores.shape, np.uint8)
        # In strips: the 32-bit intermediate values take four times the memory of the result.
        for y0 in range(0, self.window.shape[0], STRIP_PX):
            rows = slice(y0, y0 + STRIP_PX)
            weights = np.maximum(self.weights[rows], 1)
            blended[:, rows] = (2 * self.scores[:, rows] + weights) // (2 * weights)
        return blended

    def crop(self, window: Window) -> Sums:
        """Returns the sums of a window inside this one, without copying."""
        at = window.within(self.window)
        return Sums(window=window, scores=self.scores[(slice(None), *at)], weights=self.weights[at])

    def plus(self, others: Sequence[Sums]) -> Sums:
        """Returns these sums plus those of others where they overlap; ignores pixels outside."""
        scores, weights = self.scores.copy(), self.weights.copy()
        for other in others:
            shared = self.window & other.window
            if not shared.empty:
                piece, at = other.crop(shared), shared.within(self.window)
                scores[(slice(None), *at)] += piece.scores
                weights[at] += piece.weights
        return Sums(window=self.window, scores=scores, weights=weights)


class Blend:
    """Accumulates the weighted scores of a block's tiles.

    A tile's weight falls towards its border. It is 0 within `context_px` of the border and at least
    1 everywhere else.
    """

    def __init__(self, window: Window, phrases: int, tile_px: int, context_px: int) -> None:
        """Starts with zero sums.

        Args:
            window: window of the block and its halo.
            phrases: number of phrases, K.
            tile_px: side of a tile in pixels.
            context_px: width in pixels of the strip at a tile's border that gets weight 0, since
                it lacks context.
        """
        self.sums = Sums(
            window=window,
            scores=np.zeros((phrases, *window.shape), np.uint32),
            weights=np.zeros(window.shape, np.uint32),
        )
        ramp = np.minimum(np.arange(tile_px), np.arange(tile_px)[::-1]) - context_px + 1
        side = np.clip(ramp, 0, RAMP_PX).astype(np.uint32)
        self._weight = side[:, None] * side[None, :]
        self._context_px = context_px

    def add(self, tile: Tile, scores: NDArray[np.uint8]) -> None:
        """Adds a tile's scores (K, tile_px, tile_px) uint8."""
        at = tile.window.within(self.sums.window)
        self.sums.weights[at] += self._weight
        for number, plane in enumerate(scores):
            if plane.any():
                self.sums.scores[number][at] += self._weight * plane

    def frame(self, own: Window, halo_px: int) -> list[Sums]:
        """Returns the sums that overlap with those of neighbouring blocks.

        They form a band along the block's border in four windows: top, bottom, left, right. The
        band reaches as far on either side as a tile's answers do past its core. A block too small
        to have an interior returns all its sums.

        Args:
            own: window of the block without its halo.
            halo_px: width of the halo in pixels.
        """
        reach = halo_px - self._context_px
        outer, inner = self.sums.window & own.grown(reach), own.grown(-reach)
        if inner.empty:
            return [self.sums.crop(outer)]
        pieces = (
            Window(outer.y0, outer.x0, inner.y0, outer.x1),
            Window(inner.y1, outer.x0, outer.y1, outer.x1),
            Window(inner.y0, outer.x0, inner.y1, inner.x0),
            Window(inner.y0, inner.x1, inner.y1, outer.x1),
        )
        return [self.sums.crop(piece) for piece in pieces]
