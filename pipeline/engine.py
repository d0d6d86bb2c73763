"""Runs a plan on Ray: blocks go to replicas, answers to scratch, whole shards to the store.

The driver holds the plan, references and small reports, never pixels. Every block is inferred once
in a run that is not interrupted; a replica that dies is replaced and its blocks run again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import shapely
import zarr

from catalogs.publish import Published, publish
from catalogs.search import freeze, start_of
from model.region import Mask
from pipeline import store
from pipeline.crew import Crew
from pipeline.errors import OutputError, PipelineError, RunFailed
from pipeline.grid import BlockKey
from pipeline.job import items_beside
from pipeline.ledger import Lease, committed, failed_tiles
from pipeline.plan import Plan, to_lonlat
from pipeline.replica import BlockReport
from pipeline.scratch import KINDS, Scratch
from pipeline.stitch import painted, stitch, to_frame, write_objects


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    stage: str
    """infer, stitch, blank, overview or done."""
    done: int
    total: int
    tiles: int
    """Inferred in this run."""


@dataclass(kw_only=True)
class RunReport:
    """What a run did; the last word."""

    output: str
    blocks: int
    """Committed, of earlier runs too."""
    blocks_before: int
    """Committed by earlier runs."""
    tiles: int
    """Inferred in this run."""
    empty_tiles: int
    failed_tiles: int
    """Quarantined, of earlier runs too."""
    failures: list[str]
    """The first few, a sentence each."""
    objects: int
    refused_prompts: dict[str, str]
    seconds: float


def run(
    plan: Plan,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    crew: Crew | None = None,
) -> RunReport:
    """Run a plan, or go on with what an earlier run of it left.

    Args:
        plan: what to do.
        overwrite: replace a result of another plan that lies at the output.
        on_progress: called on the way.
        crew: that runs it, with what it has of replicas; None for one of its own, as the job wants it.

    Raises:
        OutputError: the output is another plan's, another run's, or cannot be written.
        RunFailed: the job stopped; what is finished is kept, and the next run goes on from there.
    """
    output = plan.spec.output
    started = time.monotonic()
    scratch = Scratch(output)
    with _disk_errors(output), Lease(scratch) as lease:
        _prepare(plan, output, scratch, overwrite=overwrite)
        root = store.create(plan, output)
        with ExitStack() as own:
            crew = crew or own.enter_context(Crew(plan.spec.engine))
            try:
                with crew.at_work(plan, output, lease.token):
                    report = _Run(plan, scratch, root, crew, on_progress).all(started)
            except KeyboardInterrupt:
                store.finish(root, "canceled", failed_tiles(root, plan))
                raise RunFailed(
                    f"interrupted; {len(committed(root, plan))} of {len(plan.blocks)} blocks are finished and kept. "
                    "Run the same command again to go on"
                ) from None
            except PipelineError:
                store.finish(root, "error", failed_tiles(root, plan))
                raise
    scratch.clear()
    return report


def _prepare(plan: Plan, output: str, scratch: Scratch, *, overwrite: bool) -> None:
    if not store.exists(output):
        stale = [kind for kind in KINDS if scratch.names(kind)]
        for kind in stale:  # of a store that was deleted
            scratch.drop(kind, scratch.names(kind))
        return
    there = store.mark_of(store.open_group(output, mode="r"))
    if there["plan_id"] == plan.plan_id and not (overwrite and there["state"] == "finished"):
        return
    if not overwrite:
        raise OutputError(
            f"{output} holds the result of another plan ({_difference(there, plan)}); choose another output, or give "
            "--overwrite to replace it"
        )
    store.remove(output)
    for kind in KINDS:
        scratch.drop(kind, scratch.names(kind))


def _difference(there: dict[str, Any], plan: Plan) -> str:
    """What differs between a store's job and a plan, in a few words."""
    job = plan.spec.model_dump(mode="json", by_alias=True)
    keys = [key for key in ("slices", "grid", "prompts", "tasks", "model") if there["job"].get(key) != job[key]]
    keys += [
        f"source.{key}"
        for key in ("collections", "aoi", "time", "filter", "profiles")
        if there["job"]["source"].get(key) != job["source"][key]
    ]
    items = {f"{item.collection_id}/{item.id}" for item in plan.items}
    if set(there["items"]) != items:
        frozen = items_beside(plan.spec.output)
        keys.append(
            f"items ({len(there['items'])} then, {len(items)} now; to go on with those of then, set source.catalog to {frozen})"
        )
    if there["model"]["digest"] != plan.traits.digest:
        keys.append("the model's version")
    return "differs in " + ", ".join(keys or ["a file that it reads, or the version of the code"])


