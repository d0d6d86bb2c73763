"""Decides which quarantined tiles are worth another try: those whose imagery can be opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.assets import open_asset, rasters_of
from earthgptx.pipeline.reading.item import SceneItem


def reachable(plan: Plan, keys: Iterable[BlockKey]) -> set[BlockKey]:
    """Returns the blocks whose imagery can be opened, and that of all blocks around them.

    The blocks around a block, and those around them, are inferred again with it: if their imagery
    were down, answers that are there would be lost.

    Args:
        plan: plan of the run.
        keys: blocks with tiles to try again.
    """
    opens: dict[str, bool] = {}

    def can_open(source: SceneItem) -> bool:
        if source.item.id not in opens:
            opens[source.item.id] = _opens(source)
        return opens[source.item.id]

    return {key for key in keys if all(can_open(each) for each in _sources(plan, key))}


def _sources(plan: Plan, key: BlockKey) -> Iterator[SceneItem]:
    near = {other for each in (key, *key.neighbours()) for other in (each, *each.neighbours())}
    for other in near & plan.block_set:
        window = plan.grids[other.grid].read_window(other)
        yield from plan.scene_items(other.grid, other.time, window)


def _opens(source: SceneItem) -> bool:
    """Whether all rasters that are read of an Item can be opened now."""
    try:
        for key in rasters_of(source.item, source.profile):
            with open_asset(source.item, key, source.opening):
                pass
    except SourceError:
        return False
    return True
