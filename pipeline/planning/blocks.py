"""Finds the blocks and tiles of a plan, and the block of each prompt from a vector file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.job.grid import BlockKey, Grid
from earthgptx.pipeline.job.lonlat import LONLAT, box_centre, grown
from earthgptx.pipeline.planning.grids import Footprints
from earthgptx.pipeline.planning.projection import parse_crs, project
from earthgptx.pipeline.planning.slices import TimeSlice

MOST_COARSE = 16
"""Largest side of a view pixel in grid pixels, for prompts that are larger than a tile."""

NOWHERE = "no imagery there"
"""Reason of a prompt that no block can answer."""
BlockPlace = tuple[str, int, int]
"""Name of the grid, block row and block column."""


@dataclass(frozen=True, slots=True)
class AskedObject:
    """An object of another result, as a visual prompt."""

    id: str
    shape: BaseGeometry
    """Lon/lat."""
    time: datetime
    """When it was seen."""


@dataclass(frozen=True, slots=True)
class AskedObjects:
    """Objects of another result, as visual prompts."""

    series: str
    """Series of that result."""
    seen: Callable[[BaseGeometry, datetime, datetime], Sequence[AskedObject]]
    """Returns those that were seen in a lon/lat area, from a time to a time."""


NO_OBJECTS = AskedObjects("", lambda _area, _start, _end: ())


@dataclass(frozen=True, slots=True)
class PlacedPrompt:
    """A visual prompt from a vector file, or an object of another result."""

    id: str
    shape: BaseGeometry
    """Geometry in the grid's CRS."""
    slices: frozenset[str] | None = None
    """Names of the time slices that are asked about it; None for all."""


def blocks_of_slice(
    grids: dict[str, Grid], footprints: dict[str, Footprints], piece: TimeSlice, time: int
) -> tuple[tuple[BlockKey, ...], int]:
    """Returns the blocks where a slice's Items show the answer area, and the number of such tiles.

    A tile is counted by its core.
    """
    keys: list[BlockKey] = []
    tiles = 0
    for name, grid in grids.items():
        shapes = [footprints[name][at] for at in piece.items]
        region = shapely.union_all(
            [shape.intersection(grid.answer_area) for shape in shapes if not shape.is_empty]
        )
        if not region.is_empty:
            found, count = _blocks_of_region(grid, time, region)
            keys += found
            tiles += count
    return tuple(sorted(keys)), tiles