class _Run:
    """One run's bookkeeping. Small: keys and counts."""

    def __init__(
        self, plan: Plan, scratch: Scratch, root: zarr.Group, crew: Crew, on_progress: Callable[[Progress], None]
    ) -> None:
        self._plan, self._scratch, self._root, self._crew, self._tell = plan, scratch, root, crew, on_progress
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
            # First, so that a run that is broken off can go on when the catalog has changed meanwhile.
            freeze(plan.items, items_beside(plan.spec.output))
            self._infer_and_commit(set(before))
            self._tell(Progress("stitch", 0, 1, self._tiles))
            objects = stitch(plan, self._scratch)
            self._paint(painted(plan, objects))
            self._each([("blank", key, ()) for key in plan.unasked()], "blank")
            self._overviews()
            frame = to_frame(plan, objects)
            base = plan.spec.output.removesuffix(".zarr")
            write_objects(root, frame, f"{base}.objects.parquet")
            failed = failed_tiles(root, plan)
            store.finish(root, "finished", failed)
            _publish(plan, base, store.mark_of(root)["software"])
            count = len(objects)
        self._tell(Progress("done", 1, 1, self._tiles))
        return RunReport(
            output=plan.spec.output, blocks=len(plan.blocks), blocks_before=len(before), tiles=self._tiles,
            empty_tiles=self._empty, failed_tiles=failed_tiles(root, plan), failures=self._failures, objects=count,
            refused_prompts=plan.refused_prompts, seconds=time.monotonic() - started,
        )  # fmt: skip

    def _infer_and_commit(self, done: set[BlockKey]) -> None:
        """Infer what has no answers in scratch yet; commit a block as soon as its neighbours are inferred too."""
        plan, crew = self._plan, self._crew
        around = {key: [key, *(n for n in key.neighbours() if n in plan.block_set)] for key in plan.blocks}
        parts = {name.removesuffix(".parquet") for name in self._scratch.names("objects")}
        inferred = _keys(plan, self._scratch.names("scores") & parts)
        # A committed block's scores are dropped when no neighbour needs them; its parts are kept for `stitch`.
        needed = {n for key in plan.block_set - done for n in around[key]} | (plan.block_set - _keys(plan, parts))
        to_infer = [key for key in reversed(plan.blocks) if key in needed - inferred]
        uncommitted = set(plan.block_set - done)
        to_commit = [key for key in reversed(plan.blocks) if key in uncommitted and inferred.issuperset(around[key])]
        uncommitted -= set(to_commit)
        failed = failed_tiles(self._root, plan)
        limit = plan.spec.engine.max_failed_fraction * max(plan.tile_count, 1)
        while to_infer or to_commit or crew.busy:
            while (to_infer or to_commit) and crew.has_room:
                if to_commit:
                    crew.submit("commit", to_commit.pop())
                else:
                    crew.submit("infer", to_infer.pop())
            for kind, key, result in crew.collect():
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
                    ready = [n for n in around[key] if n in uncommitted and inferred.issuperset(around[n])]
                    uncommitted.difference_update(ready)
                    to_commit += ready
                self._tell(Progress("infer", len(done), len(plan.blocks), self._tiles))

    def _check_failures(self, failed: int, limit: float) -> None:
        if failed > limit:
            reasons = Counter(sentence.split(": ", 1)[-1] for sentence in self._failures)
            first = reasons.most_common(1)[0][0] if reasons else "see the group tiles of the result"
            raise RunFailed(
                f"{failed} of {self._plan.tile_count} tiles failed, more than engine.max_failed_fraction "
                f"{self._plan.spec.engine.max_failed_fraction} allows; the commonest reason: {first}. Finished blocks are kept"
            )

    def _paint(self, masks: dict[BlockKey, list[tuple[int, Mask]]]) -> None:
        self._each([("paint", key, (masks[key],)) for key in self._plan.blocks if key in masks], "stitch")

    def _overviews(self) -> None:
        plan = self._plan
        for factor in sorted({factor for grid in plan.grids.values() for factor in store.overview_factors(grid)}):
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
        while tasks or self._crew.busy:
            while tasks and self._crew.has_room:
                kind, key, args = tasks.pop()
                self._crew.submit(kind, key, *args)
            done += len(self._crew.collect())
            self._tell(Progress(stage, done, total, self._tiles))


def _publish(plan: Plan, base: str, software: dict[str, str]) -> None:
    name = base.rsplit("/", 1)[-1]
    tasks = plan.spec.tasks
    published = Published(
        id=name, geometry=shapely.union_all([to_lonlat(grid.owned, grid.crs) for grid in plan.grids.values()]),
        start=min(start_of(item) for item in plan.items), end=max(start_of(item) for item in plan.items),
        crs=tuple(grid.crs for grid in plan.grids.values()), phrases=tuple(tasks.find), model=plan.traits.name,
        model_digest=plan.traits.digest, plan_id=plan.plan_id, software=software,
        tasks=("semantic-segmentation", "instance-segmentation", *(["image-captioning"] if tasks.describe else [])),
        sources=tuple(item.get_self_href() or f"{item.collection_id}/{item.id}" for item in plan.items),
    )  # fmt: skip
    publish(
        published, f"{base}.item.json",
        {
            "raster": (f"./{name}.zarr", "application/vnd.zarr; version=3"),
            "objects": (f"./{name}.objects.parquet", "application/vnd.apache.parquet"),
            "items": (f"./{name}.items.parquet", "application/vnd.apache.parquet"),
        },
    )  # fmt: skip


def _keys(plan: Plan, names: set[str]) -> set[BlockKey]:
    return {key for key in plan.blocks if str(key) in names}


@contextmanager
def _disk_errors(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{output} cannot be written: {reason}. Finished blocks are kept; make room and run again"
        ) from error
