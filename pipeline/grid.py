"""The pixels of a result: a grid per CRS, cut into blocks (= output shards) and tiles.

Rows and columns count from the grid's top-left corner. `lattice` places that corner among all
pixels of the CRS, so that a piece of ground has the same number in every job on that lattice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open rectangle of pixels of a grid; may reach past the grid."""

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
        """Whether it holds no pixel."""
        return self.y0 >= self.y1 or self.x0 >= self.x1

    def grown(self, px: int) -> Window:
        """With `px` more pixels on every side; fewer where negative."""
        return Window(self.y0 - px, self.x0 - px, self.y1 + px, self.x1 + px)

    def __and__(self, other: Window) -> Window:
        """What both hold; empty where they do not meet."""
        return Window(max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1))

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Slices of this window in an array that holds `outer`."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


@dataclass(frozen=True, slots=True, order=True)
class BlockKey:
    """Which block: grid, time slice, block row and column. The unit of reading, writing, retrying, resuming."""

    grid: str
    time: int
    row: int
    col: int

    def __str__(self) -> str:
        return f"{self.grid}-t{self.time}-r{self.row}-c{self.col}"

    def neighbours(self) -> Iterator[BlockKey]:
        """The eight around it, whether or not they exist."""
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dy or dx:
                    yield BlockKey(self.grid, self.time, self.row + dy, self.col + dx)


@dataclass(frozen=True, slots=True)
class View:
    """What a model is shown at once: a window, on the grid's pixels or on coarser ones."""

    window: Window
    """In pixels of the grid."""
    factor: int = 1
    """Grid pixels along a side of one of the view's."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of model size, and the core of it that belongs to it alone."""

    row: int
    """Among all tiles of the grid."""
    col: int
    window: Window
    """Core and halo."""
    core: Window
    """Cut at the grid's end."""


@dataclass(frozen=True)
class Grid:
    """The pixels of one CRS."""

    name: str
    """`epsg32631`; names its groups where a result has several grids."""
    crs: str
    """As `EPSG:32631`, or WKT."""
    transform: tuple[float, float, float, float, float, float]
    """Affine of the top-left corner, as rasterio orders it."""
    shape: tuple[int, int]
    """(rows, columns)."""
    lattice: tuple[int, int]
    """Row and column of the top-left pixel among all pixels of the CRS."""
    tile_px: int
    halo_px: int
    block_px: int
    asked: BaseGeometry
    """Where objects are looked for, in the CRS: the AOI, and a halo past a zone's border."""
    owned: BaseGeometry
    """Where answers are given, in the CRS: the AOI within the zone."""
    zone: tuple[float, float, float, float] | None
    """Bounds (west, south, east, north, lon/lat) of what is this grid's, where the result has several zones."""

    @cached_property
    def affine(self) -> Affine:
        """The transform as an Affine."""
        return Affine(*self.transform)

    @property
    def core_px(self) -> int:
        """Side of a tile's core."""
        return self.tile_px - 2 * self.halo_px

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, *self.shape)

    @property
    def blocks_shape(self) -> tuple[int, int]:
        """(rows, columns) of blocks."""
        return -(-self.shape[0] // self.block_px), -(-self.shape[1] // self.block_px)

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        return -(-self.shape[0] // self.core_px), -(-self.shape[1] // self.core_px)

    def seen(self, view: View) -> Grid:
        """A grid of the view's own pixels, whose corner is the view's."""
        window, factor = view.window, view.factor
        affine = self.affine @ Affine.translation(window.x0, window.y0) @ Affine.scale(factor)
        side = (window.shape[0] // factor, window.shape[1] // factor)
        return replace(self, transform=tuple(affine)[:6], shape=side, lattice=(0, 0))

    def owns(self, lon: float, lat: float) -> bool:
        """Whether a place is this grid's and not another zone's."""
        if self.zone is None:
            return True
        west, south, east, north = self.zone
        return west <= lon < east and south <= lat < north

    def geobox(self, window: Window) -> GeoBox:
        """The geometry of a window."""
        return GeoBox(window.shape, self.affine @ Affine.translation(window.x0, window.y0), self.crs)

    def block_window(self, key: BlockKey) -> Window:
        """Pixels of a block, cut at the grid's end."""
        side = self.block_px
        return Window(key.row * side, key.col * side, (key.row + 1) * side, (key.col + 1) * side) & self.window

    def tiles(self, key: BlockKey) -> list[Tile]:
        """Tiles of a block in row-major order; those that would lie past the grid's end left out."""
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
        """What the tiles of a block see together: its whole cores and a halo around."""
        tiles = self.tiles(key)
        first, last = tiles[0].window, tiles[-1].window
        return Window(first.y0, first.x0, last.y1, last.x1)
