"""Merges objects across block and zone borders and completes them.

Takes the objects and open parts of each block, gives all objects of the run with id, measures,
caption and Item. Also lists the objects to paint per block. Reads no pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import shapely

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.objects.measure import (
    GroundedObject,
    ground,
    measured_caption,
    nearest_neighbours,
)
from earthgptx.pipeline.objects.parts import Part, merge, resolve
from earthgptx.pipeline.objects.zones import once_across_zones
from earthgptx.pipeline.planning.plan import Plan

BlockParts = tuple[BlockKey, list[Part], list[Part]]
"""A block, its settled objects, and its open parts, which parts of other blocks may join."""


def stitch(plan: Plan, blocks: Iterable[BlockParts]) -> list[GroundedObject]:
    """Returns all objects of a run, sorted by time slice, grid, first row and first column.

    Args:
        plan: plan of the run.
        blocks: settled objects and open parts of each block.
    """
    whole: dict[tuple[str, int], list[Part]] = defaultdict(list)
    pieces: dict[tuple[str, int], list[Part]] = defaultdict(list)
    for key, settled, open_parts in blocks:
        whole[key.grid, key.time] += settled
        pieces[key.grid, key.time] += open_parts
    found: list[GroundedObject] = []
    for place in sorted(whole.keys() | pieces.keys()):
        merged = [resolve(group, plan.traits) for group in merge(pieces[place], plan.traits)]
        parts = whole[place] + [part for part in merged if part is not None]
        name, time = place
        grid, start = plan.grids[name], plan.slices[time].start.isoformat()
        found += ground(parts, grid, time, start)
    if any(grid.zone for grid in plan.grids.values()) or len(plan.grids) > 1:
        found = once_across_zones(found, plan.grids, plan.traits.same_object_overlap)
    found.sort(
        key=lambda each: (
            each.time,
            each.grid,
            each.part.mask.y0,
            each.part.mask.x0,
            each.object_id,
        )
    )
    return _described(plan, found)


def painted(
    plan: Plan, objects: Iterable[GroundedObject]
) -> dict[BlockKey, list[tuple[int, Mask]]]:
    """Returns ids and masks of the objects in each block, the highest-scoring last.

    Where objects overlap, the last one is painted on top.
    """
    by_block: dict[BlockKey, list[tuple[int, Mask]]] = defaultdict(list)
    for each in sorted(objects, key=lambda one: (one.part.score, one.object_id)):
        for name, mask in ((each.grid, each.part.mask), *each.elsewhere):
            for key in _blocks_of(mask, name, each.time, plan.spec.grid.block_px):
                if key in plan.block_set:
                    by_block[key].append((each.object_id, mask))
    return by_block


def _blocks_of(mask: Mask, grid: str, time: int, side: int) -> Iterator[BlockKey]:
    """Yields the keys of the blocks that a mask's box meets."""
    for row in range(max(mask.y0, 0) // side, (mask.y0 + mask.height - 1) // side + 1):
        for col in range(max(mask.x0, 0) // side, (mask.x0 + mask.width - 1) // side + 1):
            yield BlockKey(grid, time, row, col)


def _described(plan: Plan, objects: list[GroundedObject]) -> list[GroundedObject]:
    described = []
    for each, nearest in zip(objects, nearest_neighbours(objects), strict=True):
        caption = each.part.caption or measured_caption(each, nearest)
        described.append(replace(each, caption=caption, item_id=_item_of(plan, each)))
    return described


def _item_of(plan: Plan, found: GroundedObject) -> str:
    grid, mask = plan.grids[found.grid], found.part.mask
    middle = shapely.Point(grid.affine @ (mask.centre.x, mask.centre.y))
    prints = plan.footprints[found.grid]
    return next(
        (
            plan.sources[at].item
            for at in plan.slices[found.time].items
            if prints[at].intersects(middle)
        ),
        "",
    )
