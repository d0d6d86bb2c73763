"""Reads one Item of a scene: its bands scaled to 8 bit, its no-data pixels and its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.profiles import Mask
from earthgptx.catalogs.radiometry import Radiometry
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.calibration import gain
from earthgptx.pipeline.reading.scaling import to_8bit
from earthgptx.pipeline.reading.sources import Channel, Raster, Source
from earthgptx.pipeline.reading.warping import BandRequest
from earthgptx.pipeline.reading.window import ALIGNED_PX, read_window


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneItem:
    """What is read of an Item of a scene, where, and what is needed to open it."""

    source: Source
    opening: Opening
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


def read_item(grid: Grid, part: Window, scene_item: SceneItem) -> ItemPixels:
    """Reads a window inside the bounds of an Item.

    Raises:
        SourceError: it cannot be read, or its values are none that can be scaled.
    """
    try:
        return _read_item(grid, part, scene_item)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A file or an Item may be odd in any way; that breaks its own ground only.
        raise SourceError(
            f"item {scene_item.source.item} cannot be read as its collection's profile says "
            f"({type(error).__name__}: {error})"
        ) from error


def _read_item(grid: Grid, part: Window, scene_item: SceneItem) -> ItemPixels:
    source, opening = scene_item.source, scene_item.opening
    raw = _read_bands(grid, part, scene_item)
    planes: list[NDArray[np.uint8]] = []
    gains: dict[str, NDArray[np.float32]] = {}
    valid: NDArray[np.bool_] | None = None
    for channel in source.channels:
        asset, annotation = raw[channel.raster.key], channel.annotation
        at = asset.indexes.index(channel.band.index)
        values, present = asset.bands[at], asset.present[at]
        radiometry = channel.radiometry
        if annotation:
            if annotation.key not in gains:
                gains[annotation.key] = gain(grid, part, channel.raster, annotation, opening)
            values, radiometry = values / gains[annotation.key], Radiometry()
        planes.append(to_8bit(values, channel.band, radiometry))
        if present is not None:
            valid = present if valid is None else valid & present
    channels = _stacked(planes, raw)
    if valid is None:
        valid = np.ones(part.shape, bool)
    else:
        channels[:, ~valid] = 0
    hidden = _hidden(grid, part, *source.mask, opening) if source.mask else None
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


def _read_bands(grid: Grid, part: Window, scene_item: SceneItem) -> dict[str, _Stored]:
    """Returns the bands that a profile reads, by asset key.

    Reads the bands of one asset together, and a band that serves several channels only once.
    """
    wanted: dict[str, list[Channel]] = {}
    for channel in scene_item.source.channels:
        channels = wanted.setdefault(channel.raster.key, [])
        if channel.band.index not in [other.band.index for other in channels]:
            channels.append(channel)
    raw = {}
    for key, channels in wanted.items():
        indexes = tuple(channel.band.index for channel in channels)
        request = BandRequest(
            channels[0].raster,
            indexes,
            scene_item.opening,
            scene_item.source.profile.resampling,
            channels[0].radiometry.nodata,
        )
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


def _hidden(
    grid: Grid, part: Window, raster: Raster, mask: Mask, opening: Opening
) -> NDArray[np.bool_]:
    """Returns where an Item's mask flags cloud or shadow, (h, w) bool."""
    request = BandRequest(raster, (1,), opening, "nearest")
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
