"""A raster canvas on which shapes are drawn one after another. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.interface.region import Mask
from earthgptx.model.synthetic.render import coverage
from earthgptx.model.synthetic.shapes import Ring

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image that shapes are drawn into, in place."""

    layers: Floats
    """Pixel values, (C, H, W), 0..255."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return int(self.layers.shape[1]), int(self.layers.shape[2])

    def mask(self, rings: Sequence[Ring]) -> Mask | None:
        """Returns the pixels that convex rings cover by at least half; None if there are none.

        Args:
            rings: convex rings, x and y in pixels.
        """
        covered = self._part(rings)
        if covered is None or not (covered[1] >= 0.5).any():
            return None
        (rows, cols), part = covered
        return Mask.from_array(part >= 0.5, y0=rows.start, x0=cols.start)

    def put(self, rings: Sequence[Ring], tone: Floats, opacity: float = 1.0) -> None:
        """Draws convex rings.

        Args:
            rings: convex rings, x and y in pixels.
            tone: pixel values, (C,) or (C, H, W), 0..255.
            opacity: opacity of the paint, 0..1; 1 hides the pixels below.
        """
        covered = self._part(rings)
        if covered is not None:
            window, part = covered
            own = tone[:, None, None] if tone.ndim == 1 else tone[(slice(None), *window)]
            there = self.layers[(slice(None), *window)]
            there += opacity * part * (own - there)

    def spot(self, x: float, y: float, radius: float, tone: Floats, opacity: float = 1.0) -> None:
        """Draws a disc, much faster than `put` draws it as a ring.

        Args:
            x: x of the centre, pixels.
            y: y of the centre, pixels.
            radius: radius, pixels.
            tone: pixel values, (C,), 0..255.
            opacity: opacity of the paint, 0..1; 1 hides the pixels below.
        """
        window = self._window(x - radius, y - radius, x + radius, y + radius)
        if window is not None:
            rows, cols = (np.arange(each.start, each.stop) + 0.5 for each in window)
            part = np.clip(0.5 + radius - np.hypot(rows[:, None] - y, cols - x), 0, 1)
            there = self.layers[(slice(None), *window)]
            there += opacity * part * (tone[:, None, None] - there)

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        """Returns the pixels of a box grown by one pixel; None if it lies outside the canvas."""
        height, width = self.shape
        rows = slice(max(int(y0) - 1, 0), min(int(np.ceil(y1)) + 1, height))
        cols = slice(max(int(x0) - 1, 0), min(int(np.ceil(x1)) + 1, width))
        return (rows, cols) if rows.start < rows.stop and cols.start < cols.stop else None

    def _part(self, rings: Sequence[Ring]) -> tuple[tuple[slice, slice], Floats] | None:
        corners = np.concatenate(rings)
        window = self._window(*corners.min(axis=0), *corners.max(axis=0))
        if window is None:
            return None
        y, x = np.mgrid[window] + 0.5
        return window, coverage(tuple(rings), x, y, 1.0)


def bumpy(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Floats:
    """Returns smooth noise, (H, W), with bumps of about `size` pixels; mean 0, deviation 1."""
    cells = [max(int(np.ceil(side / size)) + 1, 2) for side in shape]
    coarse = rng.normal(size=cells)
    rows, cols = (np.linspace(0, cell - 1, side) for cell, side in zip(cells, shape, strict=True))
    fine: Floats = ndimage.map_coordinates(
        coarse, np.meshgrid(rows, cols, indexing="ij"), order=3, mode="nearest"
    )
    return (fine - fine.mean()) / max(float(fine.std()), 1e-6)
