"""Merges the parts of objects across block and zone borders.

Takes what blocks could not decide alone, gives whole objects with id and measures. A sweep over the
rows of blocks keeps only the parts that a later row may join. Also lists the objects to paint per
block. Reads no pixel.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.objects.measure import GroundedObject, ground
from earthgptx.pipeline.objects.parts import Part, merge, resolve
from earthgptx.pipeline.objects.spans import split
from earthgptx.pipeline.objects.zones import once_across_zones
from earthgptx.pipeline.planning.plan import Plan

OpenParts = tuple[BlockKey, list[Part], list[Part]]
"""A block; its objects near the border of a zone; its parts, which parts of others may join."""


def stitch(plan: Plan, time: int, blocks: Iterable[OpenParts]) -> list[GroundedObject]:
    """Returns the objects of a time slice that no block could decide alone.

    Args:
        plan: plan of the run.
        time: position of the slice.
        blocks: what its blocks have left open, by grid and row.
    """
    found: list[GroundedObject] = []
    for name, of_grid in itertools.groupby(blocks, key=lambda each: each[0].grid):
        whole: list[Part] = []
        waiting: list[Part] = []
        for row, of_row in itertools.groupby(of_grid, key=lambda each: each[0].row):
            for _, settled, open_parts in of_row:
                whole += settled
                waiting += open_parts
            later = (row + 1) * plan.spec.grid.block_px - plan.reach_px
            groups = merge(waiting, plan.traits)
            closed = [group for group in groups if max(map(_end, group)) < later]
            waiting = [part for group in groups if max(map(_end, group)) >= later for part in group]
            whole += _resolved(plan, closed)
        whole += _resolved(plan, merge(waiting, plan.traits))
        found += ground(whole, plan.grids[name], time, plan.slices[time].name)
    if len(plan.lattices) > 1:
        found = once_across_zones(found, plan.grids, plan.traits.same_object_overlap)
    return found


def _end(part: Part) -> int:
    return part.mask.y0 + part.mask.height


def _resolved(plan: Plan, groups: Iterable[list[Part]]) -> list[Part]:
    merged = [resolve(group, plan.traits) for group in groups]
    return [part for part in merged if part is not None]


Piece = tuple[float, int, Mask]
"""Score, id and mask of an object, or of the piece of it that a block shows."""
PiecesByBlock = dict[BlockKey, list[Piece]]


def by_block(plan: Plan, objects: Iterable[GroundedObject]) -> PiecesByBlock:
    """Returns the pieces of objects in each block that they meet."""
    found: PiecesByBlock = defaultdict(list)
    side = plan.spec.grid.block_px
    for each in objects:
        for name, mask in ((each.grid, each.part.mask), *each.elsewhere):
            for row, col, piece in split(mask, side):
                key = BlockKey(name, each.time, row, col)
                if plan.holds(key):
                    found[key].append((each.part.score, each.object_id, piece))
    return found
