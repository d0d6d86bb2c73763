"""Steps of a run, in order; all of them are repeated until the result is marked as finished.

Infer and commit, stitch, paint and reduce, objects, metadata, Item, and then the mark by one write.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import structlog
import zarr

from earthgptx.catalogs.geoparquet import frozen
from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine import ledger
from earthgptx.pipeline.engine.drive import drive
from earthgptx.pipeline.engine.holes import Holes
from earthgptx.pipeline.engine.infer import BlockReport
from earthgptx.pipeline.engine.output import published_item
from earthgptx.pipeline.engine.overview import is_whole
from earthgptx.pipeline.engine.painting import BlockMasks
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import Progress, RunReport
from earthgptx.pipeline.engine.retry import reachable
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.scratch import FailedTiles, Scratch, ScratchLost
from earthgptx.pipeline.engine.staff import Limits
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.errors import Outage, PipelineError
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.objects.measure import GroundedObject
from earthgptx.pipeline.objects.stitch import BlockParts, painted, stitch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.object_table import as_geoparquet, item_times, to_table
from earthgptx.pipeline.results.objects_group import ObjectsWriter, mend_partitions
from earthgptx.pipeline.results.partitions import (
    is_leftover,
    is_partition,
    objects_beside,
    partition,
)
from earthgptx.pipeline.storage.fence import Fence, fenced, put_fenced

log = structlog.get_logger()

STAGES = {Kind.PAINT: "stitch", Kind.BLANK: "stitch", Kind.OVERVIEW: "overview"}
READINGS = 3
"""Times that lost parts of objects are inferred again before the run ends."""


class Steps:
    """Does the steps of one run; keeps its blocks as keys and counts."""

    def __init__(
        self,
        plan: Plan,
        root: zarr.Group,
        scratch: Scratch,
        fence: Fence,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Takes a plan and its open output; reads the ledger."""
        self.plan, self.root, self._scratch, self._fence = plan, root, scratch, fence
        self._tell = on_progress
        self._folder = fenced(objects_beside(plan.spec.output), fence)
        entries = ledger.committed(root, plan)
        self._before = len(entries)
        self._done = set(entries)
        self._holes = Holes(plan, {key: each.failed for key, each in entries.items()})
        self._doubted: dict[BlockKey, FailedTiles] = {}
        self._counts: dict[BlockKey, tuple[int, int]] = {}
        """Answered and empty tiles of each block that this run inferred."""
        self._blocks_of: dict[int, list[BlockKey]] = defaultdict(list)
        """Blocks of each time slice."""
        for key in plan.blocks:
            self._blocks_of[key.time].append(key)
        self._tiles = self._empty = 0
        self._objects = 0
        self.finished = False
        """Whether the result is marked as finished."""
        self._fresh = store.mark_of(root)["state"] == "created"
        mark = store.mark_of(root)
        self._was_finished = mark["state"] == "finished"
        self._failed_before = self._holes.total.failed
        engine = plan.spec.engine
        self._scheduler = Scheduler(
            Limits(engine.least, engine.most, engine.start_timeout_s, engine.tile_timeout_s)
        )
        answered = [key for key, each in entries.items() if each.tiles > each.failed.failed]
        whole = [key for key in answered if not entries[key].failed.failed]
        if answered:
            self._scheduler.vouch(Task(Kind.INFER, whole[0]) if whole else None)

    @property
    def committed(self) -> int:
        """Number of committed blocks."""
        return len(self._done)

    @property
    def failed(self) -> FailedTiles:
        """Number of quarantined tiles, of this run and earlier ones."""
        return self._holes.total

    def is_complete(self, *, retry: bool) -> bool:
        """Whether the result is finished and nothing in it can be tried again.

        Clears what is left of scratch if so. Tiles can be tried again as long as scratch still has
        the parts of all objects.
        """
        whole = self._done == self.plan.block_set
        if not whole or store.mark_of(self.root)["state"] != "finished":
            return False
        if self._can_retry() and retry:
            return False
        if not self.failed.passing:
            self._scratch.clear()
        self._objects = int(store.array_at(self.root, "objects/object_id").shape[0])
        mend_partitions(self.root, self._folder)
        return True

    def all(self, pool: ReplicaPool, token: str, *, retry: bool) -> None:
        """Does all steps.

        Raises:
            PipelineError: the run ends before its end.
        """
        plan, output = self.plan, self.plan.spec.output
        for _ in range(pool.begin(plan, token)):
            pool.adopt(self._scheduler.staff.adopt(time.monotonic()))
        store.set_state(self.root, "running", self.failed.failed)
        # Freeze first, so that an interrupted run can resume even if the catalog has changed.
        put_fenced(items_beside(output), frozen(plan.items), self._fence)
        self._infer_and_commit(pool, retry=retry)
        self._make_objects(pool)
        self._finish()
        self._tell(Progress("done", 1, 1, self._tiles))

    def _make_objects(self, pool: ReplicaPool) -> None:
        """Stitches, paints and writes the objects, slice by slice: no more are in memory."""
        plan, folder = self.plan, self._folder
        writer, times = ObjectsWriter(self.root), item_times(plan)
        kept = set()
        for time_, piece in enumerate(plan.slices):
            objects = self._stitch(pool, time_)
            self._paint_and_reduce(pool, time_, painted(plan, objects))
            table = to_table(objects, piece.start, times)
            end = max(times[plan.sources[at].name] for at in piece.items)
            if objects:
                kept.add(partition(piece.name))
                folder.put(partition(piece.name), as_geoparquet(table))
            writer.add(piece.name, piece.start, end, len(piece.items), table)
        writer.finish()
        there = [name for name in folder.names() if is_partition(name) or is_leftover(name)]
        folder.delete([name for name in there if name not in kept])
        self._objects = writer.count

    def _finish(self) -> None:
        """Writes what comes after the pixels; the mark is the last write of the result."""
        plan, output = self.plan, self.plan.spec.output
        # Once more, from what is written.
        entries = ledger.committed(self.root, plan)
        self._holes.replace({key: each.failed for key, each in entries.items()})
        self._holes.check()
        if self._was_finished and self.failed.failed > self._failed_before:
            raise Outage(
                f"{self.failed.failed} tiles are quarantined, {self._failed_before} were before "
                "they were tried again; run the same command again when the imagery is back"
            )
        base = output.removesuffix(".zarr")
        put_fenced(items_beside(output), frozen(plan.items), self._fence)
        files = fenced(output, self._fence)
        files.delete(files.leftovers())
        store.consolidate(self.root)
        item = published_item(plan, store.mark_of(self.root)["software"])
        put_fenced(f"{base}.item.json", item, self._fence)
        store.set_finished(self.root, self.failed.failed)
        self.finished = True
        if not self.failed.passing:
            try:
                self._scratch.clear()
            except (PipelineError, OSError) as error:
                log.warning("scratch could not be cleared", why=str(error))

    def report(self, started: float) -> RunReport:
        """Returns the report of the run.

        Args:
            started: when it began, by the monotonic clock.
        """
        return RunReport(
            output=self.plan.spec.output,
            blocks=len(self.plan.blocks),
            blocks_before=self._before,
            tiles=self._tiles,
            empty_tiles=self._empty,
            repeated_blocks=self._scheduler.repeated,
            failed_tiles=self.failed.failed,
            passing_tiles=self.failed.passing if self._can_retry() else 0,
            failures=self._holes.reasons,
            objects=self._objects,
            refused_prompts=self.plan.refused_prompts,
            seconds=time.monotonic() - started,
        )

    def _around(self, key: BlockKey) -> list[BlockKey]:
        return [key, *(each for each in key.neighbours() if each in self.plan.block_set)]

    def _with_parts(self) -> frozenset[BlockKey]:
        names = self._scratch.names("objects")
        return frozenset(key for key in self.plan.blocks if f"{key}.parquet" in names)

    def _can_retry(self) -> bool:
        """Whether tiles failed for a cause that may pass, and scratch has what a retry needs."""
        return self.failed.passing > 0 and self._with_parts() == self.plan.block_set

    # Infer and commit

    def _infer_and_commit(self, pool: ReplicaPool, *, retry: bool) -> None:
        """Infers the blocks whose answers are missing in scratch, and commits all blocks.

        A block is committed as soon as it and its neighbours are inferred.
        """
        plan, scratch = self.plan, self._scratch
        noted = self._noted_failures()
        again = reachable(plan, noted) if retry else set()
        self._reopen(again)
        with_parts = self._with_parts()
        scores = scratch.names("scores") & scratch.names("frames")
        inferred = {key for key in with_parts if str(key) in scores} - again
        # A committed block's scores are dropped when no neighbour needs them. Its parts are kept
        # for `stitch`, so a block without parts is inferred again.
        needed = {n for key in plan.block_set - self._done for n in self._around(key)}
        needed |= plan.block_set - with_parts
        for key in plan.blocks:
            self._scheduler.add(
                Task(Kind.INFER, key),
                pieces=plan.grids[key.grid].tile_count(key),
                done=key not in needed - inferred,
            )
        for key in plan.blocks:
            needs = [Task(Kind.INFER, other) for other in self._around(key)]
            self._scheduler.add(Task(Kind.COMMIT, key), needs, done=key in self._done)
        self._holes.check()
        drive(self._scheduler, pool, on_done=self._on_done)
        self._holes.check()

    def _noted_failures(self) -> set[BlockKey]:
        """Returns the blocks with tiles to try again; counts those that are inferred already."""
        names = self._scratch.names("failed")
        for key in self.plan.blocks:
            if str(key) in names and key not in self._done:
                try:
                    self._holes.note(key, self._scratch.get_failed(key))
                except ScratchLost:
                    self._holes.note(key, FailedTiles(1, 1))
        return self._holes.passing

    def _reopen(self, again: set[BlockKey]) -> None:
        """Takes blocks that are tried again, and those around them, out of the ledger.

        The scores near the border of a block are blended with those of its neighbours. The ledger
        is changed before anything else, so that a run that ends meanwhile leaves none as it was.
        """
        touched = {other for key in again for other in self._around(key)} & self._done
        ledger.reopen(self.root, self.plan, touched)
        self._done -= touched
        self._scratch.drop_scores(again)
        self._holes.forget(again)

    def _on_done(self, task: Task, result: Any) -> None:
        key = task.key
        if task.kind == Kind.COMMIT:
            self._done.add(key)
            if key in self._doubted:
                self._holes.note(key, self._doubted.pop(key))
            self._scratch.drop_scores(n for n in self._around(key) if self._is_over(n))
        elif task.kind == Kind.INFER:
            if key in self._done and (result.failed or key in self._holes):
                self._commit_again(key)
            self._count(key, result)
            self._holes.explain(result.failures)
            failed = FailedTiles(result.failed, result.passing)
            if result.suspects:
                self._doubted[key] = failed  # another replica may be asked
            else:
                self._doubted.pop(key, None)
                self._holes.note(key, failed)
        self._holes.check()
        self._tell(Progress("infer", len(self._done), len(self.plan.blocks), self._tiles))

    def _count(self, key: BlockKey, report: BlockReport) -> None:
        """Counts the tiles of a block once, however often it is inferred."""
        tiles, empty = self._counts.get(key, (0, 0))
        self._counts[key] = report.done, report.empty
        self._tiles += report.done - tiles
        self._empty += report.empty - empty

    def _is_over(self, key: BlockKey) -> bool:
        """Whether a block and all around it are committed, so that nobody needs its scores."""
        tasks = (Task(Kind.COMMIT, other) for other in self._around(key))
        return all(self._scheduler.is_done(task) for task in tasks)

    def _commit_again(self, key: BlockKey) -> None:
        """Has a committed block committed again whose tiles failed then, or fail now."""
        touched = {other for other in self._around(key) if other in self._done}
        ledger.reopen(self.root, self.plan, touched)
        self._done -= touched
        for other in sorted(touched):
            needs = [Task(Kind.INFER, near) for near in self._around(other)]
            self._scheduler.add(Task(Kind.COMMIT, other), needs)

    # After all blocks are committed

    def _stitch(self, pool: ReplicaPool, time_: int) -> list[GroundedObject]:
        """Returns all objects of a slice; blocks whose parts are lost are inferred again."""
        for _ in range(READINGS):
            self._tell(Progress("stitch", time_, len(self.plan.slices), self._tiles))
            lost: list[BlockKey] = []
            objects = stitch(self.plan, time_, self._parts(time_, lost))
            if not lost:
                return objects
            for key in lost:
                pieces = self.plan.grids[key.grid].tile_count(key)
                self._scheduler.add(Task(Kind.INFER, key), pieces=pieces)
            drive(self._scheduler, pool, on_done=self._on_done)
        raise Outage(
            f"{self._scratch.url} keeps losing what is written; run the same command again"
        )

    def _parts(self, time_: int, lost: list[BlockKey]) -> Iterator[BlockParts]:
        """Yields the parts of objects of a slice's blocks; notes those whose parts are lost."""
        for key in self._blocks_of[time_]:
            try:
                yield (key, *self._scratch.get_parts(key))
            except ScratchLost:
                lost.append(key)

    def _paint_and_reduce(
        self, pool: ReplicaPool, time_: int, masks: dict[BlockKey, list[tuple[int, Mask]]]
    ) -> None:
        """Paints the objects of a slice, fills its empty blocks, and makes its overviews."""
        # What an earlier run painted in a block that has no object now is painted over.
        painted_before = not self._fresh
        paints = {
            Task(Kind.PAINT, key): masks.get(key, [])
            for key in self._blocks_of[time_]
            if key in masks or painted_before
        }
        blanks = [Task(Kind.BLANK, key) for key in self.plan.empty_blocks(time_)]
        for task in (*paints, *blanks):
            self._scheduler.add(task)
        reduced = self._add_overviews(time_, {task.key: task for task in (*paints, *blanks)})

        def on_done(task: Task, result: Any) -> None:
            if task.kind not in STAGES:  # a damaged shard is made again
                before = len(self._done)
                self._on_done(task, result)
                if len(self._done) < before:
                    raise Outage(
                        f"block {task.key} had to be inferred again, and not all of its imagery "
                        "could be read; run the same command again"
                    )
                return
            self._tell(Progress(STAGES[task.kind], time_, len(self.plan.slices), self._tiles))

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

    def _add_overviews(self, time_: int, full: dict[BlockKey, Task]) -> list[Task]:
        """Adds the tasks of a slice's overviews; a shard needs the four below it."""
        added: list[Task] = []
        for name, grid in self.plan.grids.items():
            below = full
            for factor in store.overview_factors(grid):
                here: dict[BlockKey, Task] = {}
                for key in _shards(name, time_, grid.blocks_shape, factor):
                    needs = [below[under] for under in _below(key) if under in below]
                    here[key] = Task(Kind.OVERVIEW, key, factor)
                    self._scheduler.add(here[key], needs)
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


def _shards(name: str, time_: int, shape: tuple[int, int], factor: int) -> Iterator[BlockKey]:
    for row in range(-(-shape[0] // factor)):
        for col in range(-(-shape[1] // factor)):
            yield BlockKey(name, time_, row, col)
