"""Visual prompts for the tiles of one block: from a grid, superpixels, CFAR, or a vector file.

A prompt belongs only to the tile whose core holds its centre. If the tile cannot answer for the
whole prompt, a separate view around the prompt is used, on coarser pixels where needed (zoom-out).
"""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point
from earthgptx.pipeline.analysis.cfar import FLOOR, Cfar, background_limit, cfar_scores
from earthgptx.pipeline.job.grid import Grid, Tile, View, Window
from earthgptx.pipeline.planning.blocks import PlacedPrompt
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import Scene


def tile_prompts(
    plan: Plan, grid: Grid, tile: Tile, scene: Scene, placed: tuple[PlacedPrompt, ...]
) -> tuple[VisualPrompt, ...]:
    """Returns the prompts that a tile can answer for, in tile pixels.

    Args:
        plan: plan, which says where prompts come from.
        grid: grid of the tile.
        tile: tile whose window lies within the scene's.
        scene: scene of the block.
        placed: prompts of the block from a vector file.
    """
    origin, spacing = plan.spec.prompts.origin, plan.spec.prompts.spacing_px
    if not plan.spec.tasks.refer or origin == "none":
        return ()
    if origin == "grid":
        return _grid(grid, tile, scene, spacing)
    if origin == "superpixels":
        return _superpixels(grid, tile, scene, spacing)
    if origin == "cfar":
        limit = background_limit(plan.modality, tuple(plan.spec.tasks.find))
        return _cfar(grid, tile, scene, FLOOR[plan.modality], limit)
    own = View(tile.window)
    return tuple(
        _drawn(grid, own, each)
        for each in placed
        if is_own(grid, tile, each) and widened(grid, tile, each, plan.traits.context_px) == own
    )


def wide_prompts(
    plan: Plan, grid: Grid, tile: Tile, placed: tuple[PlacedPrompt, ...]
) -> tuple[tuple[View, VisualPrompt], ...]:
    """Returns the tile's prompts that need another view, as (view, prompt in pixels of the view).

    Args:
        plan: plan of the run.
        grid: grid of the tile.
        tile: tile that the prompts belong to.
        placed: prompts of the block from a vector file.
    """
    if not plan.spec.tasks.refer:
        return ()
    own = View(tile.window)
    return tuple(
        (view, _drawn(grid, view, each))
        for each in placed
        if is_own(grid, tile, each)
        and (view := widened(grid, tile, each, plan.traits.context_px)) != own
    )


def widened(grid: Grid, tile: Tile, placed: PlacedPrompt, context_px: int) -> View:
    """Returns the tile as a view if it can answer for the whole prompt, else a view around it.

    A view around a prompt has the finest pixels on which the prompt fits. They lie on the CRS's
    lattice, so that they do not depend on the AOI.

    Args:
        grid: grid of the tile.
        tile: tile that the prompt belongs to.
        placed: the prompt.
        context_px: pixels at a view's border that the model does not answer for.
    """
    x0, y0, x1, y1 = _bounds(grid, placed)
    inner = tile.window.grown(-context_px)
    if inner.x0 <= x0 and inner.y0 <= y0 and x1 <= inner.x1 and y1 <= inner.y1:
        return View(tile.window)
    side, factor = grid.tile_px, 1
    while max(x1 - x0, y1 - y0) > (side - 2 * context_px - 2) * factor:
        factor *= 2
    row, col = (
        math.floor(((low + high) / 2 + first) / factor - side / 2) * factor - first
        for low, high, first in ((y0, y1, grid.lattice[0]), (x0, x1, grid.lattice[1]))
    )
    return View(Window(row, col, row + side * factor, col + side * factor), factor)


def _name(kind: str, grid: Grid, row: float, col: float) -> str:
    """Returns an id that depends only on the place: the pixel's row and column on the lattice."""
    return f"{kind}-{grid.name}-{int(row) + grid.lattice[0]}-{int(col) + grid.lattice[1]}"


def _grid(grid: Grid, tile: Tile, scene: Scene, spacing: int) -> tuple[VisualPrompt, ...]:
    core = tile.core
    rows = [
        row for row in range(core.y0, core.y1) if (row + grid.lattice[0]) % spacing == spacing // 2
    ]
    cols = [
        col for col in range(core.x0, core.x1) if (col + grid.lattice[1]) % spacing == spacing // 2
    ]
    valid, window = scene.valid, scene.window
    return tuple(
        VisualPrompt(
            id=_name("grid", grid, row, col),
            place=Point(col - tile.window.x0 + 0.5, row - tile.window.y0 + 0.5),
        )
        for row in rows
        for col in cols
        if valid[row - window.y0, col - window.x0]
    )


