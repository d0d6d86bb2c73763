"""Decides which quarantined tiles are worth another try: those whose imagery can be opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.assets import open_raster
from earthgptx.pipeline.reading.item import SceneItem


def reachable(plan: Plan, keys: Iterable[BlockKey]) -> set[BlockKey]:
    """Returns the blocks whose imagery can be opened, and that of all blocks around them.

    Where what is kept of the blocks around a block, and of those around them, is lost, they are
    inferred again with it: if their imagery were down, answers that are there would be lost.

    Args:
        plan: plan of the run.
        keys: blocks with tiles to try again.
    """
    opens: dict[str, bool] = {}

    def can_open(scene_item: SceneItem) -> bool:
        name = scene_item.source.name
        if name not in opens:
            opens[name] = _opens(scene_item)
        return opens[name]

    return {key for key in keys if all(can_open(each) for each in _sources(plan, key))}


def _sources(plan: Plan, key: BlockKey) -> Iterator[SceneItem]:
    near = {other for each in (key, *key.neighbours()) for other in (each, *each.neighbours())}
    for other in filter(plan.holds, near):
        window = plan.grids[other.grid].read_window(other)
        yield from plan.scene_items(other.grid, other.time, window)


def _opens(scene_item: SceneItem) -> bool:
    """Whether all rasters that are read of an Item can be opened now."""
    try:
        for raster in scene_item.source.rasters:
            with open_raster(raster, scene_item.opening):
                pass
    except SourceError:
        return False
    return True
