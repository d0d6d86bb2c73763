"""Merges objects across block and zone borders and completes them.

Takes the objects and open parts of the blocks of a time slice, gives all its objects with id,
measures and caption. Also lists the objects to paint per block. Reads no pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

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


def stitch(plan: Plan, time: int, blocks: Iterable[BlockParts]) -> list[GroundedObject]:
    """Returns all objects of a time slice, sorted by grid, first row and first column.

    Args:
        plan: plan of the run.
        time: number of the slice.
        blocks: settled objects and open parts of each of its blocks.
    """
    whole: dict[str, list[Part]] = defaultdict(list)
    pieces: dict[str, list[Part]] = defaultdict(list)
    for key, settled, open_parts in blocks:
        whole[key.grid] += settled
        pieces[key.grid] += open_parts
    found: list[GroundedObject] = []
    for name in sorted(whole.keys() | pieces.keys()):
        merged = [resolve(group, plan.traits) for group in merge(pieces[name], plan.traits)]
        parts = whole[name] + [part for part in merged if part is not None]
        found += ground(parts, plan.grids[name], time, plan.slices[time].name)
    if any(grid.zone for grid in plan.grids.values()) or len(plan.grids) > 1:
        found = once_across_zones(found, plan.grids, plan.traits.same_object_overlap)
    found.sort(key=lambda each: (each.grid, each.part.mask.y0, each.part.mask.x0, each.object_id))
    return _described(found)


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
                if plan.holds(key):
                    by_block[key].append((each.object_id, mask))
    return by_block


def _blocks_of(mask: Mask, grid: str, time: int, side: int) -> Iterator[BlockKey]:
    """Yields the keys of the blocks that a mask's box meets."""
    for row in range(max(mask.y0, 0) // side, (mask.y0 + mask.height - 1) // side + 1):
        for col in range(max(mask.x0, 0) // side, (mask.x0 + mask.width - 1) // side + 1):
            yield BlockKey(grid, time, row, col)


def _described(objects: list[GroundedObject]) -> list[GroundedObject]:
    return [
        replace(each, caption=each.part.caption or measured_caption(each, nearest))
        for each, nearest in zip(objects, nearest_neighbours(objects), strict=True)
    ]
