"""Steps of a run, in order: they make an output equal to what its plan found.

Slice by slice: infer and commit, stitch, paint and reduce, objects; then it is published. At the
end the rows of objects, metadata, Item, and then the mark by one write. What a run has to do
follows from the slices and the ledger alone: running, resuming and growing are one path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import zarr

from earthgptx.catalogs.geoparquet import frozen_with
from earthgptx.catalogs.moments import start_of
from earthgptx.pipeline.engine.answering import Answering
from earthgptx.pipeline.engine.finishing import Finishing
from earthgptx.pipeline.engine.forks import Forks
from earthgptx.pipeline.engine.holes import Holes
from earthgptx.pipeline.engine.output import beside, published_before, published_item
from earthgptx.pipeline.engine.report import Progress, RunReport
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.scratch import FailedTiles, Scratch
from earthgptx.pipeline.engine.spending import cost_of
from earthgptx.pipeline.engine.staff import Limits
from earthgptx.pipeline.engine.survey import place, state_of_slice
from earthgptx.pipeline.engine.tracking import Tracking, stale
from earthgptx.pipeline.errors import Outage, OutputError, PipelineError, RunFailed
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.layout import extend, told
from earthgptx.pipeline.results.object_table import KINDS, OBJECTS, files_in
from earthgptx.pipeline.results.partitions import is_leftover, is_partition, rows_beside
from earthgptx.pipeline.results.rows_group import mend_partitions, sync_rows
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState, SliceTable
from earthgptx.pipeline.storage.fence import Fence, fenced, put_fenced

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.pool import ReplicaPool


log = structlog.get_logger()

RASTERS = ["tiles", "raster", "overview"]
"""Groups whose shapes let readers see a slice."""
BLOCKS_A_REPLICA = 32
"""Blocks that a replica has to do, about, before slices are finished and published."""


class Steps:
    """Does the steps of one run; keeps its blocks as keys and counts."""

    def __init__(
        self,
        plan: Plan,
        root: zarr.Group,
        fence: Fence,
        on_progress: Callable[[Progress], None],
        *,
        retry: bool,
        paid_s: float | None = None,
    ) -> None:
        """Compares a plan with its open output.

        Args:
            plan: plan of the run.
            root: root group of the result.
            fence: checks the lease before each write.
            on_progress: callback that receives the progress of each stage.
            retry: whether to infer the blocks of finished slices again that have quarantined tiles.
            paid_s: time in s that all replicas together may take; None for any.
        """
        self.table = SliceTable(root)
        rows = self.table.rows
        self.plan = place(plan, rows)
        self.root, self._fence = root, fence
        self._scratch = Scratch(plan.spec.output, fence, self.plan.content_of)
        self._tell, self._retry = on_progress, retry
        self._folders = {
            rows.name: fenced(rows_beside(plan.spec.output, rows.name), fence) for rows in KINDS
        }
        self._hidden = store.branch_of(root) is not None
        """Whether readers see nothing of what is written before it is published."""
        self._tracking = Tracking(root, self._folders[OBJECTS.name], self.table)
        self._registered = len(rows)
        self.work = [at for at in range(len(self.plan.slices)) if self._is_open(at)]
        """Slices to do, by position."""
        self._unfinished = {at for at, row in enumerate(rows) if row.state == SliceState.RUNNING}
        """Slices that an earlier run has left unfinished."""
        if self.table.damaged and any(not piece.items for piece in self.plan.slices):
            raise OutputError(
                f"slices/{self.table.damaged} of {plan.spec.output} is damaged; run its job once "
                "over all of its time"
            )
        self.gone = [
            at
            for at, row in enumerate(rows)
            if row.state != SliceState.GONE and state_of_slice(self.plan, at, row) == "gone"
        ]
        self.finished = False
        """Whether the result is marked as finished."""
        self._failed_before = self._failed_tiles
        self._was_finished = store.mark_of(root)["state"] == "finished"
        engine = plan.spec.engine
        limits = Limits(
            engine.least, engine.most, engine.start_timeout_s, engine.tile_timeout_s, paid_s
        )
        self._scheduler = Scheduler(limits)
        self._holes = Holes(
            engine.max_failed_fraction, sum(self.plan.tiles_of(at) for at in self.work), {}
        )
        self._forks = Forks(root)
        self._answering = Answering(
            self.plan,
            root,
            self._scratch,
            self._scheduler,
            self._holes,
            self._forks,
            on_progress,
            sum(len(self.plan.blocks_of(at)) for at in self.work),
        )

    def _is_open(self, at: int) -> bool:
        """Whether a slice of the plan is missing, has changed, or is to be tried again."""
        if not self.plan.slices[at].items:
            return False
        row = self.table.rows[at] if at < len(self.table.rows) else None
        state = state_of_slice(self.plan, at, row)
        return state in ("new", "changed", "unfinished") or (state == "failed" and self._retry)

    @property
    def replica_seconds(self) -> float:
        """Time that all replicas of the run together have taken until now, in s."""
        return self._scheduler.staff.paid_s(time.monotonic())

    @property
    def committed(self) -> int:
        """Number of committed blocks of the slices that the run works on."""
        return len(self._answering.done)

    @property
    def blocks(self) -> int:
        """Number of blocks of the slices that the run works on."""
        return sum(len(self.plan.blocks_of(at)) for at in self.work)

    @property
    def failed(self) -> FailedTiles:
        """Number of quarantined tiles of the whole result."""
        mine = set(self.work)
        others = [row for at, row in enumerate(self.table.rows) if at not in mine]
        here = self._holes.total
        return FailedTiles(
            here.failed + sum(row.failed for row in others),
            here.passing + sum(row.passing for row in others),
        )

    @property
    def _failed_tiles(self) -> int:
        return sum(row.failed for row in self.table.rows)

    def is_complete(self) -> bool:
        """Whether there is nothing to do; mends files of objects that are lost."""
        lost = {
            at
            for rows in KINDS
            for at in mend_partitions(self.root, self._folders[rows.name], self.table, rows)
        }
        for at in sorted(lost):
            self.table.change(at, state=SliceState.RUNNING, key="")
            if at not in self.work:
                if not self.plan.slices[at].items:
                    raise Outage(
                        f"the objects of {self.table.rows[at].name} are lost; run the job again "
                        "over a time that has it"
                    )
                self.work.append(at)
        self.work.sort()
        if self.work or self.gone or stale(self.table.rows) or not self._was_finished:
            return False
        if not published_before(beside(self.plan.spec.output, ".item.json")):  # it is lost
            return False
        self._sync_rows()
        if self._hidden:
            store.publish(self.root, [])
            store.end(self.root)
        return True

    def _sync_rows(self) -> None:
        for rows in KINDS:
            sync_rows(self.root, self._folders[rows.name], self.table, rows)

    def all(self, pool: ReplicaPool | None, token: str) -> None:
        """Does all steps.

        Args:
            pool: replica pool of the run; None if no slice is to be done.
            token: token of the run's lease.

        Raises:
            PipelineError: the run ends before its end.
        """
        mark = store.mark_of(self.root)
        state = {"state": "running", "failed_tiles": self._failed_tiles, **told(self.plan)}
        if self._hidden:  # else readers would lose slices that they see
            self._refuse_unfinished(self._unfinished - set(self.work))
        self.root.attrs.update({store.MARK: mark | state})
        # Freeze first, so that an interrupted run can resume even if the catalog has changed.
        self._freeze(withdrawn=False)
        if not self._hidden:
            self._register(self.work)
        if pool is not None:
            for _ in range(pool.begin(self.plan, token, self._forks)):
                pool.adopt(self._scheduler.staff.adopt(time.monotonic()))
            self._do_slices(pool)
        for at in self.gone:
            self.table.change(at, state=SliceState.GONE)
        # What has come late or is gone changes the tracks of the slices behind it.
        self._tracking.track()
        self._sync_rows()
        self._finish()
        self._tell(Progress("done", 1, 1, self._answering.tiles))

    def _freeze(self, *, withdrawn: bool) -> None:
        """Writes the Items beside the output, with those of earlier runs.

        Args:
            withdrawn: whether to leave out those that this run has searched for and not found;
                while slices show them, they stay.
        """
        if not self.plan.items:
            return
        url = items_beside(self.plan.spec.output)
        searched = self.plan.interval if withdrawn else None
        data = frozen_with(url, self.plan.items, self.plan.series, searched)
        put_fenced(url, data, self._fence)

    def _register(self, slices: Sequence[int]) -> None:
        """Gives new slices their positions, and opens those that are to be done.

        Args:
            slices: positions of the slices; what readers see of a versioned result holds no others
                that are open.
        """
        for at in slices:
            row = self._row(at)
            if at < len(self.table.rows):
                old = self.table.rows[at]
                row = replace(
                    row,
                    failed=old.failed,
                    **{
                        name: getattr(old, name)
                        for rows in KINDS
                        for name in (rows.count, rows.files, rows.size)
                    },
                )
                self.table.rows[at] = row
            else:
                self.table.rows.append(row)
        self.table.save()
        kinds = ["blocks"]
        if self._hidden:  # a fork takes no data behind the shapes, and no reader sees them yet
            kinds += RASTERS
        extend(self.root, self.plan, len(self.table.rows), kinds)
        self._forks.save()

    def _row(self, at: int) -> SliceRow:
        piece = self.plan.slices[at]
        return SliceRow(
            name=piece.name,
            start=piece.start,
            end=max(start_of(self.plan.items[member]) for member in piece.items),
            items=len(piece.items),
            key="",
            blocks=len(self.plan.blocks_of(at)),
            tiles=self.plan.tiles_of(at),
        )

    def _do_slices(self, pool: ReplicaPool) -> None:
        """Does the open slices and publishes them, as many at a time as keep the replicas busy."""
        plan = self.plan
        finishing = Finishing(
            plan, self.root, self._scratch, self._scheduler, self._answering, self._tell
        )
        for batch in self._batches():
            if self._hidden:
                self._register(batch)
            self._answering.slices(pool, batch, self._unfinished, retry=self._retry)
            for at in batch:
                self._scheduler.check_cost(time.monotonic())
                fresh = at >= self._registered
                finishing.slice(pool, at, self.table, self._folders, fresh=fresh)
            self._scheduler.check_cost(time.monotonic())
            self._tracking.track(set(batch))
            self._publish(batch)

    def _batches(self) -> Iterator[list[int]]:
        batch: list[int] = []
        blocks = 0
        # Those that are open already first: the first batch is published with no other open one.
        order = sorted(self.work, key=lambda at: at not in self._unfinished)
        for number, at in enumerate(order, start=1):
            batch.append(at)
            blocks += len(self.plan.blocks_of(at))
            if self._hidden and self._unfinished & set(order[number : number + 1]):
                continue
            if blocks >= BLOCKS_A_REPLICA * self.plan.spec.engine.most:
                yield batch
                batch, blocks = [], 0
        if batch:
            yield batch

    def _publish(self, batch: list[int]) -> None:
        """Lets readers see the slices that are done: shapes and times, the table, metadata."""
        for at in batch:
            self.table.change(at, state=SliceState.FINISHED)
        rows = self.table.rows
        if self._hidden:
            self._sync_rows()  # a state holds the rows of its objects too
        else:
            count = 1 + max(at for at, row in enumerate(rows) if row.state != SliceState.RUNNING)
            extend(self.root, self.plan, count, RASTERS)
        self.table.save()
        store.publish(self.root, [rows[at].name for at in batch])

    def _finish(self) -> None:
        """Writes what comes after the pixels; the mark is the last write of the result."""
        self._holes.check()
        if self._was_finished and self._retry and self._failed_tiles > self._failed_before:
            raise Outage(
                f"{self._failed_tiles} tiles are quarantined, {self._failed_before} were before "
                "they were tried again; run it again with --retry-failed when the imagery is back"
            )
        self._refuse_unfinished(
            {at for at, row in enumerate(self.table.rows) if row.state == SliceState.RUNNING}
        )
        if not self.table.rows:
            raise RunFailed("there is nothing to publish: no item was found, now or before")
        output, rows = self.plan.spec.output, self.table.rows
        for kind in KINDS:
            folder = self._folders[kind.name]
            kept = {name for row in rows for name in files_in(row, kind)}
            there = folder.names()
            folder.delete([name for name in there if is_leftover(name)])
            if not self._hidden:  # earlier states have files of their own
                folder.delete([n for n in there if is_partition(n) and n not in kept])
        self._freeze(withdrawn=True)
        if not self._was_finished or self._scheduler.lost:
            files = fenced(output, self._fence)
            files.delete(files.leftovers())
        self.table.save()
        if not self._hidden:
            store.consolidate(self.root)
        software = store.mark_of(self.root)["software"]
        url = beside(output, ".item.json")
        finished = [row for row in rows if row.finished]
        item = published_item(self.plan, software, finished, published_before(url))
        put_fenced(url, item, self._fence)
        store.set_finished(self.root, self._failed_tiles)
        self.finished = True
        try:
            store.end(self.root)
            self._scratch.clear()
        except (PipelineError, OSError) as error:
            log.warning("scratch could not be cleared", why=str(error))

    def _refuse_unfinished(self, slices: Set[int]) -> None:
        """Refuses to mark a result as finished of which an earlier run has left slices unfinished.

        Args:
            slices: positions of such slices, outside the time of this run.

        Raises:
            RunFailed: there are some.
        """
        left = [self.table.rows[at] for at in slices]
        if left:
            first, last = min(row.start for row in left), max(row.end for row in left)
            raise RunFailed(
                f"{len(left)} time slices that an earlier run began are not finished; run the job "
                f"over their time too: --time {first:%Y-%m-%d}/{last:%Y-%m-%d}. What this run has "
                "done is kept"
            )

    def report(self, started: float) -> RunReport:
        """Returns the report of the run.

        Args:
            started: when it began, by the monotonic clock.
        """
        rows = self.table.rows
        mine = [at for at in range(len(rows)) if self.plan.slices[at].items]
        idle = sum(rows[at].blocks for at in set(mine) - set(self.work))
        return RunReport(
            output=self.plan.spec.output,
            slices=len(self.work),
            slices_before=len(mine) - len(self.work),
            slices_gone=len(self.gone),
            blocks=idle + self.blocks,
            blocks_before=idle + self._answering.before,
            tiles=self._answering.tiles,
            empty_tiles=self._answering.empty,
            repeated_blocks=self._scheduler.repeated,
            failed_tiles=sum(row.failed for row in rows),
            passing_tiles=sum(row.passing for row in rows),
            failures=self._holes.reasons,
            objects=sum(row.objects for row in rows if row.finished),
            unanswered_prompts=sum(rows[at].unanswered for at in self.work),
            refused_prompts=self.plan.refused_prompts,
            seconds=time.monotonic() - started,
            replica_seconds=self.replica_seconds,
            cost=cost_of(self.plan.spec.engine, self.replica_seconds),
        )