def _superpixels(grid: Grid, tile: Tile, scene: Scene, spacing: int) -> tuple[VisualPrompt, ...]:
    from skimage.segmentation import slic

    at = tile.core.within(scene.window)
    valid = scene.valid[at]
    if not valid.any():
        return ()
    count = max(1, round(valid.sum() / spacing**2))
    labels = valid.astype(np.int32)  # slic cannot make a single segment
    if count > 1:
        labels = slic(
            np.moveaxis(scene.pixels[(slice(None), *at)], 0, -1),
            n_segments=count,
            mask=valid,
            start_label=1,
        )
    dy, dx = tile.core.y0 - tile.window.y0, tile.core.x0 - tile.window.x0
    return _components("superpixel", grid, tile, labels, dy, dx)


def _cfar(
    grid: Grid, tile: Tile, scene: Scene, floor: float, max_background: int
) -> tuple[VisualPrompt, ...]:
    at = tile.window.within(scene.window)
    scores = cfar_scores(
        scene.pixels[(slice(None), *at)],
        scene.valid[at],
        floor=floor,
        max_background=max_background,
    )
    labels, count = ndimage.label(scores >= 128, structure=np.ones((3, 3)))
    traits = Cfar.traits()
    highest = ndimage.maximum(scores, labels, index=np.arange(count + 1))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = (
        (highest >= traits.min_score * 255)
        & (sizes >= traits.min_area_px)
        & (sizes <= traits.max_area_px)
    )
    kept[0] = False
    return _components("cfar", grid, tile, np.where(kept[labels], labels, 0), 0, 0)


def _components(
    kind: str, grid: Grid, tile: Tile, labels: NDArray[np.int32], dy: int, dx: int
) -> tuple[VisualPrompt, ...]:
    prompts = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        mask = Mask.from_array(
            labels[window] == number, y0=window[0].start + dy, x0=window[1].start + dx
        )
        row, col = tile.window.y0 + mask.centre.y, tile.window.x0 + mask.centre.x
        if tile.core.y0 <= row < tile.core.y1 and tile.core.x0 <= col < tile.core.x1:
            prompts.append(VisualPrompt(id=_name(kind, grid, row, col), place=mask))
    return tuple(prompts)


def _bounds(grid: Grid, placed: PlacedPrompt) -> tuple[float, float, float, float]:
    """Returns the left, top, right and bottom edge of a prompt in pixels of the grid."""
    west, south, east, north = placed.shape.bounds
    (x0, y0), (x1, y1) = ~grid.affine @ (west, north), ~grid.affine @ (east, south)
    return x0, y0, x1, y1


def is_own(grid: Grid, tile: Tile, placed: PlacedPrompt) -> bool:
    """Whether a prompt from a vector file belongs to a tile: its core holds the centre."""
    x0, y0, x1, y1 = _bounds(grid, placed)
    core = tile.core
    return core.y0 <= (y0 + y1) / 2 < core.y1 and core.x0 <= (x0 + x1) / 2 < core.x1


def _drawn(grid: Grid, view: View, placed: PlacedPrompt) -> VisualPrompt:
    """Converts a prompt from a vector file to pixels of a view."""
    seen = grid.for_view(view)
    x0, y0, x1, y1 = _bounds(seen, placed)
    if placed.shape.geom_type == "Point":
        return VisualPrompt(id=placed.id, place=Point(x0, y0))
    to_view = ~seen.affine
    moved = shapely.affinity.affine_transform(
        placed.shape, [to_view.a, to_view.b, to_view.d, to_view.e, to_view.c, to_view.f]
    )
    if (
        moved.geom_type == "Polygon"
        and moved.envelope.symmetric_difference(moved).area < 0.01 * moved.area
    ):
        return VisualPrompt(id=placed.id, place=Box(x0, y0, x1, y1))
    for all_touched in (False, True):
        drawn = rasterize(
            [(moved, 1)], out_shape=seen.shape, all_touched=all_touched, dtype="uint8"
        ).astype(bool)
        if drawn.any():
            return VisualPrompt(id=placed.id, place=Mask.from_array(drawn))
    return VisualPrompt(id=placed.id, place=Point((x0 + x1) / 2, (y0 + y1) / 2))
