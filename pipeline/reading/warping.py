"""Warps bands of a raster to a grid, by its CRS or by its ground control points.

Pixels are warped in square cells of `CELL_PX` that start at the grid's corner. GDAL's warped pixels
depend on the requested window, but a result must not depend on where a block starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.warp import reproject, transform
from rasterio.windows import Window as RasterWindow

from earthgptx.catalogs.access import Opening
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.native import header_grid
from earthgptx.pipeline.reading.sources import Raster

CELL_PX = 512
TOLERANCE_PX = 0.02
"""Largest error of a pixel's place, at which GDAL interpolates places instead of projecting each.
Its default of 0.125 is visible where two cells meet."""
MOST_PIECE_BYTES = 2**27
"""Largest piece of a file that is read at once for a cell."""
KERNEL_PX = 2
"""Radius of the widest resampling kernel, cubic, in pixels of the source."""
MESH_PX = 32
"""Distance between the points of a cell that are projected to find what it needs."""


@dataclass(frozen=True, slots=True)
class BandRequest:
    """Which bands of an asset are read, and how."""

    raster: Raster
    indexes: tuple[int, ...]
    """Numbers of the bands, from 1."""
    opening: Opening
    resampling: str
    """rasterio's name of the method, used if pixels are warped."""
    nodata: float | None = None
    """Value that replaces the file's nodata value; None to use the file's."""


@lru_cache(maxsize=64)
def cached_crs(text: str) -> CRS:
    """Parses a CRS; cached, since parsing takes a millisecond."""
    return CRS.from_user_input(text)


def warp(
    grid: Grid, part: Window, request: BandRequest, raster: DatasetReader
) -> tuple[NDArray[Any], float | None]:
    """Warps bands of a raster, by its CRS if it has one, else by its ground control points.

    A cell that lies inside the raster and meets no nodata stays in the raster's dtype, which GDAL
    warps three times as fast.

    Returns:
        Bands (B, h, w) and the value that means no data: float32 and NaN, or the raster's dtype and
        None if all cells are whole.

    Raises:
        SourceError: the raster has neither a CRS nor ground control points.
    """
    warped = {}
    wanted = [cell for row in cells(part) for cell in row]
    if raster.crs is None:
        native = header_grid(raster, request.raster.where)
        points, crs = raster.gcps
        scale = min(native.transform.a / abs(grid.transform[0]), 1.0)
        source = _Source(rasterio.band(raster, list(request.indexes)), crs, points, None)
        for cell in wanted:
            warped[cell] = _warp_cell(grid, cell, request, source, scale, 0.0)
    else:
        scale = min(step_ratio(grid, raster), 1.0)
        for cell in wanted:
            source = _whole(grid, cell, request, raster, scale) or _Source(
                rasterio.band(raster, list(request.indexes)), raster.crs, None, None
            )
            warped[cell] = _warp_cell(grid, cell, request, source, scale, TOLERANCE_PX)
    whole = all(values.dtype != np.float32 for values in warped.values())
    dtype = next(iter(warped.values())).dtype if whole else np.dtype(np.float32)
    merged = np.empty((len(request.indexes), *part.shape), dtype)
    for cell, values in warped.items():
        here = cell & part
        merged[(slice(None), *here.within(part))] = values[(slice(None), *here.within(cell))]
    return merged, None if whole else float("nan")


@dataclass(frozen=True, slots=True)
class _Source:
    """What a cell is warped from: bands of a file, or a piece of them in memory."""

    bands: Any
    crs: CRS
    points: Any
    """Ground control points, or None."""
    transform: Affine | None
    """Of a piece in memory, which has no nodata; None for bands of a file."""


def _warp_cell(
    grid: Grid, cell: Window, request: BandRequest, source: _Source, scale: float, tolerance: float
) -> NDArray[Any]:
    shape = (len(request.indexes), CELL_PX, CELL_PX)
    nodata: dict[str, Any] = {}
    if source.transform is not None:
        warped: NDArray[Any] = np.zeros(shape, source.bands.dtype)
        placed: dict[str, Any] = {"src_crs": source.crs, "src_transform": source.transform}
    else:
        warped = np.full(shape, np.nan, np.float32)
        nodata = {"src_nodata": request.nodata, "dst_nodata": float("nan")}
        placed = {"gcps": source.points, "src_crs": source.crs} if source.points else {}
    reproject(  # a WarpedVRT with a target grid ignores the points
        source.bands,
        warped,
        **placed,
        **nodata,
        dst_crs=cached_crs(grid.crs),
        dst_transform=grid.geobox(cell).affine,
        resampling=Resampling[request.resampling],
        tolerance=tolerance,
        XSCALE=scale,
        YSCALE=scale,
    )
    return warped


