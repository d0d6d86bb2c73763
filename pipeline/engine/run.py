"""Runs a plan on Ray: blocks go to replicas, answers to scratch, whole shards to the store.

The driver holds the plan, object references, small reports and objects, but no imagery or rasters.
An uninterrupted run infers every block once. A replica that dies is replaced and its blocks run
again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import zarr

from earthgptx.catalogs.search import freeze
from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine.infer import BlockReport
from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.engine.ledger import committed, failed_tiles
from earthgptx.pipeline.engine.output import prepare_output, publish_result
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.errors import OutputError, PipelineError, RunFailed
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.objects.stitch import painted, stitch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.layout import create
from earthgptx.pipeline.results.object_table import to_frame, write_objects


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one stage of a run."""

    stage: str
    """Stage: infer, stitch, blank, overview or done."""
    done: int
    total: int
    tiles: int
    """Tiles inferred in this run."""


@dataclass(kw_only=True)
class RunReport:
    """Final report of a run."""

    output: str
    blocks: int
    """Blocks of the plan, committed by this run or earlier ones."""
    blocks_before: int
    """Blocks committed by earlier runs."""
    tiles: int
    """Tiles inferred in this run."""
    empty_tiles: int
    """Tiles of this run outside the AOI, without data or masked, which are not inferred."""
    failed_tiles: int
    """Tiles quarantined by this run or earlier ones."""
    failures: list[str]
    """Reasons for up to 10 failures in this run, one sentence each."""
    objects: int
    refused_prompts: dict[str, str]
    """Reason by prompt id."""
    seconds: float


def run(
    plan: Plan,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    pool: ReplicaPool | None = None,
) -> RunReport:
    """Runs a plan, or resumes an earlier run of it.

    Args:
        plan: plan to run.
        overwrite: whether to replace another plan's result, or a finished one of the same plan.
        on_progress: callback that receives the progress of each stage.
        pool: replica pool to use, with its own engine settings; None to start one as the job says.

    Raises:
        OutputError: the output belongs to another plan or another run, or cannot be written.
        RunFailed: the run stopped; finished blocks are kept, and the next run resumes from there.
        RunLost: another run took the lease.
    """
    output = plan.spec.output
    started = time.monotonic()
    scratch = Scratch(output)
    with _disk_errors(output), Lease(scratch) as lease:
        prepare_output(plan, output, scratch, overwrite=overwrite)
        root = create(plan, output)
        with ExitStack() as own:
            pool = pool or own.enter_context(ReplicaPool(plan.spec.engine))
            try:
                with pool.serving(plan, output, lease.token):
                    report = _Run(plan, scratch, root, pool, on_progress).all(started)
            except KeyboardInterrupt:
                store.finish(root, "canceled", failed_tiles(root, plan))
                raise RunFailed(
                    f"interrupted; {len(committed(root, plan))} of {len(plan.blocks)} blocks "
                    "are finished and kept. Run the same command again to go on"
                ) from None
            except PipelineError:
                store.finish(root, "error", failed_tiles(root, plan))
                raise
    scratch.clear()
    return report


