"""Reads bands of an asset on a window of a grid, and warps them only if they are not aligned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.assets import open_raster
from earthgptx.pipeline.reading.native import NativeGrid
from earthgptx.pipeline.reading.warping import BandRequest, cached_crs, step_ratio, warp

ALIGNED_PX = 0.01
"""Largest offset between the pixels of an asset and a grid, over the whole asset, at which they
count as aligned."""


def read_window(
    grid: Grid, part: Window, request: BandRequest
) -> tuple[NDArray[Any], float | None]:
    """Reads bands of an asset on a window of the grid.

    Args:
        grid: target grid.
        part: window of the target grid.
        request: bands to read.

    Returns:
        Bands (B, h, w) and the value that means no data, or None. The dtype is the file's, or
        float32 if the bands are warped or the window exceeds the file.

    Raises:
        SourceError: the asset cannot be read, or lacks one of the bands.
    """
    with open_raster(request.raster, request.opening) as raster:
        if max(request.indexes) > raster.count:
            raise SourceError(
                f"{request.raster.where} has {raster.count} bands, its collection's profile reads "
                f"band {max(request.indexes)}; mend source.profiles"
            )
        if request.nodata is None and raster.nodata is not None:
            request = replace(request, nodata=float(raster.nodata))
        if raster.crs is not None:
            offset = _offset(NativeGrid(raster.crs, raster.transform, raster.shape), grid)
            if offset is not None:
                return _read_aligned(part, raster, offset, request)
            level = _overview(grid, raster, request)
        else:
            level = None
        if level is None:
            return warp(grid, part, request, raster)
    with open_raster(request.raster, request.opening, level) as raster:
        return warp(grid, part, request, raster)


def _overview(grid: Grid, raster: DatasetReader, request: BandRequest) -> int | None:
    """Returns the coarsest overview that is still finer than the grid; None for full resolution.

    Classes, which are read by `nearest`, are never read from overviews: those may be averages.
    """
    coarser = 1 / step_ratio(grid, raster)
    if request.resampling == "nearest":
        return None
    factors = raster.overviews(request.indexes[0])
    fitting = [level for level, factor in enumerate(factors) if factor <= coarser * 1.01]
    return fitting[-1] if fitting else None


def _offset(native: NativeGrid, grid: Grid) -> tuple[int, int] | None:
    """Returns row and column of the asset's first pixel in the grid; None if not aligned."""
    if native.crs != cached_crs(grid.crs):
        return None
    ours, theirs = grid.affine, native.transform
    size = max(native.shape)
    rotated = theirs.b or theirs.d
    other_width = abs(theirs.a / ours.a - 1) * size > ALIGNED_PX
    other_height = abs(theirs.e / ours.e - 1) * size > ALIGNED_PX
    if rotated or other_width or other_height:
        return None
    col, row = ~ours @ (theirs.c, theirs.f)
    if abs(col - round(col)) > ALIGNED_PX or abs(row - round(row)) > ALIGNED_PX:
        return None
    return round(row), round(col)


def _read_aligned(
    part: Window,
    raster: DatasetReader,
    offset: tuple[int, int],
    request: BandRequest,
) -> tuple[NDArray[Any], float | None]:
    row, col = offset
    there = part & Window(row, col, row + raster.height, col + raster.width)

    def read(window: Window) -> NDArray[Any]:
        at = RasterWindow(window.x0 - col, window.y0 - row, *window.shape[::-1])
        values: NDArray[Any] = raster.read(list(request.indexes), window=at)
        return values

    if there.shape == part.shape:
        return read(part), request.nodata
    # The window exceeds the file: missing pixels become NaN, so that they do not look like data.
    values = np.full((len(request.indexes), *part.shape), np.nan, np.float32)
    if not there.empty:
        values[(slice(None), *there.within(part))] = read(there)
    return values, request.nodata
