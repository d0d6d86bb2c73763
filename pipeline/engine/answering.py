"""Infers and commits the blocks of some time slices: what is missing, stale, or beside such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zarr

from earthgptx.pipeline.engine.commit import erase_blocks
from earthgptx.pipeline.engine.drive import drive
from earthgptx.pipeline.engine.forks import Forks
from earthgptx.pipeline.engine.growth import Left, SliceWork, around, work_of
from earthgptx.pipeline.engine.holes import Holes
from earthgptx.pipeline.engine.ledger import Entry, Ledger
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.engine.retry import reachable
from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.scratch import FailedTiles, Scratch, ScratchLost
from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.infer import BlockReport
    from earthgptx.pipeline.engine.pool import ReplicaPool


class Answering:
    """Has blocks answered; keeps them as keys and counts."""

    def __init__(
        self,
        plan: Plan,
        root: zarr.Group,
        scratch: Scratch,
        scheduler: Scheduler,
        holes: Holes,
        forks: Forks,
        on_progress: Callable[[Progress], None],
        total: int,
    ) -> None:
        """Begins with nothing done.

        Args:
            plan: plan of the run.
            root: root group of the result.
            scratch: scratch of the run.
            scheduler: scheduler of the run.
            holes: quarantined tiles of the run.
            forks: what tasks write into, if the result is versioned.
            on_progress: callback that receives the progress.
            total: number of blocks of all slices that the run works on.
        """
        self.plan, self.ledger = plan, Ledger(root, plan)
        self.done: set[BlockKey] = set()
        """Committed blocks of these slices."""
        self.before = self.tiles = self.empty = 0
        """Blocks that earlier runs committed; tiles inferred; tiles without questions."""
        self._root, self._scratch, self._scheduler, self._holes = root, scratch, scheduler, holes
        self._forks = forks
        self._tell, self._total = on_progress, total
        self._doubted: dict[BlockKey, FailedTiles] = {}
        self._counts: dict[BlockKey, tuple[int, int]] = {}
        """Answered and empty tiles of each block that this run inferred."""
        self._borders: dict[Task, bool] = {}
        """Commits that only change the border of a block that is committed already."""
        self._unwritten: list[BlockKey] = []
        """Blocks whose entry is not written yet, so that their scores are kept."""

    def slices(
        self, pool: ReplicaPool, slices: Iterable[int], unfinished: Set[int], *, retry: bool
    ) -> None:
        """Infers and commits what has to be of some slices.

        Args:
            pool: replica pool of the run.
            slices: positions of the slices.
            unfinished: those that an earlier run has left unfinished.
            retry: whether to infer committed blocks with quarantined tiles again; of unfinished
                slices, those whose cause may pass are in any case.

        Raises:
            PipelineError: the run ends before its end.
        """
        for at in slices:
            work = self._look_at(at, at in unfinished, retry=retry)
            self._borders |= {Task(Kind.COMMIT, key): True for key in work.border}
        self._holes.check()
        drive(self._scheduler, pool, on_done=self.on_done, payloads=self._borders)
        self._holes.check()
        self.flush()

    def _look_at(self, at: int, unfinished: bool, *, retry: bool) -> SliceWork:
        """Finds what has to be done of a slice, opens it in the ledger, and adds its tasks."""
        plan, scratch, keys = self.plan, self._scratch, self.plan.blocks_of(at)
        wanted = {key: plan.content_of(key) for key in keys}
        entries = self.ledger.of_slice(at)
        self._vouch(entries)
        kept = {key for key in keys if key in entries and entries[key].content == wanted[key]}
        for key in kept:
            self._holes.note(key, entries[key].failed)
        again = self._to_try_again(keys, kept, unfinished, retry=retry)
        scratch.drop_scores(again)
        self._holes.forget(again)
        left = Left(
            frames=scratch.there("frames", keys),
            parts=scratch.there("objects", keys),
            scores=scratch.there("scores", keys),
        )
        work = work_of(wanted, entries, left, again)
        # Opened before anything is written, so that a run that ends leaves none as it was.
        self.ledger.reopen(sorted(work.reopen))
        self.ledger.open(sorted(work.open))
        self.flush()
        if work.erase:
            erase_blocks(self._root, plan, at, work.erase)
            self.ledger.clear(sorted(work.erase))
            self.flush()
        self.done |= kept - work.commit
        self.before += len(kept - work.commit)
        for key in keys:
            pieces = plan.grids[key.grid].tile_count(key)
            self._scheduler.add(Task(Kind.INFER, key), pieces=pieces, done=key not in work.infer)
        for key in keys:
            needs = [Task(Kind.INFER, near) for near in around(key) if near in wanted]
            self._scheduler.add(Task(Kind.COMMIT, key), needs, done=key not in work.commit)
        return work

    def _vouch(self, entries: dict[BlockKey, Entry]) -> None:
        """Tells the scheduler of blocks that the model has answered."""
        answered = [key for key, each in entries.items() if each.tiles > each.failed.failed]
        whole = [key for key in answered if not entries[key].failed.failed]
        if answered:
            known = [key for key in whole if self.plan.holds(key)]
            self._scheduler.vouch(Task(Kind.INFER, known[0]) if known else None)

    def _to_try_again(
        self, keys: Sequence[BlockKey], kept: set[BlockKey], unfinished: bool, *, retry: bool
    ) -> set[BlockKey]:
        """Returns the blocks to infer again for their quarantined tiles.

        Those that an unfinished run has left, if their cause may pass; all of them if asked for.
        Where the imagery is still down, nothing is tried.
        """
        noted = self._scratch.there("failed", keys) - kept
        for key in noted:
            try:
                self._holes.note(key, self._scratch.get_failed(key))
            except ScratchLost:
                self._holes.note(key, FailedTiles(1, 1))
        failed = {key for key in kept if key in self._holes}
        passing = self._holes.passing
        asked = failed if retry else failed & passing if unfinished else set()
        return reachable(self.plan, (noted | asked) & passing) | (asked - passing)

    def again(self, pool: ReplicaPool, keys: Iterable[BlockKey]) -> None:
        """Infers blocks again whose answers are lost."""
        for key in keys:
            pieces = self.plan.grids[key.grid].tile_count(key)
            self._scheduler.add(Task(Kind.INFER, key), pieces=pieces)
        drive(self._scheduler, pool, on_done=self.on_done, payloads=self._borders)

    def on_done(self, task: Task, result: Any) -> None:
        """Takes the result of a task."""
        key = task.key
        if task.kind == Kind.COMMIT:
            self._commit(key, result)
        elif task.kind == Kind.INFER:
            if key in self.done and (result.failed or key in self._holes):
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
        if self.ledger.due:
            self.flush()
        self._tell(Progress("infer", len(self.done), self._total, self.tiles))

    def _commit(self, key: BlockKey, entry: Entry | None) -> None:
        """Notes that a block is committed.

        Args:
            key: the block.
            entry: what the ledger is to say of it; None if only its border has changed.
        """
        self.done.add(key)
        if key in self._doubted:
            self._holes.note(key, self._doubted.pop(key))
        self.ledger.note(key, entry or replace(self.ledger.of(key), committed=True))
        self._unwritten.append(key)

    def flush(self) -> None:
        """Writes the ledger, then drops the scores of what is committed."""
        self.ledger.flush()
        self._forks.save()
        self._scratch.drop_scores(self._unwritten)
        self._unwritten = []

    def _count(self, key: BlockKey, report: BlockReport) -> None:
        """Counts the tiles of a block once, however often it is inferred."""
        tiles, empty = self._counts.get(key, (0, 0))
        self._counts[key] = report.done, report.empty
        self.tiles += report.done - tiles
        self.empty += report.empty - empty

    def _commit_again(self, key: BlockKey) -> None:
        """Has a committed block committed again whose tiles failed then, or fail now."""
        touched = {near for near in around(key) if near in self.done}
        self.ledger.reopen(touched - {key})
        self.ledger.open([key])
        self.flush()
        self.done -= touched
        self._borders |= {Task(Kind.COMMIT, other): True for other in touched}
        self._borders.pop(Task(Kind.COMMIT, key), None)
        for other in sorted(touched):
            needs = [Task(Kind.INFER, near) for near in around(other) if self.plan.holds(near)]
            self._scheduler.add(Task(Kind.COMMIT, other), needs)
