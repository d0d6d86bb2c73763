"""A picture in pixels, on which things are drawn one by one. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.region import Mask
from model.training.render import coverage
from model.training.world import Ring

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Canvas:
    """What is drawn so far."""

    layers: Floats
    """(C, H, W), 0..255."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.layers.shape[1]), int(self.layers.shape[2])

    def mask(self, rings: Sequence[Ring]) -> Mask | None:
        """The pixels that convex rings cover by half at least, x and y in pixels; None where there are none."""
        covered = self._part(rings)
        if covered is None or not (covered[1] >= 0.5).any():
            return None
        (rows, cols), part = covered
        return Mask.from_array(part >= 0.5, y0=rows.start, x0=cols.start)

    def put(self, rings: Sequence[Ring], tone: Floats, opacity: float = 1.0) -> None:
        """Draw convex rings.

        Args:
            rings: x and y in pixels.
            tone: (C,) or (C, H, W), 0..255.
            opacity: 1 hides what was there.
        """
        covered = self._part(rings)
        if covered is not None:
            window, part = covered
            own = tone[:, None, None] if tone.ndim == 1 else tone[(slice(None), *window)]
            there = self.layers[(slice(None), *window)]
            there += opacity * part * (own - there)

    def spot(self, x: float, y: float, radius: float, tone: Floats, opacity: float = 1.0) -> None:
        """Draw a disc, `tone` (C,); much faster than as a ring."""
        window = self._window(x - radius, y - radius, x + radius, y + radius)
        if window is not None:
            rows, cols = (np.arange(each.start, each.stop) + 0.5 for each in window)
            part = np.clip(0.5 + radius - np.hypot(rows[:, None] - y, cols - x), 0, 1)
            there = self.layers[(slice(None), *window)]
            there += opacity * part * (tone[:, None, None] - there)

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        """Pixels of a box and one around it; None where none are in the picture."""
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
    """Smooth noise (H, W) with bumps of some `size` pixels; mean 0, deviation 1."""
    cells = [max(int(np.ceil(side / size)) + 1, 2) for side in shape]
    coarse = rng.normal(size=cells)
    rows, cols = (np.linspace(0, cell - 1, side) for cell, side in zip(cells, shape, strict=True))
    fine: Floats = ndimage.map_coordinates(coarse, np.meshgrid(rows, cols, indexing="ij"), order=3, mode="nearest")
    return (fine - fine.mean()) / max(float(fine.std()), 1e-6)
