"""What a block has found: final objects, parts that are not, and answers to its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from earthgptx.model.interface.answer import Reply
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.analysis.prompts import is_own
from earthgptx.pipeline.analysis.questions import Question
from earthgptx.pipeline.engine.scratch import BlockObjects
from earthgptx.pipeline.job.grid import BlockKey, Grid, Tile, Window
from earthgptx.pipeline.job.lonlat import LONLAT, cut_all
from earthgptx.pipeline.objects.finals import (
    PENDING,
    Outcome,
    PromptAnswer,
    answers_table,
    finals_table,
    tile_replies_table,
)
from earthgptx.pipeline.objects.measure import GroundedObject, ground, outlines
from earthgptx.pipeline.objects.parts import Part, is_settled, merge, resolve, window_of
from earthgptx.pipeline.objects.zones import is_apart
from earthgptx.pipeline.planning.blocks import PlacedPrompt
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.projection import to_lonlat, transformer
from earthgptx.pipeline.reading.scene import Scene
from earthgptx.pipeline.results.store import Status


def found_in_block(
    plan: Plan,
    key: BlockKey,
    scene: Scene,
    questions: Sequence[Question],
    parts: Sequence[Part],
    statuses: Mapping[Tile, int],
    replies: Mapping[Tile, Sequence[Reply]],
) -> BlockObjects:
    """Merges what the tiles of a block saw, and finds what came of its prompts.

    Args:
        plan: plan of the run.
        key: key of the block.
        scene: its scene.
        questions: what was asked of its tiles.
        parts: what they saw of objects.
        statuses: `Status` of each of its tiles; nothing is taken of quarantined ones.
        replies: replies about its tiles.
    """
    grid = plan.grids[key.grid]
    failed = {(t.row, t.col) for t, status in statuses.items() if status == Status.QUARANTINED}
    items = [each.source.name for each in plan.scene_items(key.grid, key.time, scene.window)]
    seen = [_seen_on(scene, items, part) for part in parts if part.tile not in failed]
    whole: list[Part] = []
    open_parts: list[Part] = []
    for group in merge([part for part in seen if part.present], plan.traits):
        if is_settled(group, grid.block_window(key), plan.traits, grid.halo_px):
            merged = resolve(group, plan.traits)
            whole += [merged] if merged is not None else []
        else:
            open_parts += group
    found = ground(whole, grid, key.time, plan.slices[key.time].name)
    apart = [is_apart(each, plan) for each in found]
    finals = [each for each, alone in zip(found, apart, strict=True) if alone]
    return BlockObjects(
        finals=finals_table(finals),
        settled=[part for part, alone in zip(whole, apart, strict=True) if not alone],
        open=open_parts,
        answers=_answers(plan, key, questions, statuses, seen, finals),
        replies=_tile_replies(
            grid,
            scene,
            items,
            {tile: said for tile, said in replies.items() if (tile.row, tile.col) not in failed},
        ),
    )


def _tile_replies(
    grid: Grid, scene: Scene, items: Sequence[str], replies: Mapping[Tile, Sequence[Reply]]
) -> pa.Table:
    """Returns the replies about tiles, by row and column."""
    tiles = sorted(
        (tile for tile, said in replies.items() if said), key=lambda tile: (tile.row, tile.col)
    )
    shown = [
        _most_shown(scene.source[(tile.core & scene.window).within(scene.window)], items)
        for tile in tiles
    ]
    cores = np.array([*(_ground(grid, tile.core & grid.window) for tile in tiles), None], object)
    said = [(replies[tile], item) for tile, item in zip(tiles, shown, strict=True)]
    return tile_replies_table(said, cores[:-1])


def _ground(grid: Grid, window: Window) -> BaseGeometry:
    """Returns a window of a grid, lon/lat."""
    corners = [
        grid.affine @ corner
        for corner in (
            (window.x0, window.y0),
            (window.x1, window.y0),
            (window.x1, window.y1),
            (window.x0, window.y1),
        )
    ]
    return to_lonlat(shapely.Polygon(corners), grid.crs)


def _most_shown(source: NDArray[np.int16], items: Sequence[str]) -> str:
    """Returns the Item that most pixels show; empty for none."""
    counts = np.bincount(source[source >= 0])
    return items[int(counts.argmax())] if counts.size else ""


def _answers(
    plan: Plan,
    key: BlockKey,
    questions: Sequence[Question],
    statuses: Mapping[Tile, int],
    seen: Sequence[Part],
    finals: Sequence[GroundedObject],
) -> pa.Table:
    """Returns what came of each prompt of a block, by id."""
    grid = plan.grids[key.grid]
    placed = {each.id: each for each in plan.prompts_of(key)}
    asked = {each.id: (each, one.tile) for one in questions for each in one.input.prompts}
    said = {name: part for part in seen if part.prompted for name in part.prompt_ids}
    ids = {name: each.object_id for each in finals for name in each.part.prompt_ids}
    answers = [
        _answer(prompt, statuses[tile], said.get(name), ids.get(name, PENDING))
        for name, (prompt, tile) in asked.items()
    ]
    places = _places(grid, [*asked.values()], placed)
    if plan.spec.tasks.refer:
        for name in placed.keys() - asked.keys():
            own = (status for tile, status in statuses.items() if is_own(grid, tile, placed[name]))
            failed = next(own, Status.NO_SOURCE_DATA) == Status.QUARANTINED
            outcome = Outcome.FAILED if failed else Outcome.NO_DATA
            kind = "point" if placed[name].shape.geom_type == "Point" else "mask"
            answers.append(PromptAnswer(prompt_id=name, prompt_kind=kind, outcome=outcome))
            places.append(to_lonlat(placed[name].shape, grid.crs))
    order = sorted(range(len(answers)), key=lambda at: answers[at].prompt_id)
    shapes = np.array([*places, None], object)[:-1]  # never taken for an array of coordinates
    return answers_table([answers[at] for at in order], shapes[order])


def _answer(prompt: VisualPrompt, status: int, part: Part | None, object_id: int) -> PromptAnswer:
    """Returns what came of a prompt that was asked.

    Args:
        prompt: the prompt.
        status: `Status` of its tile.
        part: what the model saw there; None for nothing within the tile's scope.
        object_id: id of the object that it has become, if there is one.
    """
    outcome = Outcome.FAILED if status == Status.QUARANTINED else Outcome.NOTHING
    answer = PromptAnswer(prompt_id=prompt.id, prompt_kind=prompt.kind, outcome=outcome)
    if outcome == Outcome.FAILED or part is None:
        return answer
    return replace(
        answer,
        outcome=Outcome.OBJECT if part.present else Outcome.NOTHING,
        object_id=object_id if part.present else 0,
        label=part.label,
        score=part.score,
        caption=part.caption,
        item=part.item,
    )


def _places(
    grid: Grid,
    asked: Sequence[tuple[VisualPrompt, Tile]],
    placed: Mapping[str, PlacedPrompt],
) -> list[BaseGeometry]:
    """Returns the geometries of prompts, lon/lat, cut at the antimeridian."""
    masks = [
        (at, prompt.place.moved(dx=tile.window.x0, dy=tile.window.y0))
        for at, (prompt, tile) in enumerate(asked)
        if isinstance(prompt.place, Mask) and prompt.id not in placed
    ]
    drawn = outlines([mask for _, mask in masks], grid)
    found = {at: shape for (at, _), shape in zip(masks, cut_all(drawn), strict=True)}
    points = [
        grid.affine
        @ (prompt.place.centre.x + tile.window.x0, prompt.place.centre.y + tile.window.y0)
        for prompt, tile in asked
    ]
    xs, ys = np.array(points, float).reshape(-1, 2).T
    lon, lat = transformer(grid.crs, LONLAT).transform(xs, ys)
    for at, (prompt, _) in enumerate(asked):
        if prompt.id in placed:
            found[at] = to_lonlat(placed[prompt.id].shape, grid.crs)
        elif at not in found:
            found[at] = shapely.Point(lon[at], lat[at])
    return [found[at] for at in range(len(asked))]


def _seen_on(scene: Scene, items: Sequence[str], part: Part) -> Part:
    """Returns a part with the Item that most of its pixels in a scene show.

    Args:
        scene: scene of the part's block.
        items: collection and id of each Item of the scene.
        part: part of an object.
    """
    mask = part.mask
    box = window_of(mask) & scene.window
    if box.empty:
        return part
    shown = scene.source[box.within(scene.window)][mask.window(box.y0, box.x0, box.y1, box.x1)]
    return replace(part, item=_most_shown(shown, items))
