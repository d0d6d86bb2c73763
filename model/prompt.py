"""Visual prompts: what a person or a rule points at in an image. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.region import Box, Mask, Point


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualPrompt:
    """One thing pointed at; its id comes back with the answer."""

    id: str
    """Unique within a job."""
    place: Point | Box | Mask
    """Where, in pixels of the tile."""

    def inside(self, height: int, width: int) -> NDArray[np.bool_]:
        """The prompt drawn on a tile, (height, width) bool.

        A point fills the pixel it lies in, a box all pixels that it touches. Nothing is drawn past
        the tile's border.
        """
        place = self.place
        if isinstance(place, Mask):
            return place.window(0, 0, height, width)
        drawn = np.zeros((height, width), bool)
        if isinstance(place, Point):
            if 0 <= place.y < height and 0 <= place.x < width:
                drawn[int(place.y), int(place.x)] = True
            return drawn
        y0, x0 = max(int(np.floor(place.y0)), 0), max(int(np.floor(place.x0)), 0)
        drawn[y0 : max(int(np.ceil(place.y1)), 0), x0 : max(int(np.ceil(place.x1)), 0)] = True
        return drawn
