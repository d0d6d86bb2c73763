"""The pixels of one block: read, mosaicked, normalised to 8 bit. The only place that touches imagery.

Where an asset lies on the target grid already, all its bands are read at once from one window;
everything else goes through odc-stac (a small lazy graph, computed here), and radar geometry
through GDAL's ground control points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pystac
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.warp import reproject
from rasterio.windows import Window as RasterWindow
from shapely.geometry.base import BaseGeometry

from catalogs.collections import Band, CollectionProfile, Mask
from catalogs.stac_io import without_query
from pipeline.assets import NativeGrid, gdal_options, header_grid, open_asset, pick_asset
from pipeline.errors import SourceError
from pipeline.grid import Grid, Window

CELL_PX = 512
"""What is warped is warped in cells of this side that count from the grid's corner: GDAL's warped pixels depend on
the window that is asked for, and a result must not depend on where a block starts."""
ALIGNED_PX = 0.01
"""A grid whose pixels differ by less than this from the target's, over the whole asset, is the target's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneItem:
    """An Item and what reading it needs."""

    item: pystac.Item
    profile: CollectionProfile
    footprint: BaseGeometry
    """In the CRS of the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Pixels of a window of H x W."""

    window: Window
    pixels: NDArray[np.uint8]
    """(3, H, W), 0 where not valid."""
    valid: NDArray[np.bool_]
    """(H, W). True where the ground was seen."""
    masked: NDArray[np.bool_]
    """(H, W). True where every acquisition was cloud or shadow by its mask."""
    broken: NDArray[np.bool_]
    """(H, W). True where an Item that should have seen the ground could not be read."""
    errors: tuple[str, ...]
    """Why not, one sentence per Item."""


def read_scene(grid: Grid, window: Window, items: list[SceneItem]) -> Scene:
    """Mosaic the Items over a window; the first valid pixel wins.

    An Item that cannot be read leaves its ground `broken`; it does not stop the others.
    """
    height, width = window.shape
    pixels = np.zeros((3, height, width), np.uint8)
    valid = np.zeros((height, width), bool)
    clouded = np.zeros((height, width), bool)
    broken = np.zeros((height, width), bool)
    errors: list[str] = []
    for scene_item in items:
        try:
            found = _read_item(grid, window, scene_item)
        except SourceError as error:
            errors.append(str(error))
            broken |= inside(scene_item.footprint, grid, window)
            continue
        if found is None:
            continue
        part, channels, seen, hidden = found
        at = part.within(window)
        fresh = seen & ~hidden & ~valid[at]
        if fresh.all():
            pixels[(slice(None), *at)] = channels
        else:
            np.copyto(pixels[(slice(None), *at)], channels, where=fresh)
        valid[at] |= fresh
        clouded[at] |= seen & hidden
    return Scene(
        window=window, pixels=pixels, valid=valid, masked=clouded & ~valid, broken=broken & ~valid, errors=tuple(errors)
    )


def inside(geometry: BaseGeometry, grid: Grid, window: Window) -> NDArray[np.bool_]:
    """Pixels of a window whose centres lie in a geometry of the grid's CRS, (H, W) bool."""
    box = grid.geobox(window).extent.geom
    if geometry.is_empty or not geometry.intersects(box):
        return np.zeros(window.shape, bool)
    if geometry.contains(box):
        return np.ones(window.shape, bool)
    affine = grid.affine @ Affine.translation(window.x0, window.y0)
    drawn: NDArray[np.uint8] = rasterize([(geometry, 1)], out_shape=window.shape, transform=affine, dtype="uint8")
    return drawn.astype(bool)


