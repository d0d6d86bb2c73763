"""Point, box, scribble and mask in pixels of one tile, y down, x right.

All four are plain values that can be compared, hashed and pickled. Knows nothing of geography,
prompts or answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.errors import RegionError


@dataclass(frozen=True, slots=True)
class Point:
    """A point in pixels from the tile's top-left corner; (0.5, 0.5) is the first pixel's centre."""

    x: float
    y: float

    @property
    def centre(self) -> Point:
        """The point itself."""
        return self

    def moved(self, *, dx: int, dy: int) -> Point:
        """Returns the point for an origin `dx` pixels further left and `dy` further up."""
        return Point(self.x + dx, self.y + dy)


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box in pixels: x0 <= x < x1, y0 <= y < y1.

    Raises:
        RegionError: the box is empty or its corners are swapped.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x1 > self.x0 and self.y1 > self.y0):
            raise RegionError(
                f"box ({self.x0}, {self.y0}, {self.x1}, {self.y1}) is empty; "
                "give x0 < x1 and y0 < y1 in pixels"
            )

    @property
    def centre(self) -> Point:
        """Middle of the box."""
        return Point((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    def moved(self, *, dx: int, dy: int) -> Box:
        """Returns the box for an origin `dx` pixels further left and `dy` further up."""
        return Box(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)


@dataclass(frozen=True, slots=True)
class Scribble:
    """A stroke through points, in pixels.

    Raises:
        RegionError: the scribble has no point, or its width is not positive.
    """

    points: tuple[Point, ...]
    width: float
    """Width of the stroke in pixels."""

    def __post_init__(self) -> None:
        if not self.points or not self.width > 0:
            raise RegionError(
                f"a scribble of {len(self.points)} points and width {self.width} marks nothing"
            )

    @property
    def centre(self) -> Point:
        """Middle of the bounding box of the points."""
        xs, ys = [point.x for point in self.points], [point.y for point in self.points]
        return Point((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)

    def moved(self, *, dx: int, dy: int) -> Scribble:
        """Returns the scribble for an origin `dx` pixels further left and `dy` further up."""
        return Scribble(tuple(point.moved(dx=dx, dy=dy) for point in self.points), self.width)

    def drawn(self, height: int, width: int) -> NDArray[np.bool_]:
        """Rasterises the stroke on a tile, (height, width) bool.

        Marks the pixels whose centres lie within half the width of the stroke. The half width
        counts as at least half a pixel's diagonal, so every pixel that the stroke crosses is
        marked.
        """
        y, x = np.mgrid[:height, :width] + 0.5
        inside = np.zeros((height, width), bool)
        for start, end in zip(self.points, (*self.points[1:], self.points[-1]), strict=True):
            along_x, along_y = end.x - start.x, end.y - start.y
            length = along_x**2 + along_y**2
            t = (
                np.clip(((x - start.x) * along_x + (y - start.y) * along_y) / length, 0, 1)
                if length
                else 0.0
            )
            inside |= np.hypot(x - start.x - t * along_x, y - start.y - t * along_y) <= max(
                self.width / 2, 0.5**0.5
            )
        return inside


@dataclass(frozen=True, slots=True)
class Mask:
    """A set of pixels, run-length encoded in row-major order within its bounding window."""

    y0: int
    """First row of the window."""
    x0: int
    """First column of the window."""
    height: int
    """Rows of the window."""
    width: int
    """Columns of the window."""
    runs: tuple[int, ...]
    """Lengths of alternating runs, starting with outside; they sum to height * width."""

    def __post_init__(self) -> None:
        if sum(self.runs) != self.height * self.width:
            raise RegionError(
                f"runs sum to {sum(self.runs)}, the window of {self.height} x {self.width} has "
                f"{self.height * self.width} pixels"
            )

    @classmethod
    def from_array(cls, inside: NDArray[np.bool_], *, y0: int = 0, x0: int = 0) -> Mask:
        """Encodes `inside` (H, W) bool, cropped to its bounding window.

        Args:
            inside: (H, W) bool.
            y0: row of the array's first pixel in the tile.
            x0: column of the array's first pixel in the tile.

        Raises:
            RegionError: no pixel is inside.
        """
        rows = np.flatnonzero(inside.any(axis=1))
        if rows.size == 0:
            raise RegionError(f"mask of shape {inside.shape} holds no pixel; leave it out instead")
        cols = np.flatnonzero(inside.any(axis=0))
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
        flat = inside[top:bottom, left:right].ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        edges = np.concatenate(([0], changes, [flat.size]))
        runs = np.diff(edges).tolist()
        if flat[0]:
            runs.insert(0, 0)
        return cls(y0 + top, x0 + left, bottom - top, right - left, tuple(runs))

    def to_array(self) -> NDArray[np.bool_]:
        """Returns the pixels of the mask's own window, (height, width) bool."""
        inside = np.zeros(len(self.runs), bool)
        inside[1::2] = True
        return np.repeat(inside, self.runs).reshape(self.height, self.width)

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return sum(self.runs[1::2])

    @property
    def box(self) -> Box:
        """Bounding box."""
        return Box(self.x0, self.y0, self.x0 + self.width, self.y0 + self.height)

    @property
    def centre(self) -> Point:
        """Middle of the bounding box."""
        return self.box.centre

    def moved(self, *, dx: int, dy: int) -> Mask:
        """Returns the mask for an origin `dx` pixels further left and `dy` further up."""
        return Mask(self.y0 + dy, self.x0 + dx, self.height, self.width, self.runs)

    def enlarged(self, factor: int) -> Mask:
        """Returns the mask on a grid whose pixels are `factor` times smaller per side."""
        if factor == 1:
            return self
        inside = self.to_array().repeat(factor, axis=0).repeat(factor, axis=1)
        return Mask.from_array(inside, y0=self.y0 * factor, x0=self.x0 * factor)

    def window(self, y0: int, x0: int, y1: int, x1: int) -> NDArray[np.bool_]:
        """Returns the pixels of a half-open window of the tile, (y1 - y0, x1 - x0) bool.

        Pixels beyond the mask's own window are False.
        """
        out = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
        top, bottom = max(y0, self.y0), min(y1, self.y0 + self.height)
        left, right = max(x0, self.x0), min(x1, self.x0 + self.width)
        if top < bottom and left < right:
            own = self.to_array()
            out[top - y0 : bottom - y0, left - x0 : right - x0] = own[
                top - self.y0 : bottom - self.y0, left - self.x0 : right - self.x0
            ]
        return out
