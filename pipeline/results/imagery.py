"""The imagery that a result was made from, read again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from earthgptx.catalogs.geoparquet import thaw
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.spec import JobSpec, items_beside
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.resolve import resolve
from earthgptx.pipeline.reading.scene import read_scene
from earthgptx.pipeline.results.result import Result

STRIP_PX = 2**24
"""Pixels that are read at once, about."""


def plan_of(result: Result) -> Plan:
    """Returns the plan of a result, by its frozen Items."""
    spec = JobSpec.model_validate(result.attrs["job"] | {"output": result.url})
    return resolve(spec, items=thaw(items_beside(result.url)))


def time_of(plan: Plan, slice_name: str) -> int:
    """Returns the number of a time slice in a plan.

    Raises:
        JobError: the plan has none of that name.
    """
    for at, piece in enumerate(plan.slices):
        if piece.name == slice_name:
            return at
    raise JobError(f"the Items of the result show no time slice '{slice_name}'")


def scene_pixels(
    plan: Plan, grid: Grid, time: int, window: Window, side_px: int
) -> NDArray[np.uint8]:
    """Returns the scene of a window as (h, w, 3) uint8, on coarser pixels if it is large.

    Coarser pixels come from the overviews of the imagery. Reads strips of rows, so that a large
    scene is never held at once where it is composed of many Items.

    Args:
        plan: plan of the result.
        grid: grid of the window.
        time: number of the time slice in the plan.
        window: window of the grid, not empty.
        side_px: longest side that is returned.

    Raises:
        OutputError: the imagery of a strip cannot be read.
    """
    step = max(1, -(-max(window.shape) // side_px))
    shown = _coarser(grid, window, step)
    height, width = shown.shape
    strips = []
    rows = max(STRIP_PX // width, 1)
    for y0 in range(0, height, rows):
        strip = Window(y0, 0, min(y0 + rows, height), width)
        ground = Window(
            window.y0 + strip.y0 * step, window.x0, window.y0 + strip.y1 * step, window.x1
        )
        items = plan.scene_items(grid.name, time, ground & window)
        scene = read_scene(shown, strip, items, compose=plan.spec.compose)
        if scene.errors and not scene.valid.any():
            raise OutputError(f"the imagery cannot be read any more: {scene.errors[0]}")
        strips.append(scene.pixels)
    return np.moveaxis(np.concatenate(strips, axis=1), 0, -1)


def _coarser(grid: Grid, window: Window, step: int) -> Grid:
    """Returns a grid of just a window, on pixels of about so many of its pixels a side."""
    rows, cols = (-(-side // step) for side in window.shape)
    high, wide = window.shape
    moved = Affine.translation(window.x0, window.y0) @ Affine.scale(wide / cols, high / rows)
    return replace(
        grid,
        transform=tuple(grid.affine @ moved)[:6],
        shape=(rows, cols),
        lattice=(grid.lattice[0] + window.y0, grid.lattice[1] + window.x0),
    )
