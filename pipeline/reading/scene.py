"""Reads the Items of a window, scales them to 8 bit and mosaics them into a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.profiles import Band, CollectionProfile, Mask
from earthgptx.catalogs.radiometry import radiometry_of
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.assets import pick_asset
from earthgptx.pipeline.reading.scaling import to_8bit
from earthgptx.pipeline.reading.warping import BandRequest
from earthgptx.pipeline.reading.window import ALIGNED_PX, read_window


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneItem:
    """An Item, with its profile and footprint, and what is needed to open it."""

    item: pystac.Item
    opening: Opening
    profile: CollectionProfile
    footprint: BaseGeometry
    """Footprint in the CRS of the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Mosaicked pixels of a window of H x W."""

    window: Window
    pixels: NDArray[np.uint8]
    """(3, H, W), 0 where not valid."""
    valid: NDArray[np.bool_]
    """(H, W). True where an Item has unmasked data."""
    source: NDArray[np.int16]
    """(H, W). Number of the Item that each valid pixel shows, among those read; -1 elsewhere."""
    masked: NDArray[np.bool_]
    """(H, W). True where Items have data, but all of it is masked as cloud or shadow."""
    broken: NDArray[np.bool_]
    """(H, W). True where an Item could not be read and no other Item has unmasked data."""
    errors: tuple[str, ...]
    """Reason why an Item could not be read, one sentence per Item."""
    unreachable: bool
    """Whether an Item could not be read because its server refused or did not answer."""


@dataclass(frozen=True, slots=True)
class _ItemPixels:
    """The part of a window that one Item covers, h x w."""

    window: Window
    channels: NDArray[np.uint8]
    """(3, h, w)."""
    valid: NDArray[np.bool_]
    """(h, w). True where all bands have data."""
    hidden: NDArray[np.bool_]
    """(h, w). True where the Item's mask flags cloud or shadow."""


def read_scene(
    grid: Grid, window: Window, items: list[SceneItem], *, patient: bool = False
) -> Scene:
    """Mosaics Items over a window; the first unmasked pixel with data wins.

    An Item that cannot be read does not stop the others; its footprint becomes `broken`.

    Args:
        grid: target grid.
        window: window of the grid.
        items: Items in mosaic order.
        patient: whether to raise the error of an Item that may be readable soon.

    Raises:
        SourceError: `patient` is set, and an Item cannot be read, which may pass.
    """
    pixels = np.zeros((3, *window.shape), np.uint8)
    valid, clouded, broken = (np.zeros(window.shape, bool) for _ in range(3))
    source = np.full(window.shape, -1, np.int16)
    errors: list[str] = []
    unreachable = False
    for number, scene_item in enumerate(items):
        part = window & _pixel_bounds(grid, scene_item.footprint)
        part = _unfilled(part, window, valid)
        if part.empty:
            continue
        try:
            found = _read_item(grid, part, scene_item)
        except SourceError as error:
            if patient and error.passing:
                raise
            errors.append(str(error))
            unreachable |= error.unreachable
            broken |= inside(scene_item.footprint, grid, window)
            continue
        at = found.window.within(window)
        fresh = found.valid & ~found.hidden & ~valid[at]
        if fresh.all():
            pixels[(slice(None), *at)] = found.channels
        else:
            np.copyto(pixels[(slice(None), *at)], found.channels, where=fresh)
        valid[at] |= fresh
        source[at][fresh] = number
        clouded[at] |= found.valid & found.hidden
    return Scene(
        window=window,
        pixels=pixels,
        valid=valid,
        source=source,
        masked=clouded & ~valid,
        broken=broken & ~valid,
        errors=tuple(errors),
        unreachable=unreachable,
    )


def inside(geometry: BaseGeometry, grid: Grid, window: Window) -> NDArray[np.bool_]:
    """Returns where pixel centres of a window lie in a geometry in the grid's CRS, (H, W) bool."""
    box = grid.geobox(window).extent.geom
    if geometry.is_empty or not geometry.intersects(box):
        return np.zeros(window.shape, bool)
    if geometry.contains(box):
        return np.ones(window.shape, bool)
    affine = grid.affine @ Affine.translation(window.x0, window.y0)
    drawn: NDArray[np.uint8] = rasterize(
        [(geometry, 1)], out_shape=window.shape, transform=affine, dtype="uint8"
    )
    return drawn.astype(bool)


