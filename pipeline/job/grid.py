"""The pixels of a result: one grid per CRS, cut into blocks (= output shards) and tiles.

Rows and columns count from the grid's top-left corner. `Grid.lattice` is that corner's position
among all pixels of the CRS, so that a place has the same position in every job on that lattice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from affine import Affine
from shapely.geometry.base import BaseGeometry

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open rectangle of grid pixels; may exceed the grid."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return max(self.y1 - self.y0, 0), max(self.x1 - self.x0, 0)

    @property
    def empty(self) -> bool:
        """Whether the window has no pixels."""
        return self.y0 >= self.y1 or self.x0 >= self.x1

    def grown(self, px: int) -> Window:
        """Returns the window with `px` more pixels on every side; negative `px` shrinks it."""
        return Window(self.y0 - px, self.x0 - px, self.y1 + px, self.x1 + px)

    def __and__(self, other: Window) -> Window:
        """Returns the intersection; empty if the windows do not meet."""
        return Window(
            max(self.y0, other.y0),
            max(self.x0, other.x0),
            min(self.y1, other.y1),
            min(self.x1, other.x1),
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Returns the slices of this window in an array that covers `outer`."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(
            self.x0 - outer.x0, self.x1 - outer.x0
        )


@dataclass(frozen=True, slots=True, order=True)
class BlockKey:
    """Key of a block, the unit of reading, writing, retrying and resuming.

    Consists of the grid's name, the number of the time slice, and the block's row and column.
    """

    grid: str
    time: int
    row: int
    col: int

    def __str__(self) -> str:
        return f"{self.grid}-t{self.time}-r{self.row}-c{self.col}"

    def neighbours(self) -> Iterator[BlockKey]:
        """Yields the keys of the eight blocks around this one, whether or not they exist."""
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dy or dx:
                    yield BlockKey(self.grid, self.time, self.row + dy, self.col + dx)


@dataclass(frozen=True, slots=True)
class View:
    """What a model gets at once: a window, on the grid's pixels or on coarser ones."""

    window: Window
    """Window in pixels of the grid."""
    factor: int = 1
    """Side of a view pixel in grid pixels."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of model size, and its core, which belongs to no other tile."""

    row: int
    """Row among all tiles of the grid; `col` likewise."""
    col: int
    window: Window
    """Core and halo; may exceed the grid."""
    core: Window
    """Core, clipped to the grid."""


@dataclass(frozen=True)
class Grid:
    """The pixels of a result in one CRS."""

    name: str
    """For example `epsg32631`; name of the grid's groups if a result has several grids."""
    crs: str
    """`EPSG:32631` or the like, else WKT."""
    transform: tuple[float, float, float, float, float, float]
    """Affine coefficients a to f of the pixels, in rasterio's order."""
    shape: tuple[int, int]
    """(rows, columns) of the pixels that answers are given for."""
    lattice: tuple[int, int]
    """Row and column of the top-left pixel on the lattice."""
    tile_px: int
    halo_px: int
    block_px: int
    search_area: BaseGeometry
    """Search area in the CRS: the AOI within the zone and a halo past the zone's border."""
    answer_area: BaseGeometry
    """Answer area in the CRS: the AOI within the zone."""
    zone: tuple[float, float, float, float] | None
    """Bounds of the grid's zone (west, south, east, north, lon/lat); None if the result has a
    single CRS or this CRS is not UTM."""

    @cached_property
    def affine(self) -> Affine:
        """The transform as an Affine."""
        return Affine(*self.transform)

    @property
    def core_px(self) -> int:
        """Side of a tile's core in pixels."""
        return self.tile_px - 2 * self.halo_px

    @property
    def window(self) -> Window:
        """Window of the whole grid."""
        return Window(0, 0, *self.shape)

    @property
    def blocks_shape(self) -> tuple[int, int]:
        """Number of blocks, (rows, columns)."""
        return -(-self.shape[0] // self.block_px), -(-self.shape[1] // self.block_px)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(rows, columns) of whole blocks: the shape of the arrays."""
        rows, cols = self.blocks_shape
        return rows * self.block_px, cols * self.block_px

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """Number of tiles, (rows, columns)."""
        return -(-self.shape[0] // self.core_px), -(-self.shape[1] // self.core_px)

    def for_view(self, view: View) -> Grid:
        """Returns a grid of the view's pixels, from the view's corner; its lattice is (0, 0)."""
        window, factor = view.window, view.factor
        affine = self.affine @ Affine.translation(window.x0, window.y0) @ Affine.scale(factor)
        side = (window.shape[0] // factor, window.shape[1] // factor)
        return replace(self, transform=tuple(affine)[:6], shape=side, lattice=(0, 0))

    def owns(self, lon: float, lat: float) -> bool:
        """Returns whether a place lies in this grid's zone; True if the grid has no zone."""
        if self.zone is None:
            return True
        west, south, east, north = self.zone
        return west <= lon < east and south <= lat < north

    def geobox(self, window: Window) -> GeoBox:
        """Returns the GeoBox of a window."""
        from odc.geo.geobox import GeoBox

        return GeoBox(
            window.shape, self.affine @ Affine.translation(window.x0, window.y0), self.crs
        )

    def block_window(self, key: BlockKey) -> Window:
        """Returns the window of a block, clipped to the grid."""
        side = self.block_px
        return (
            Window(key.row * side, key.col * side, (key.row + 1) * side, (key.col + 1) * side)
            & self.window
        )

    def tile_count(self, key: BlockKey) -> int:
        """Returns the number of tiles of a block."""
        per_block = self.block_px // self.core_px
        rows, cols = self.tiles_shape
        return min(per_block, rows - key.row * per_block) * min(
            per_block, cols - key.col * per_block
        )

    def tiles(self, key: BlockKey) -> list[Tile]:
        """Returns the tiles of a block in row-major order, without those outside the grid."""
        per_block = self.block_px // self.core_px
        core, halo = self.core_px, self.halo_px
        rows, cols = self.tiles_shape
        found = []
        for row in range(key.row * per_block, min((key.row + 1) * per_block, rows)):
            for col in range(key.col * per_block, min((key.col + 1) * per_block, cols)):
                own = Window(row * core, col * core, (row + 1) * core, (col + 1) * core)
                found.append(Tile(row, col, own.grown(halo), own & self.window))
        return found

    def read_window(self, key: BlockKey) -> Window:
        """Returns the window that a block's tiles cover: their unclipped cores and the halo."""
        tiles = self.tiles(key)
        first, last = tiles[0].window, tiles[-1].window
        return Window(first.y0, first.x0, last.y1, last.x1)
