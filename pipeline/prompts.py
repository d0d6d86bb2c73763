"""Visual prompts for the tiles of one block: from a grid, superpixels, CFAR, or a vector file.

A prompt belongs to the tile whose core holds its centre, and to no other.
"""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from model.prompt import VisualPrompt
from model.region import Box, Mask, Point
from pipeline.cfar import FLOOR, Cfar, background_limit, cfar_scores
from pipeline.grid import Grid, Tile
from pipeline.plan import PlacedPrompt, Plan
from pipeline.scene import Scene


def tile_prompts(
    plan: Plan, grid: Grid, tile: Tile, scene: Scene, placed: tuple[PlacedPrompt, ...]
) -> tuple[VisualPrompt, ...]:
    """Prompts of a tile, in tile pixels.

    Args:
        plan: says where prompts come from.
        grid: of the tile.
        tile: its window must lie within the scene's.
        scene: pixels of the block.
        placed: the block's prompts from a vector file.
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
    return tuple(prompt for each in placed if (prompt := _from_shape(grid, tile, each)) is not None)


def _name(kind: str, grid: Grid, row: float, col: float) -> str:
    """An id from the place alone: the number of a pixel among all of its CRS."""
    return f"{kind}-{grid.name}-{int(row) + grid.lattice[0]}-{int(col) + grid.lattice[1]}"


def _grid(grid: Grid, tile: Tile, scene: Scene, spacing: int) -> tuple[VisualPrompt, ...]:
    core = tile.core
    rows = [row for row in range(core.y0, core.y1) if (row + grid.lattice[0]) % spacing == spacing // 2]
    cols = [col for col in range(core.x0, core.x1) if (col + grid.lattice[1]) % spacing == spacing // 2]
    valid, window = scene.valid, scene.window
    return tuple(
        VisualPrompt(
            id=_name("grid", grid, row, col), place=Point(col - tile.window.x0 + 0.5, row - tile.window.y0 + 0.5)
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
    labels = valid.astype(np.int32)  # of one segment, slic makes none
    if count > 1:
        labels = slic(np.moveaxis(scene.pixels[(slice(None), *at)], 0, -1), n_segments=count, mask=valid, start_label=1)
    dy, dx = tile.core.y0 - tile.window.y0, tile.core.x0 - tile.window.x0
    return _components("superpixel", grid, tile, labels, dy, dx)


def _cfar(grid: Grid, tile: Tile, scene: Scene, floor: float, max_background: int) -> tuple[VisualPrompt, ...]:
    at = tile.window.within(scene.window)
    scores = cfar_scores(scene.pixels[(slice(None), *at)], scene.valid[at], floor=floor, max_background=max_background)
    labels, count = ndimage.label(scores >= 128, structure=np.ones((3, 3)))
    traits = Cfar.traits()
    highest = ndimage.maximum(scores, labels, index=np.arange(count + 1))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = (highest >= traits.min_score * 255) & (sizes >= traits.min_area_px) & (sizes <= traits.max_area_px)
    kept[0] = False
    return _components("cfar", grid, tile, np.where(kept[labels], labels, 0), 0, 0)


def _components(
    kind: str, grid: Grid, tile: Tile, labels: NDArray[np.int32], dy: int, dx: int
) -> tuple[VisualPrompt, ...]:
    prompts = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        mask = Mask.from_array(labels[window] == number, y0=window[0].start + dy, x0=window[1].start + dx)
        row, col = tile.window.y0 + mask.centre.y, tile.window.x0 + mask.centre.x
        if tile.core.y0 <= row < tile.core.y1 and tile.core.x0 <= col < tile.core.x1:
            prompts.append(VisualPrompt(id=_name(kind, grid, row, col), place=mask))
    return tuple(prompts)


def _from_shape(grid: Grid, tile: Tile, placed: PlacedPrompt) -> VisualPrompt | None:
    """A prompt from a vector, where this tile is its own; drawn on the tile's pixels."""
    to_tile = ~(grid.affine @ Affine.translation(tile.window.x0, tile.window.y0))
    west, south, east, north = placed.shape.bounds
    (x0, y0), (x1, y1) = to_tile @ (west, north), to_tile @ (east, south)
    row, col = tile.window.y0 + (y0 + y1) / 2, tile.window.x0 + (x0 + x1) / 2
    if not (tile.core.y0 <= row < tile.core.y1 and tile.core.x0 <= col < tile.core.x1):
        return None
    if placed.shape.geom_type == "Point":
        return VisualPrompt(id=placed.id, place=Point(x0, y0))
    moved = shapely.affinity.affine_transform(
        placed.shape, [to_tile.a, to_tile.b, to_tile.d, to_tile.e, to_tile.c, to_tile.f]
    )
    if moved.geom_type == "Polygon" and moved.envelope.symmetric_difference(moved).area < 0.01 * moved.area:
        return VisualPrompt(id=placed.id, place=Box(x0, y0, x1, y1))
    for all_touched in (False, True):
        drawn = rasterize([(moved, 1)], out_shape=tile.window.shape, all_touched=all_touched, dtype="uint8").astype(
            bool
        )
        if drawn.any():
            return VisualPrompt(id=placed.id, place=Mask.from_array(drawn))
    return VisualPrompt(id=placed.id, place=Point((x0 + x1) / 2, (y0 + y1) / 2))