def _unfilled(part: Window, window: Window, valid: NDArray[np.bool_]) -> Window:
    """Returns the smallest part of a window that holds all of its pixels without data.

    Args:
        part: part of the window that an Item covers.
        window: whole window.
        valid: (H, W), pixels of the whole window that have data.
    """
    if part.empty:
        return part
    missing = ~valid[part.within(window)]
    rows, cols = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    if not rows.size:
        return Window(0, 0, 0, 0)
    y0, x0 = part.y0, part.x0
    return Window(
        y0 + int(rows[0]), x0 + int(cols[0]), y0 + int(rows[-1]) + 1, x0 + int(cols[-1]) + 1
    )


def _read_item(grid: Grid, part: Window, source: SceneItem) -> _ItemPixels:
    """Reads a window inside the bounds of an Item."""
    item, profile = source.item, source.profile
    raw = _read_bands(grid, part, source)
    channels = np.empty((3, *part.shape), np.uint8)
    valid = np.ones(part.shape, bool)
    for channel, band in enumerate(profile.bands):
        key = pick_asset(item, band.assets)
        values, present = raw[key, band.index]
        channels[channel] = to_8bit(values, band, radiometry_of(item, key, band, profile))
        valid &= present
    channels[:, ~valid] = 0
    hidden = np.zeros(part.shape, bool)
    if profile.mask:
        hidden = _hidden(grid, part, source, profile.mask)
    return _ItemPixels(part, channels, valid, hidden)


def _read_bands(
    grid: Grid, part: Window, source: SceneItem
) -> dict[tuple[str, int], tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Returns stored values (h, w) and their data mask (h, w), by asset key and band index.

    Reads the bands of one asset together, and a band that serves several channels only once.
    """
    item, profile = source.item, source.profile
    wanted: dict[str, list[Band]] = {}
    for band in profile.bands:
        bands = wanted.setdefault(pick_asset(item, band.assets), [])
        if band.index not in [other.index for other in bands]:
            bands.append(band)
    raw = {}
    for key, bands in wanted.items():
        indexes = tuple(band.index for band in bands)
        nodata = radiometry_of(item, key, bands[0], profile).nodata
        request = BandRequest(item, key, indexes, source.opening, profile.resampling, nodata)
        values, nodata = read_window(grid, part, request)
        for number, index in enumerate(indexes):
            raw[key, index] = values[number], _is_data(values[number], nodata)
    return raw


def _is_data(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    known = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    return known if nodata is None or np.isnan(nodata) else known & (values != nodata)


def _hidden(grid: Grid, part: Window, source: SceneItem, mask: Mask) -> NDArray[np.bool_]:
    """Returns where an Item's mask flags cloud or shadow, (h, w) bool."""
    key = pick_asset(source.item, mask.assets)
    request = BandRequest(source.item, key, (1,), source.opening, "nearest")
    values, _ = read_window(grid, part, request)
    flags = np.nan_to_num(values[0], nan=0).astype(np.int64)
    hidden = np.isin(flags, mask.values)
    for bit in mask.bits:
        hidden |= (flags >> bit) & 1 == 1
    return hidden


def _pixel_bounds(grid: Grid, geometry: BaseGeometry) -> Window:
    """Returns the window of the grid that covers the bounds of a geometry in its CRS."""
    if geometry.is_empty:
        return Window(0, 0, 0, 0)
    west, south, east, north = geometry.bounds
    points = ((west, south), (west, north), (east, south), (east, north))
    corners = [~grid.affine @ point for point in points]
    cols, rows = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return Window(
        int(np.floor(min(rows) + ALIGNED_PX)),
        int(np.floor(min(cols) + ALIGNED_PX)),
        int(np.ceil(max(rows) - ALIGNED_PX)),
        int(np.ceil(max(cols) - ALIGNED_PX)),
    )