class _Run:
    """Drives one run; tracks its blocks as keys and counts."""

    def __init__(
        self,
        plan: Plan,
        scratch: Scratch,
        root: zarr.Group,
        pool: ReplicaPool,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._plan, self._scratch, self._root, self._pool, self._tell = (
            plan,
            scratch,
            root,
            pool,
            on_progress,
        )
        self._tiles = self._empty = 0
        self._failures: list[str] = []

    def all(self, started: float) -> RunReport:
        plan, root = self._plan, self._root
        before = committed(root, plan)
        finished = store.mark_of(root)["state"] == "finished"
        if finished:
            count = int(store.array_at(root, "objects/object_id").shape[0])
        else:
            store.finish(root, "running", failed_tiles(root, plan))
            # Freeze first, so that an interrupted run can resume even if the catalog has changed.
            freeze(plan.items, items_beside(plan.spec.output))
            self._infer_and_commit(set(before))
            self._tell(Progress("stitch", 0, 1, self._tiles))
            objects = stitch(plan, ((key, *self._scratch.get_parts(key)) for key in plan.blocks))
            self._paint(painted(plan, objects))
            self._each([("blank", key, ()) for key in plan.empty_blocks()], "blank")
            self._overviews()
            frame = to_frame(plan, objects)
            base = plan.spec.output.removesuffix(".zarr")
            write_objects(root, frame, f"{base}.objects.parquet")
            failed = failed_tiles(root, plan)
            store.finish(root, "finished", failed)
            publish_result(plan, base, store.mark_of(root)["software"])
            count = len(objects)
        self._tell(Progress("done", 1, 1, self._tiles))
        return RunReport(
            output=plan.spec.output,
            blocks=len(plan.blocks),
            blocks_before=len(before),
            tiles=self._tiles,
            empty_tiles=self._empty,
            failed_tiles=failed_tiles(root, plan),
            failures=self._failures,
            objects=count,
            refused_prompts=plan.refused_prompts,
            seconds=time.monotonic() - started,
        )

    def _infer_and_commit(self, done: set[BlockKey]) -> None:
        """Infers the blocks whose answers are missing in scratch, and commits all blocks.

        A block is committed as soon as it and its neighbours are inferred.

        Args:
            done: blocks that are committed; updated in place.
        """
        plan, pool = self._plan, self._pool
        around = {
            key: [key, *(n for n in key.neighbours() if n in plan.block_set)] for key in plan.blocks
        }
        parts = {name.removesuffix(".parquet") for name in self._scratch.names("objects")}
        inferred = _keys(plan, self._scratch.names("scores") & parts)
        # A committed block's scores are dropped when no neighbour needs them. Its parts are kept
        # for `stitch`, so a block without parts is inferred again.
        needed = {n for key in plan.block_set - done for n in around[key]} | (
            plan.block_set - _keys(plan, parts)
        )
        to_infer = [key for key in reversed(plan.blocks) if key in needed - inferred]
        uncommitted = set(plan.block_set - done)
        to_commit = [
            key
            for key in reversed(plan.blocks)
            if key in uncommitted and inferred.issuperset(around[key])
        ]
        uncommitted -= set(to_commit)
        failed = failed_tiles(self._root, plan)
        limit = plan.spec.engine.max_failed_fraction * max(plan.tile_count, 1)
        while to_infer or to_commit or pool.busy:
            while (to_infer or to_commit) and pool.has_room:
                if to_commit:
                    pool.submit("commit", to_commit.pop())
                else:
                    pool.submit("infer", to_infer.pop())
            for kind, key, result in pool.collect():
                if kind == "commit":
                    done.add(key)
                    self._scratch.drop_scores(n for n in around[key] if done.issuperset(around[n]))
                else:
                    report = cast("BlockReport", result)
                    inferred.add(key)
                    self._tiles += report.done
                    self._empty += report.empty
                    self._failures = (self._failures + list(report.failures))[:10]
                    failed += report.failed if key not in done else 0
                    self._check_failures(failed, limit)
                    ready = [
                        n
                        for n in around[key]
                        if n in uncommitted and inferred.issuperset(around[n])
                    ]
                    uncommitted.difference_update(ready)
                    to_commit += ready
                self._tell(Progress("infer", len(done), len(plan.blocks), self._tiles))

    def _check_failures(self, failed: int, limit: float) -> None:
        if failed > limit:
            reasons = Counter(sentence.split(": ", 1)[-1] for sentence in self._failures)
            first = reasons.most_common(1)[0][0] if reasons else "see the group tiles of the result"
            raise RunFailed(
                f"{failed} of {self._plan.tile_count} tiles failed, more than "
                f"engine.max_failed_fraction {self._plan.spec.engine.max_failed_fraction} allows; "
                f"the commonest reason: {first}. Finished blocks are kept"
            )

    def _paint(self, masks: dict[BlockKey, list[tuple[int, Mask]]]) -> None:
        self._each(
            [("paint", key, (masks[key],)) for key in self._plan.blocks if key in masks], "stitch"
        )

    def _overviews(self) -> None:
        plan = self._plan
        for factor in sorted(
            {factor for grid in plan.grids.values() for factor in store.overview_factors(grid)}
        ):
            shards = [
                ("overview", BlockKey(name, time, row, col), (factor,))
                for name, grid in plan.grids.items()
                if factor in store.overview_factors(grid)
                for time in range(len(plan.slices))
                for row in range(-(-grid.blocks_shape[0] // factor))
                for col in range(-(-grid.blocks_shape[1] // factor))
            ]
            self._each(shards, "overview")

    def _each(self, tasks: Sequence[tuple[str, BlockKey, tuple[object, ...]]], stage: str) -> None:
        total, done = len(tasks), 0
        tasks = list(reversed(tasks))
        while tasks or self._pool.busy:
            while tasks and self._pool.has_room:
                kind, key, args = tasks.pop()
                self._pool.submit(kind, key, *args)
            done += len(self._pool.collect())
            self._tell(Progress(stage, done, total, self._tiles))


def _keys(plan: Plan, names: set[str]) -> set[BlockKey]:
    return {key for key in plan.blocks if str(key) in names}


@contextmanager
def _disk_errors(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{output} cannot be written: {reason}. Finished blocks are kept; "
            "make room and run again"
        ) from error