def _read_item(
    grid: Grid, window: Window, source: SceneItem
) -> tuple[Window, NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Part of the window that an Item covers: (3, h, w) uint8, seen (h, w), hidden by its mask (h, w)."""
    part = window & _pixel_bounds(grid, source.footprint)
    if part.empty:
        return None
    item, profile = source.item, source.profile
    wanted: dict[str, list[Band]] = {}
    for band in profile.bands:
        bands = wanted.setdefault(pick_asset(item, band.assets), [])
        if band.index not in [other.index for other in bands]:
            bands.append(band)
    raw: dict[tuple[str, int], tuple[NDArray[Any], NDArray[np.bool_]]] = {}
    for key, bands in wanted.items():
        indexes = [band.index for band in bands]
        values, nodata = _read_asset(grid, part, item, key, indexes, profile.resampling, profile.nodata)
        for number, index in enumerate(indexes):
            raw[key, index] = values[number], _seen(values[number], nodata)
    channels = np.empty((3, *part.shape), np.uint8)
    seen = np.ones(part.shape, bool)
    for channel, band in enumerate(profile.bands):
        values, present = raw[pick_asset(item, band.assets), band.index]
        channels[channel] = to_8bit(values, band)
        seen &= present
    channels[:, ~seen] = 0
    hidden = _hidden(grid, part, item, profile.mask) if profile.mask else np.zeros(part.shape, bool)
    return part, channels, seen, hidden


def to_8bit(values: NDArray[Any], band: Band) -> NDArray[np.uint8]:
    """Scale stored values to 0..255 as the band says; same shape. Not a number becomes 0."""
    if values.dtype in (np.uint8, np.uint16):
        if values.dtype == np.uint8 and (band.low, band.high, band.scale) == (0, 255, "linear"):
            return values
        table: NDArray[np.uint8] = _table(band, values.dtype.str)[values]
        return table
    return _scale(values, band)


@lru_cache(maxsize=32)
def _table(band: Band, dtype: str) -> NDArray[np.uint8]:
    return _scale(np.arange(np.iinfo(dtype).max + 1, dtype=np.float64), band)


def _scale(values: NDArray[Any], band: Band) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore"):
        if band.scale == "amplitude_db":
            values = 20 * np.log10(values)
        elif band.scale == "power_db":
            values = 10 * np.log10(values)
        scaled = (values - band.low) * (255 / (band.high - band.low)) + 0.5
        return np.nan_to_num(np.clip(scaled, 0, 255), nan=0).astype(np.uint8)


def _seen(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    seen = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    return seen if nodata is None or np.isnan(nodata) else seen & (values != nodata)


def _hidden(grid: Grid, part: Window, item: pystac.Item, mask: Mask) -> NDArray[np.bool_]:
    values, _ = _read_asset(grid, part, item, pick_asset(item, mask.assets), [1], "nearest")
    flags = np.nan_to_num(values[0], nan=0).astype(np.int64)
    hidden = np.isin(flags, mask.values)
    for bit in mask.bits:
        hidden |= (flags >> bit) & 1 == 1
    return hidden


def _read_asset(
    grid: Grid, part: Window, item: pystac.Item, key: str, indexes: list[int], resampling: str,
    nodata: float | None = None,
) -> tuple[NDArray[Any], float | None]:  # fmt: skip
    """Bands of an asset on a window of the grid, (B, h, w), and the value that means no data.

    `nodata` takes the place of the file's own.
    """
    with open_asset(item, key) as raster:
        if max(indexes) > raster.count:
            raise SourceError(
                f"asset {key} of item {item.id} has {raster.count} bands, its collection's profile reads band "
                f"{max(indexes)}; mend source.profiles"
            )
        if nodata is None and raster.nodata is not None:
            nodata = float(raster.nodata)
        if raster.crs is None:
            return _read_by_points(grid, part, raster, item, key, indexes, resampling, nodata), float("nan")
        offset = _offset(NativeGrid(raster.crs, raster.transform, raster.shape), grid)
        if offset is not None:
            return _read_straight(part, raster, offset, indexes, nodata)
    return _read_by_odc(grid, part, item, key, indexes, resampling, nodata), float("nan")


def _offset(native: NativeGrid, grid: Grid) -> tuple[int, int] | None:
    """Row and column of the asset's first pixel in the grid; None where the two do not align."""
    if native.crs != _crs(grid.crs):
        return None
    ours, theirs = grid.affine, native.transform
    size = max(native.shape)
    if (
        theirs.b
        or theirs.d
        or abs(theirs.a / ours.a - 1) * size > ALIGNED_PX
        or abs(theirs.e / ours.e - 1) * size > ALIGNED_PX
    ):
        return None
    col, row = ~ours @ (theirs.c, theirs.f)
    if abs(col - round(col)) > ALIGNED_PX or abs(row - round(row)) > ALIGNED_PX:
        return None
    return round(row), round(col)


@lru_cache(maxsize=64)
def _crs(text: str) -> CRS:
    return CRS.from_user_input(text)


def _read_straight(
    part: Window, raster: DatasetReader, offset: tuple[int, int], indexes: list[int], nodata: float | None
) -> tuple[NDArray[Any], float | None]:
    row, col = offset
    there = part & Window(row, col, row + raster.height, col + raster.width)
    if there.shape == part.shape:
        return raster.read(indexes, window=RasterWindow(part.x0 - col, part.y0 - row, *part.shape[::-1])), nodata
    # The footprint reaches past the file: what is missing must not look like data.
    values = np.full((len(indexes), *part.shape), np.nan, np.float32)
    if not there.empty:
        read = raster.read(indexes, window=RasterWindow(there.x0 - col, there.y0 - row, *there.shape[::-1]))
        values[(slice(None), *there.within(part))] = read
    return values, nodata


def _read_by_points(
    grid: Grid,
    part: Window,
    raster: DatasetReader,
    item: pystac.Item,
    key: str,
    indexes: list[int],
    resampling: str,
    nodata: float | None,
) -> NDArray[np.float32]:
    native = header_grid(raster, item, key)
    points, crs = raster.gcps
    scale = min(native.transform.a / abs(grid.transform[0]), 1.0)
    values = np.full((len(indexes), *part.shape), np.nan, np.float32)
    whole = _cells_around(part)
    for y0 in range(whole.y0, whole.y1, CELL_PX):
        for x0 in range(whole.x0, whole.x1, CELL_PX):
            cell = Window(y0, x0, y0 + CELL_PX, x0 + CELL_PX)
            warped = np.full((len(indexes), CELL_PX, CELL_PX), np.nan, np.float32)
            # Not a WarpedVRT: given a target grid, that passes over the points. Exact, since GDAL's usual
            # approximation (0.125 px) shows where two cells meet.
            reproject(
                rasterio.band(raster, indexes), warped, gcps=points, src_crs=crs, src_nodata=nodata,
                dst_crs=_crs(grid.crs), dst_transform=grid.geobox(cell).affine, dst_nodata=float("nan"),
                resampling=Resampling[resampling], tolerance=0, XSCALE=scale, YSCALE=scale,
            )  # fmt: skip
            here = cell & part
            values[(slice(None), *here.within(part))] = warped[(slice(None), *here.within(cell))]
    return values


def _cells_around(part: Window) -> Window:
    """The whole cells of the grid that hold a window."""
    y0, x0 = part.y0 // CELL_PX * CELL_PX, part.x0 // CELL_PX * CELL_PX
    return Window(y0, x0, -(-part.y1 // CELL_PX) * CELL_PX, -(-part.x1 // CELL_PX) * CELL_PX)


def _read_by_odc(
    grid: Grid, part: Window, item: pystac.Item, key: str, indexes: list[int], resampling: str, nodata: float | None
) -> NDArray[np.float32]:
    """Through odc-stac. The Item it sees declares each band, since an undeclared one is left out silently."""
    import odc.stac

    names = [f"b{index}" for index in range(1, max(indexes) + 1)]
    bare = pystac.Item(
        item.id, item.geometry, item.bbox, item.datetime or item.common_metadata.start_datetime, {},
        stac_extensions=[
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
    )  # fmt: skip
    declared = {"data_type": "float32"} | ({} if nodata is None else {"nodata": nodata})
    fields = {"eo:bands": [{"name": name} for name in names], "raster:bands": [declared for _ in names]}
    bare.add_asset(
        key, pystac.Asset(item.assets[key].href, media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
    )
    wanted = [names[index - 1] for index in indexes]
    odc.stac.configure_rio(**gdal_options())
    whole = _cells_around(part)
    try:
        lazy = odc.stac.load(
            [bare], bands=wanted, geobox=grid.geobox(whole), chunks={"x": CELL_PX, "y": CELL_PX}, resampling=resampling,
            dtype="float32", nodata=float("nan"), stac_cfg={"*": {"assets": {"*": declared}}},
        )  # fmt: skip
        loaded = lazy.isel(time=0).compute(scheduler="synchronous")
    except (RasterioError, OSError, ValueError) as error:
        where = f"asset {key} of item {item.id} ({without_query(item.assets[key].href)})"
        raise SourceError(f"{where} cannot be read: {without_query(str(error))}") from error
    return np.stack([loaded[name].values[part.within(whole)] for name in wanted])


def _pixel_bounds(grid: Grid, geometry: BaseGeometry) -> Window:
    """Pixels of the grid that a geometry of its CRS touches."""
    if geometry.is_empty:
        return Window(0, 0, 0, 0)
    west, south, east, north = geometry.bounds
    corners = [~grid.affine @ point for point in ((west, south), (west, north), (east, south), (east, north))]
    cols, rows = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return Window(
        int(np.floor(min(rows) + ALIGNED_PX)),
        int(np.floor(min(cols) + ALIGNED_PX)),
        int(np.ceil(max(rows) - ALIGNED_PX)),
        int(np.ceil(max(cols) - ALIGNED_PX)),
    )
