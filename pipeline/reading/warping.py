"""Warps bands of an asset to a grid: by GDAL with ground control points, or by odc-stac.

Pixels are warped in square cells of `CELL_PX` that start at the grid's corner. GDAL's warped pixels
depend on the requested window, but a result must not depend on where a block starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import reproject

from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.assets import gdal_options, header_grid, unreadable

if TYPE_CHECKING:
    import xarray as xr

CELL_PX = 512
_EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]


@dataclass(frozen=True, slots=True)
class BandRequest:
    """Which bands of an asset are read, and how."""

    item: pystac.Item
    key: str
    """Of the asset."""
    indexes: tuple[int, ...]
    """Numbers of the bands, from 1."""
    resampling: str
    """rasterio's name of the method, used if pixels are warped."""
    nodata: float | None = None
    """Value that replaces the file's nodata value; None to use the file's."""

    @property
    def asset(self) -> pystac.Asset:
        """The asset."""
        return self.item.assets[self.key]


@lru_cache(maxsize=64)
def cached_crs(text: str) -> CRS:
    """Parses a CRS; cached, since parsing takes a millisecond."""
    return CRS.from_user_input(text)


def warp_by_points(
    grid: Grid, part: Window, request: BandRequest, raster: DatasetReader
) -> NDArray[np.float32]:
    """Warps bands of a raster in radar geometry by its ground control points.

    Returns:
        (B, h, w) float32; NaN means no data.
    """
    native = header_grid(raster, request.item, request.key)
    indexes = list(request.indexes)
    points, crs = raster.gcps
    scale = min(native.transform.a / abs(grid.transform[0]), 1.0)
    values = np.full((len(indexes), *part.shape), np.nan, np.float32)
    for cell in _cells(part):
        warped = np.full((len(indexes), CELL_PX, CELL_PX), np.nan, np.float32)
        # A WarpedVRT with a target grid ignores the points. The tolerance is 0, since GDAL's
        # default approximation of 0.125 px is visible where two cells meet.
        reproject(
            rasterio.band(raster, indexes),
            warped,
            gcps=points,
            src_crs=crs,
            src_nodata=request.nodata,
            dst_crs=cached_crs(grid.crs),
            dst_transform=grid.geobox(cell).affine,
            dst_nodata=float("nan"),
            resampling=Resampling[request.resampling],
            tolerance=0,
            XSCALE=scale,
            YSCALE=scale,
        )
        here = cell & part
        values[(slice(None), *here.within(part))] = warped[(slice(None), *here.within(cell))]
    return values


def warp_by_odc(grid: Grid, part: Window, request: BandRequest) -> NDArray[np.float32]:
    """Warps bands of an asset that has a CRS, by odc-stac.

    Returns:
        (B, h, w) float32; NaN means no data.

    Raises:
        SourceError: the asset cannot be read.
    """
    whole = _cells_around(part)
    try:
        loaded = _odc_graph(grid, whole, request).compute(scheduler="synchronous")
    except (RasterioError, OSError, ValueError) as error:
        address = redacted(request.asset.href)
        where = f"asset {request.key} of item {request.item.id} ({address})"
        raise unreadable(request.asset.href, where, error) from error
    at = part.within(whole)
    return np.stack([loaded[_band_name(index)].values[at] for index in request.indexes])


def _odc_graph(grid: Grid, window: Window, request: BandRequest) -> xr.Dataset:
    """Returns a lazy dataset of the bands, with one Dask chunk per cell."""
    import odc.stac

    odc.stac.configure_rio(**gdal_options())
    declared = _declared(request.nodata)
    lazy: xr.Dataset = odc.stac.load(
        [_declared_item(request)],
        bands=[_band_name(index) for index in request.indexes],
        geobox=grid.geobox(window),
        chunks={"x": CELL_PX, "y": CELL_PX},
        resampling=request.resampling,
        dtype="float32",
        nodata=float("nan"),
        stac_cfg={"*": {"assets": {"*": declared}}},
    )
    return lazy.isel(time=0)


def _declared_item(request: BandRequest) -> pystac.Item:
    """Returns a copy of an Item with one asset and its bands; odc-stac skips undeclared bands."""
    item = request.item
    copy = pystac.Item(
        item.id,
        item.geometry,
        item.bbox,
        item.datetime or item.common_metadata.start_datetime,
        {},
        stac_extensions=list(_EXTENSIONS),
    )
    bands = range(1, max(request.indexes) + 1)
    fields = {
        "eo:bands": [{"name": _band_name(index)} for index in bands],
        "raster:bands": [_declared(request.nodata)] * len(bands),
    }
    asset = pystac.Asset(
        request.asset.href,
        media_type=pystac.MediaType.COG,
        roles=["data"],
        extra_fields=fields,
    )
    copy.add_asset(request.key, asset)
    return copy


def _declared(nodata: float | None) -> dict[str, Any]:
    return {"data_type": "float32"} | ({} if nodata is None else {"nodata": nodata})


def _band_name(index: int) -> str:
    return f"b{index}"


def _cells(part: Window) -> Iterator[Window]:
    """Yields the cells that a window meets."""
    whole = _cells_around(part)
    for y0 in range(whole.y0, whole.y1, CELL_PX):
        for x0 in range(whole.x0, whole.x1, CELL_PX):
            yield Window(y0, x0, y0 + CELL_PX, x0 + CELL_PX)


def _cells_around(part: Window) -> Window:
    """Returns the smallest window of whole cells that contains a window."""
    y0, x0 = part.y0 // CELL_PX * CELL_PX, part.x0 // CELL_PX * CELL_PX
    return Window(y0, x0, -(-part.y1 // CELL_PX) * CELL_PX, -(-part.x1 // CELL_PX) * CELL_PX)
