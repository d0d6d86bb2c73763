"""Finishes a time slice whose blocks are committed: stitches, paints, reduces, writes objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import zarr

from earthgptx.pipeline.engine.answering import Answering
from earthgptx.pipeline.engine.drive import drive
from earthgptx.pipeline.engine.gathering import Gathering
from earthgptx.pipeline.engine.overview import is_whole
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.scratch import Scratch, ScratchLost
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.errors import Outage
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.object_table import ANSWERS, OBJECTS, REPLIES
from earthgptx.pipeline.results.rows_group import new_version, put_files
from earthgptx.pipeline.results.slices_group import SliceTable
from earthgptx.pipeline.results.store import overview_factors
from earthgptx.pipeline.storage.fence import FencedBlobs

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.pool import ReplicaPool


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

    def slice(
        self,
        pool: ReplicaPool,
        at: int,
        table: SliceTable,
        folders: Mapping[str, FencedBlobs],
        *,
        fresh: bool,
    ) -> None:
        """Finishes a slice; changes its row without saving it.

        Args:
            pool: replica pool of the run.
            at: position of the slice.
            table: slices of the result.
            folders: folders of its files, by the name of `Rows`.
            fresh: whether nothing was ever written of the slice.

        Raises:
            PipelineError: the run ends before its end.
        """
        found = self._gather(pool, at)
        self._paint_and_reduce(pool, at, found, fresh=fresh)
        told = self._write_rows(at, found, folders)
        self._answering.flush()
        self._scratch.forget_others(at, self.plan.blocks_of(at))
        entries = self._answering.ledger.of_slice(at).values()
        table.change(
            at,
            key=self.plan.content_of_slice(at),
            failed=sum(each.failed.failed for each in entries),
            passing=sum(each.failed.passing for each in entries),
            unanswered=found.unanswered,
            **told,
        )
        self._answering.ledger.drop(at)

    def _gather(self, pool: ReplicaPool, at: int) -> Gathering:
        """Returns the objects of a slice; blocks whose objects are lost are inferred again."""
        for _ in range(READINGS):
            try:
                return Gathering(self.plan, at, self._scratch)
            except ScratchLost as error:
                self._answering.again(pool, error.keys)
        raise self._keeps_losing()

    def _write_rows(
        self, at: int, found: Gathering, folders: Mapping[str, FencedBlobs]
    ) -> dict[str, int | str]:
        """Writes the files of a slice's objects, answers and replies.

        Returns:
            Columns of `slices` that say how many they are, and of which size.
        """
        told: dict[str, int | str] = {}
        written = [
            (OBJECTS, found.objects, found.tables()),
            (ANSWERS, found.answers, found.asked()),
            (REPLIES, found.replies, found.replied()),
        ]
        for rows, count, tables in written:
            try:
                name, version = self.plan.slices[at].name, new_version(self._root)
                files = put_files(folders[rows.name], name, tables, rows, version)
            except ScratchLost:  # since it was read a moment ago
                raise self._keeps_losing() from None
            told |= {rows.count: count, rows.first: -1, **files}
        return told

    def _keeps_losing(self) -> Outage:
        return Outage(
            f"{self._scratch.memory_url} keeps losing what is written; run the same command again"
        )

    def _paint_and_reduce(
        self,
        pool: ReplicaPool,
        at: int,
        found: Gathering,
        *,
        fresh: bool,
    ) -> None:
        """Paints the objects of a slice, and makes its overviews."""
        # What was painted before in a block that has no object now is painted over.
        shown, pieces = found.blocks(), found.pieces
        paints = {
            Task(Kind.PAINT, key): pieces.get(key, [])
            for key in self.plan.blocks_of(at)
            if key in shown or not fresh
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
            task: {below: pieces.get(below, []) for below in _below(task.key) if below in shown}
            for task in reduced
            if task.factor == 2
        }
        drive(self._scheduler, pool, on_done=on_done, payloads=payloads | paints)

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
