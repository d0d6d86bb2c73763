"""Reads one Item of a scene: its bands scaled to 8 bit, its no-data pixels and its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.profiles import Band, CollectionProfile, Mask
from earthgptx.catalogs.radiometry import Radiometry, radiometry_of
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.assets import annotation_of, pick_asset
from earthgptx.pipeline.reading.calibration import gain
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


@dataclass(frozen=True, slots=True)
class ItemPixels:
    """The part of a window that one Item covers, h x w."""

    window: Window
    channels: NDArray[np.uint8]
    """(3, h, w)."""
    valid: NDArray[np.bool_]
    """(h, w). True where all bands have data."""
    hidden: NDArray[np.bool_] | None
    """(h, w). True where the Item's mask flags cloud or shadow; None if it has no mask."""


def read_item(grid: Grid, part: Window, source: SceneItem) -> ItemPixels:
    """Reads a window inside the bounds of an Item.

    Raises:
        SourceError: it cannot be read, or its values are none that can be scaled.
    """
    try:
        return _read_item(grid, part, source)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A file or an Item may be odd in any way; that breaks its own ground only.
        raise SourceError(
            f"item {source.item.id} cannot be read as its collection's profile says "
            f"({type(error).__name__}: {error})"
        ) from error


def _read_item(grid: Grid, part: Window, source: SceneItem) -> ItemPixels:
    item, profile = source.item, source.profile
    raw = _read_bands(grid, part, source)
    planes: list[NDArray[np.uint8]] = []
    gains: dict[str, NDArray[np.float32]] = {}
    valid: NDArray[np.bool_] | None = None
    for band in profile.bands:
        key = pick_asset(item, band.assets)
        asset = raw[key]
        at = asset.indexes.index(band.index)
        values, present = asset.bands[at], asset.present[at]
        radiometry = radiometry_of(item, key, band, profile)
        annotation = annotation_of(item, band)
        if annotation:
            if annotation not in gains:
                gains[annotation] = gain(grid, part, item, key, annotation, source.opening)
            values, radiometry = values / gains[annotation], Radiometry()
        planes.append(to_8bit(values, band, radiometry))
        if present is not None:
            valid = present if valid is None else valid & present
    channels = _stacked(planes, raw)
    if valid is None:
        valid = np.ones(part.shape, bool)
    else:
        channels[:, ~valid] = 0
    hidden = _hidden(grid, part, source, profile.mask) if profile.mask else None
    return ItemPixels(part, channels, valid, hidden)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Bands of one asset."""

    indexes: tuple[int, ...]
    values: NDArray[Any]
    """(B, h, w), as stored."""
    bands: tuple[NDArray[Any], ...]
    """Views of `values`, (h, w) per band."""
    present: tuple[NDArray[np.bool_] | None, ...]
    """(h, w) per band: where it has data; None where all of it is data."""


def _stacked(planes: list[NDArray[np.uint8]], raw: dict[str, _Stored]) -> NDArray[np.uint8]:
    """Returns the three channels as one array; as the one that was read, if they are its bands."""
    for asset in raw.values():
        # What needs no scaling is handed through by `to_8bit`.
        if [id(plane) for plane in planes] == [id(band) for band in asset.bands]:
            read: NDArray[np.uint8] = asset.values
            return read
    return np.stack(planes)


def _read_bands(grid: Grid, part: Window, source: SceneItem) -> dict[str, _Stored]:
    """Returns the bands that a profile reads, by asset key.

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
        planes = tuple(values)
        raw[key] = _Stored(indexes, values, planes, tuple(_is_data(one, nodata) for one in planes))
    return raw


def _is_data(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """Returns where values are data; None if nothing can say that they are not."""
    finite = np.isfinite(values) if values.dtype.kind == "f" else None
    if nodata is None or np.isnan(nodata):
        return finite
    return values != nodata if finite is None else finite & (values != nodata)


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


def pixel_bounds(grid: Grid, geometry: BaseGeometry) -> Window:
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