def _blocks_of_region(grid: Grid, time: int, region: BaseGeometry) -> tuple[list[BlockKey], int]:
    """Returns the blocks of a slice that overlap a region, and the number of overlapping cores."""
    shapely.prepare(region)
    rows, cols = _range_of(grid, region)
    row, col = (part.ravel() for part in np.meshgrid(rows, cols, indexing="ij"))
    boxes = _boxes(grid, row * grid.block_px, col * grid.block_px, grid.block_px)
    meets = _overlaps(region, boxes)
    covered = shapely.contains_properly(region, boxes)
    keys, tiles = [], 0
    for at in np.flatnonzero(meets):
        key = BlockKey(grid.name, time, int(row[at]), int(col[at]))
        keys.append(key)
        if covered[at]:
            tiles += (grid.block_px // grid.core_px) ** 2
            continue
        cores = [tile.core for tile in grid.tiles(key)]
        y0, x0 = np.array([core.y0 for core in cores]), np.array([core.x0 for core in cores])
        tiles += int(_overlaps(region, _boxes(grid, y0, x0, grid.core_px)).sum())
    return keys, tiles


def _range_of(grid: Grid, region: BaseGeometry) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the rows and columns of the blocks that the bounds of a region meet."""
    west, south, east, north = region.bounds
    corners = np.array([~grid.affine @ (west, north), ~grid.affine @ (east, south)])
    first, last = np.floor(corners / grid.block_px).astype(np.int64)
    (cols0, rows0), (cols1, rows1) = first - 1, last + 2  # a pixel may be rounded away
    rows, cols = grid.blocks_shape
    return np.arange(max(rows0, 0), min(rows1, rows)), np.arange(max(cols0, 0), min(cols1, cols))


def _overlaps(region: BaseGeometry, boxes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Returns for each box whether it shares more than a border with the region."""
    shared: NDArray[np.bool_] = shapely.intersects(region, boxes) & ~shapely.touches(region, boxes)
    return shared


def _boxes(
    grid: Grid, y0: NDArray[np.int64], x0: NDArray[np.int64], side: int
) -> NDArray[np.object_]:
    """Returns squares of `side` pixels in the CRS, clipped to the grid."""
    a, _, c, _, e, f = grid.transform
    y1, x1 = np.minimum(y0 + side, grid.shape[0]), np.minimum(x0 + side, grid.shape[1])
    return shapely.box(c + x0 * a, f + y1 * e, c + x1 * a, f + y0 * e)


def place_prompts(
    shapes: tuple[tuple[str, BaseGeometry], ...],
    grids: dict[str, Grid],
    context_px: int,
    shown: Set[BlockPlace],
) -> tuple[dict[BlockPlace, tuple[PlacedPrompt, ...]], dict[str, str]]:
    """Returns the prompts by the block that holds their centre, and a reason by id for the others.

    Args:
        shapes: id and lon/lat geometry of each prompt.
        grids: grids of the plan by name.
        context_px: pixels at a tile's border that the model does not answer for.
        shown: blocks that Items show.
    """
    placed: dict[BlockPlace, list[PlacedPrompt]] = defaultdict(list)
    refused: dict[str, str] = {}
    for prompt_id, shape in shapes:
        found = _place(shape, grids, context_px, shown)
        if isinstance(found, str):
            refused[prompt_id] = found
        else:
            place, moved = found
            placed[place].append(PlacedPrompt(prompt_id, moved))
    return {place: tuple(prompts) for place, prompts in placed.items()}, refused


def place_objects(
    objects: Iterable[AskedObject],
    windows: dict[str, tuple[datetime, datetime]],
    grids: dict[str, Grid],
    context_px: int,
    grow_m: float,
) -> tuple[dict[BlockPlace, tuple[PlacedPrompt, ...]], dict[str, str]]:
    """Returns objects as prompts, by the block that holds their centre; see `place_prompts`.

    Args:
        objects: the objects.
        windows: time in which objects concern each slice, by its name.
        grids: grids of the plan by name.
        context_px: pixels at a tile's border that the model does not answer for.
        grow_m: metres by which the box around an object is widened; 0 for its outline.
    """
    placed: dict[BlockPlace, list[PlacedPrompt]] = defaultdict(list)
    refused: dict[str, str] = {}
    for each in objects:
        slices = frozenset(n for n, (start, end) in windows.items() if start <= each.time <= end)
        if not slices:
            continue
        found = _place(grown(each.shape, grow_m), grids, context_px, None)
        if found == NOWHERE:  # the other result may be larger
            continue
        if isinstance(found, str):
            refused[each.id] = found
        else:
            place, moved = found
            shape = moved.envelope if grow_m else moved
            placed[place].append(PlacedPrompt(each.id, shape, slices))
    return {place: tuple(prompts) for place, prompts in placed.items()}, refused


def _place(
    shape: BaseGeometry, grids: dict[str, Grid], context_px: int, shown: Set[BlockPlace] | None
) -> tuple[BlockPlace, BaseGeometry] | str:
    """Returns the prompt's block and the prompt in its grid's CRS, or the reason if it has none.

    Args:
        shape: lon/lat geometry of the prompt.
        grids: grids of the plan by name.
        context_px: pixels at a tile's border that the model does not answer for.
        shown: blocks that Items show; None for any block of a grid.
    """
    middle = box_centre(shape)
    for grid in grids.values():
        if not grid.owns(middle.x, middle.y):
            continue
        moved = project(shape, LONLAT, parse_crs(grid.crs))
        west, south, east, north = moved.bounds
        side_px = max(east - west, north - south) / abs(grid.transform[0])
        if side_px > MOST_COARSE * (grid.tile_px - 2 * context_px - 2):
            return f"larger than {MOST_COARSE} tiles"
        centre = moved.envelope.centroid
        col, row = ~grid.affine @ (centre.x, centre.y)
        place = (grid.name, int(row // grid.block_px), int(col // grid.block_px))
        inside = 0 <= row < grid.shape[0] and 0 <= col < grid.shape[1]
        if inside and (shown is None or place in shown):
            return place, moved
    return NOWHERE