def _whole(
    grid: Grid, cell: Window, request: BandRequest, raster: DatasetReader, scale: float
) -> _Source | None:
    """Returns the piece of a raster that a cell needs, if all of it is there and is data."""
    if np.dtype(raster.dtypes[0]).kind == "f":
        return None
    margin = int(np.ceil(KERNEL_PX / scale)) + 1
    col, row = (each.ravel() for each in _sampled(cell))
    a, b, c, d, e, f = grid.transform
    x, y = a * col + b * row + c, d * col + e * row + f
    there = transform(cached_crs(grid.crs), raster.crs, x.tolist(), y.tolist())
    inverse: Affine = ~raster.transform
    cols, rows = np.array([inverse @ at for at in zip(*there, strict=True)]).T
    if not np.isfinite([cols, rows]).all() or _jumps(cols) or _jumps(rows):
        return None
    row0, row1 = int(rows.min()) - margin, int(rows.max()) + 1 + margin
    col0, col1 = int(cols.min()) - margin, int(cols.max()) + 1 + margin
    if min(row0, col0) < 0 or row1 > raster.height or col1 > raster.width:
        return None
    at = RasterWindow(col0, row0, col1 - col0, row1 - row0)
    needed = (
        (row1 - row0)
        * (col1 - col0)
        * sum(np.dtype(raster.dtypes[index - 1]).itemsize for index in request.indexes)
    )
    if needed > MOST_PIECE_BYTES:
        return None  # GDAL warps the file piece by piece
    values = raster.read(list(request.indexes), window=at)
    if request.nodata is not None and (values == request.nodata).any():
        return None
    return _Source(values, raster.crs, None, raster.window_transform(at))


def _sampled(cell: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns columns and rows of a mesh of points of a cell, its border included."""
    steps = np.arange(0, CELL_PX + 1, MESH_PX, dtype=np.float64)
    col, row = np.meshgrid(cell.x0 + steps, cell.y0 + steps)
    return col, row


def _jumps(places: NDArray[np.float64]) -> bool:
    """Whether places of a mesh are not continuous, as at a pole or the antimeridian."""
    side = CELL_PX // MESH_PX + 1
    mesh = places.reshape(side, side)
    steps = np.concatenate([np.abs(np.diff(mesh, axis=axis)).ravel() for axis in (0, 1)])
    return bool(steps.max() > 4 * np.median(steps[steps > 0]) + 2) if steps.any() else True


def step_ratio(grid: Grid, raster: DatasetReader) -> float:
    """Returns the side of a raster's pixel in pixels of the grid, at the raster's centre.

    One number for the whole raster, with two significant digits: whatever window is read, it is
    smoothed alike.
    """
    row, col = raster.height / 2, raster.width / 2
    corners = [raster.transform @ at for at in ((col, row), (col + 1, row), (col, row + 1))]
    x, y = zip(*corners, strict=True)
    there = transform(raster.crs, cached_crs(grid.crs), x, y)
    inverse: Affine = ~grid.affine
    (c0, r0), (c1, r1), (c2, r2) = (inverse @ at for at in zip(there[0], there[1], strict=True))
    area = abs((c1 - c0) * (r2 - r0) - (c2 - c0) * (r1 - r0))
    return float(f"{area**0.5:.2g}") if np.isfinite(area) and area > 0 else 1.0


def cells(part: Window) -> list[list[Window]]:
    """Returns the cells that a window meets, row by row; those at its border exceed it."""
    tops = range(part.y0 // CELL_PX * CELL_PX, part.y1, CELL_PX)
    lefts = range(part.x0 // CELL_PX * CELL_PX, part.x1, CELL_PX)
    return [[Window(y, x, y + CELL_PX, x + CELL_PX) for x in lefts] for y in tops]
