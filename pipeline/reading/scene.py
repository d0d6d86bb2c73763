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
from earthgptx.pipeline.job.sections import Compose
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
    mosaic = _Mosaic(window)
    broken = np.zeros(window.shape, bool)
    errors: list[str] = []
    unreachable = False
    for number, scene_item in enumerate(items):
        part = window & pixel_bounds(grid, scene_item.footprint)
        if not mosaic.blank:
            part = _unfilled(part, window, mosaic.valid)
        if part.empty:
            continue
        try:
            mosaic.add(number, read_item(grid, part, scene_item))
        except SourceError as error:
            if patient and error.passing:
                raise
            errors.append(str(error))
            unreachable |= error.unreachable
            broken |= inside(scene_item.footprint, grid, window)
    return Scene(
        window=window,
        pixels=mosaic.pixels,
        valid=mosaic.valid,
        source=mosaic.source,
        masked=mosaic.clouded > mosaic.valid,
        broken=broken > mosaic.valid if errors else broken,
        errors=tuple(errors),
        unreachable=unreachable,
    )


class _Mosaic:
    """What Items have shown of a window so far; memory that nothing touches costs nothing."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.pixels = np.zeros((3, *window.shape), np.uint8)
        self.valid, self.clouded = (np.zeros(window.shape, bool) for _ in range(2))
        self.blank = True
        """Whether no Item has been taken."""
        self._source: NDArray[np.int16] | None = None

    @property
    def source(self) -> NDArray[np.int16]:
        """Number of the Item of each pixel; -1 for none."""
        if self._source is None:
            self._source = np.full(self.window.shape, -1, np.int16)
        return self._source

    def add(self, number: int, found: ItemPixels) -> None:
        """Takes the pixels of an Item where none of an earlier one is valid."""
        at = found.window.within(self.window)
        # `a > b` is `a & ~b` in one pass.
        shown = found.valid if found.hidden is None else found.valid > found.hidden
        fresh = shown if self.blank else shown > self.valid[at]
        self.blank = False
        if found.hidden is not None:
            self.clouded[at] |= found.valid & found.hidden
        if not fresh.all():
            np.copyto(self.pixels[(slice(None), *at)], found.channels, where=fresh)
            np.copyto(self.source[at], number, where=fresh)
            self.valid[at] |= fresh
        elif found.window == self.window:  # it fills the window, and nothing was there before
            self.pixels, self.valid = found.channels, fresh
            self._source = np.full(self.window.shape, number, np.int16)
        else:
            self.pixels[(slice(None), *at)] = found.channels
            self.source[at] = number
            self.valid[at] = True


def _median_scene(grid: Grid, window: Window, items: list[SceneItem], *, patient: bool) -> Scene:
    """Returns the median of all Items; where one of them cannot be read, nothing is valid."""
    errors: dict[str, str] = {}
    unreachable = False
    broken = np.zeros(window.shape, bool)

    def read(part: Window, scene_item: SceneItem) -> ItemPixels | None:
        nonlocal unreachable
        if scene_item.source.name in errors:
            return None  # asked once
        try:
            return read_item(grid, part, scene_item)
        except SourceError as error:
            if patient and error.passing:
                raise
            errors[scene_item.source.name] = str(error)
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
