"""Finishes a time slice whose blocks are committed: stitches, paints, reduces, writes objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import zarr

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine.answering import Answering
from earthgptx.pipeline.engine.drive import drive
from earthgptx.pipeline.engine.overview import is_whole
from earthgptx.pipeline.engine.painting import BlockMasks
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.scratch import Scratch, ScratchLost
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.errors import Outage
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.objects.measure import GroundedObject
from earthgptx.pipeline.objects.stitch import BlockParts, painted, stitch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.object_table import as_geoparquet, item_times, to_table
from earthgptx.pipeline.results.partitions import partition
from earthgptx.pipeline.results.slices_group import SliceTable
from earthgptx.pipeline.results.store import overview_factors
from earthgptx.pipeline.storage.fence import FencedBlobs

STAGES = {Kind.PAINT: "stitch", Kind.OVERVIEW: "overview"}
READINGS = 3
"""Times that lost parts of objects are inferred again before the run ends."""


class Finishing:
    """Finishes slices, one after the other, so that the driver holds the objects of one."""

    def __init__(
        self,
        plan: Plan,
        root: zarr.Group,
        scratch: Scratch,
        scheduler: Scheduler,
        answering: Answering,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Takes what the steps of a run share."""
        self.plan, self._root, self._scratch = plan, root, scratch
        self._scheduler, self._answering, self._tell = scheduler, answering, on_progress
        self._times = item_times(plan)

    def slice(
        self, pool: ReplicaPool, at: int, table: SliceTable, folder: FencedBlobs, *, fresh: bool
    ) -> None:
        """Finishes a slice; changes its row without saving it.

        Args:
            pool: replica pool of the run.
            at: position of the slice.
            table: slices of the result.
            folder: folder of its files of objects.
            fresh: whether nothing was ever written of the slice.

        Raises:
            PipelineError: the run ends before its end.
        """
        objects = self._stitch(pool, at)
        self._paint_and_reduce(pool, at, painted(self.plan, objects), fresh=fresh)
        piece, size = self.plan.slices[at], 0
        if objects:
            data = as_geoparquet(to_table(objects, piece.start, self._times))
            folder.put(partition(piece.name), data)
            size = len(data)
        self._answering.flush()
        self._scratch.forget_others(at, self.plan.blocks_of(at))
        entries = self._answering.ledger.of_slice(at).values()
        table.change(
            at,
            key=self.plan.content_of_slice(at),
            failed=sum(each.failed.failed for each in entries),
            passing=sum(each.failed.passing for each in entries),
            objects=len(objects),
            first_object=-1,
            bytes=size,
        )
        self._answering.ledger.drop(at)

    def _stitch(self, pool: ReplicaPool, at: int) -> list[GroundedObject]:
        """Returns all objects of a slice; blocks whose parts are lost are inferred again."""
        for _ in range(READINGS):
            lost: list[BlockKey] = []
            objects = stitch(self.plan, at, self._parts(at, lost))
            if not lost:
                return objects
            self._answering.again(pool, lost)
        raise Outage(
            f"{self._scratch.url} keeps losing what is written; run the same command again"
        )

    def _parts(self, at: int, lost: list[BlockKey]) -> Iterator[BlockParts]:
        """Yields the parts of objects of a slice's blocks; notes those whose parts are lost."""
        for key in self.plan.blocks_of(at):
            try:
                yield (key, *self._scratch.get_parts(key))
            except ScratchLost:
                lost.append(key)

    def _paint_and_reduce(
        self,
        pool: ReplicaPool,
        at: int,
        masks: dict[BlockKey, list[tuple[int, Mask]]],
        *,
        fresh: bool,
    ) -> None:
        """Paints the objects of a slice, and makes its overviews."""
        # What was painted before in a block that has no object now is painted over.
        blocks = self.plan.blocks_of(at)
        paints = {
            Task(Kind.PAINT, key): masks.get(key, []) for key in blocks if key in masks or not fresh
        }
        for task in paints:
            self._scheduler.add(task)
        reduced = self._add_overviews(at, {task.key: task for task in paints})

        def on_done(task: Task, result: Any) -> None:
            if task.kind in STAGES:
                self._tell(
                    Progress(STAGES[task.kind], at, len(self.plan.slices), self._answering.tiles)
                )
                return
            # A damaged shard is made again.
            before = len(self._answering.done)
            self._answering.on_done(task, result)
            if len(self._answering.done) < before:
                raise Outage(
                    f"block {task.key} had to be inferred again, and not all of its imagery "
                    "could be read; run the same command again"
                )

        payloads: dict[Task, Any] = {
            task: self._masks_below(task.key, masks) if task.factor == 2 else () for task in reduced
        }
        drive(self._scheduler, pool, on_done=on_done, payloads=payloads | paints)

    def _masks_below(
        self, key: BlockKey, masks: dict[BlockKey, list[tuple[int, Mask]]]
    ) -> list[BlockMasks]:
        """Returns the objects of the up to four blocks that a shard of the first overview shows."""
        grid = self.plan.grids[key.grid]
        return [(grid.block_window(block), masks[block]) for block in _below(key) if block in masks]

    def _add_overviews(self, at: int, full: dict[BlockKey, Task]) -> list[Task]:
        """Adds the tasks of a slice's overviews; a shard needs those of the four below it."""
        added: list[Task] = []
        for name, grid in self.plan.grids.items():
            below = full
            keys = [key for key in self.plan.blocks_of(at) if key.grid == name]
            for factor in overview_factors(grid):
                here: dict[BlockKey, Task] = {}
                for row, col in sorted({(key.row // factor, key.col // factor) for key in keys}):
                    shard = BlockKey(name, at, row, col)
                    here[shard] = Task(Kind.OVERVIEW, shard, factor)
                    needs = [below[under] for under in _below(shard) if under in below]
                    self._scheduler.add(here[shard], needs)
                added += here.values()
                below = here
                if is_whole(grid, factor):
                    break  # its task makes the coarser ones too
        return added


def _below(key: BlockKey) -> Iterator[BlockKey]:
    """Yields the four shards that a shard of an overview shows, whether or not they exist."""
    for row in (2 * key.row, 2 * key.row + 1):
        for col in (2 * key.col, 2 * key.col + 1):
            yield BlockKey(key.grid, key.time, row, col)
