"""Builds the questions about a tile from the scene of its block.

One question asks about the tile itself. Each prompt that the tile cannot answer for adds one
question about a view around the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analysis.prompts import tile_prompts, wide_prompts
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import BlockKey, Tile, View
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.projection import ground_metres
from earthgptx.pipeline.reading.scene import Scene, inside, read_scene


@dataclass(frozen=True, slots=True)
class Question:
    """An input for the model, and the tile and view that it comes from."""

    tile: Tile
    view: View
    """The tile itself, or a view around a prompt, on coarser pixels where needed."""
    input: TileInput


def tile_questions(
    plan: Plan,
    key: BlockKey,
    tile: Tile,
    scene: Scene,
    search_area: NDArray[np.bool_],
    *,
    patient: bool = False,
) -> list[Question]:
    """Returns a question about the tile, then one per prompt that needs another view.

    Reads the scene of each such view.

    Args:
        plan: plan of the run.
        key: key of the block.
        tile: tile of the block.
        scene: scene of the block and its halo, (H, W).
        search_area: (H, W) bool, True where objects are searched.
        patient: whether to raise if imagery of a wider view cannot be read for now.

    Raises:
        SourceError: imagery of a wider view cannot be read.
    """
    grid, at = plan.grids[key.grid], tile.window.within(scene.window)
    placed = plan.prompts_of(key)
    phrases = tuple(plan.spec.tasks.find)
    own = TileInput(
        pixels=scene.pixels[(slice(None), *at)],
        valid=scene.valid[at],
        wanted=search_area[at] & scene.valid[at],
        modality=plan.modality,
        metres_per_pixel=ground_metres(grid, tile.core),
        phrases=phrases,
        prompts=tile_prompts(plan, grid, tile, scene, placed),
        names=phrases,
        describe=plan.spec.tasks.describe,
        questions=plan.spec.tasks.questions("tiles"),
        object_questions=plan.spec.tasks.questions("objects"),
    )
    questions = [Question(tile, View(tile.window), own)]
    for view, prompt in wide_prompts(plan, grid, tile, placed):
        coarse = grid.for_view(view)
        items = plan.scene_items(key.grid, key.time, view.window)
        wide = read_scene(coarse, coarse.window, items, compose=plan.spec.compose, patient=patient)
        searched = inside(grid.search_area, coarse, coarse.window)
        if (wide.broken & searched).any():
            raise SourceError(" ".join(wide.errors), unreachable=wide.unreachable)
        tile_input = replace(
            own,
            pixels=wide.pixels,
            valid=wide.valid,
            wanted=searched & wide.valid,
            metres_per_pixel=ground_metres(coarse, coarse.window),
            phrases=(),
            prompts=(prompt,),
            describe=False,
            questions=(),
        )
        questions.append(Question(tile, view, tile_input))
    return questions
