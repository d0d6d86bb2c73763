"""Searches one image in memory, tiled and merged like a scene. The image needs no georeference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray

from earthgptx.model.interface.region import Box
from earthgptx.model.interface.tile import AnalystTraits, TileInput
from earthgptx.pipeline.analyst import Analyst
from earthgptx.pipeline.job.grid import BlockKey, Grid, View
from earthgptx.pipeline.objects.parts import merge, resolve, to_part

TILE_PX, HALO_PX = 512, 64


def find_in_image(
    analyst: Analyst,
    traits: AnalystTraits,
    pixels: NDArray[np.uint8],
    ask: Callable[[NDArray[np.uint8], NDArray[np.bool_]], TileInput],
) -> list[tuple[str, Box, float]]:
    """Returns label, box in pixels and score of every object in an image.

    Args:
        analyst: analyst that answers.
        traits: the analyst's traits.
        pixels: (3, H, W) uint8.
        ask: function that makes the input of a tile from its pixels, (3, h, w), and valid, (h, w).
    """
    height, width = pixels.shape[1:]
    core = TILE_PX - 2 * HALO_PX
    side = -(-max(height, width) // core) * core
    nowhere = shapely.Polygon()
    grid = Grid(
        name="image",
        crs="EPSG:3857",
        transform=(1, 0, 0, 0, -1, 0),
        shape=(height, width),
        lattice=(0, 0),
        tile_px=TILE_PX,
        halo_px=HALO_PX,
        block_px=side,
        search_area=nowhere,
        answer_area=nowhere,
        zone=None,
    )
    around = ((0, 0), (HALO_PX, side + HALO_PX - height), (HALO_PX, side + HALO_PX - width))
    padded = np.pad(pixels, around)
    valid = np.pad(np.ones((height, width), bool), around[1:])
    tiles = grid.tiles(BlockKey("image", 0, 0, 0))
    outer = grid.window.grown(HALO_PX)  # the padded image starts one halo before the first pixel
    parts = []
    for start in range(0, len(tiles), traits.tiles_per_batch):
        batch = tiles[start : start + traits.tiles_per_batch]
        at = [tile.window.within(outer) for tile in batch]
        answers = analyst.analyse(
            [ask(padded[(slice(None), *place)], valid[place]) for place in at]
        )
        for tile, answer in zip(batch, answers, strict=True):
            found = (
                to_part(each, tile, View(tile.window), traits.context_px)
                for each in answer.groundings
            )
            parts += [part for part in found if part is not None]
    objects = (resolve(group, traits) for group in merge(parts, traits))
    return [(each.label, each.mask.box, each.score) for each in objects if each is not None]
