"""Mosaics or composes the Items of a window into a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.spec import Compose
from earthgptx.pipeline.reading.composite import median
from earthgptx.pipeline.reading.item import ItemPixels, SceneItem, pixel_bounds, read_item


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Mosaicked pixels of a window of H x W."""

    window: Window
    pixels: NDArray[np.uint8]
    """(3, H, W), 0 where not valid."""
    valid: NDArray[np.bool_]
    """(H, W). True where an Item has unmasked data."""
    source: NDArray[np.int16]
    """(H, W). Number of the Item that each valid pixel shows, among those read; -1 elsewhere, and
    everywhere in a median."""
    masked: NDArray[np.bool_]
    """(H, W). True where Items have data, but all of it is masked as cloud or shadow."""
    broken: NDArray[np.bool_]
    """(H, W). True where an Item could not be read and no other Item has unmasked data."""
    errors: tuple[str, ...]
    """Reason why an Item could not be read, one sentence per Item."""
    unreachable: bool
    """Whether an Item could not be read because its server refused or did not answer."""


def read_scene(
    grid: Grid,
    window: Window,
    items: list[SceneItem],
    *,
    compose: Compose = "first",
    patient: bool = False,
) -> Scene:
    """Mosaics Items over a window; the first unmasked pixel with data wins, or the median of all.

    An Item that cannot be read does not stop the others; its footprint becomes `broken`.

    Args:
        grid: target grid.
        window: window of the grid.
        items: Items in mosaic order.
        compose: `median`, or anything else for the mosaic, whose order `items` has already.
        patient: whether to raise the error of an Item that may be readable soon.

    Raises:
        SourceError: `patient` is set, and an Item cannot be read, which may pass.
    """
    if compose == "median":
        return _median_scene(grid, window, items, patient=patient)
    pixels = np.zeros((3, *window.shape), np.uint8)
    valid, clouded, broken = (np.zeros(window.shape, bool) for _ in range(3))
    source = np.full(window.shape, -1, np.int16)
    errors: list[str] = []
    unreachable = False
    for number, scene_item in enumerate(items):
        part = window & pixel_bounds(grid, scene_item.footprint)
        part = _unfilled(part, window, valid)
        if part.empty:
            continue
        try:
            found = read_item(grid, part, scene_item)
        except SourceError as error:
            if patient and error.passing:
                raise
            errors.append(str(error))
            unreachable |= error.unreachable
            broken |= inside(scene_item.footprint, grid, window)
            continue
        at = found.window.within(window)
        # `a > b` is `a & ~b` in one pass.
        fresh = (found.valid > found.hidden) > valid[at]
        if fresh.all():
            if found.window == window:
                pixels = found.channels  # nothing was there before: no copy
            else:
                pixels[(slice(None), *at)] = found.channels
            source[at] = number
        else:
            np.copyto(pixels[(slice(None), *at)], found.channels, where=fresh)
            np.copyto(source[at], number, where=fresh)
        valid[at] |= fresh
        clouded[at] |= found.valid & found.hidden
    return Scene(
        window=window,
        pixels=pixels,
        valid=valid,
        source=source,
        masked=clouded > valid,
        broken=broken > valid,
        errors=tuple(errors),
        unreachable=unreachable,
    )


def _median_scene(grid: Grid, window: Window, items: list[SceneItem], *, patient: bool) -> Scene:
    """Returns the median of all Items; where one of them cannot be read, nothing is valid."""
    errors: dict[str, str] = {}
    unreachable = False
    broken = np.zeros(window.shape, bool)

    def read(part: Window, scene_item: SceneItem) -> ItemPixels | None:
        nonlocal unreachable
        if scene_item.item.id in errors:
            return None  # asked once
        try:
            return read_item(grid, part, scene_item)
        except SourceError as error:
            if patient and error.passing:
                raise
            errors[scene_item.item.id] = str(error)
            unreachable |= error.unreachable
            broken[...] |= inside(scene_item.footprint, grid, window)
            return None

    found = median(grid, window, items, read)
    valid = (found.count > 0) & ~broken
    return Scene(
        window=window,
        pixels=np.where(valid, found.pixels, 0).astype(np.uint8),
        valid=valid,
        source=np.full(window.shape, -1, np.int16),
        masked=found.hidden & ~valid & ~broken,
        broken=broken,
        errors=tuple(errors.values()),
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
