"""What it costs a result to grow: an update against a long history, an idle run, a late scene.

A history of made slices is written into a store as a run would leave it, without rasters; the
updates are real runs of a model that answers nothing, on 400 blocks a slice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pystac

from earthgptx import JobSpec, plan, run
from earthgptx.catalogs.geoparquet import frozen
from earthgptx.model.interface.tile import AnalystTraits, TileInput, TileOutput
from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.engine.ledger import Entry, Ledger
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import RunReport
from earthgptx.pipeline.engine.scratch import FailedTiles
from earthgptx.pipeline.engine.tracking import Tracking
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.layout import create, extend
from earthgptx.pipeline.results.object_table import KINDS, OBJECTS
from earthgptx.pipeline.results.partitions import rows_beside
from earthgptx.pipeline.results.rows_group import sync_rows
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState, SliceTable
from earthgptx.pipeline.storage.fence import FencedBlobs, FencedStore, fenced
from tests.archive import Archive

FIRST = datetime(2025, 1, 1, 10, tzinfo=UTC)
BLOCK = 256


class Silent:
    """An analyst that finds nothing."""

    @staticmethod
    def traits() -> AnalystTraits:
        return AnalystTraits(
            name="silent",
            digest="silent",
            context_px=8,
            tiles_per_batch=16,
            min_score=0.5,
            min_area_px=1,
            max_area_px=1000,
            same_object_overlap=0.5,
        )

    @classmethod
    def load(cls) -> Silent:
        return cls()

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        return [
            TileOutput(
                scores=np.zeros((len(tile.phrases), *tile.valid.shape), np.uint8),
                groundings=(),
                caption="",
            )
            for tile in tiles
        ]


def make_archive(folder: Path, days: int, side: int) -> Archive:
    """An Item a day, all of one file of `side` x `side` blocks."""
    archive = Archive(folder)
    archive.add("day-000", np.full((side * BLOCK, side * BLOCK), 9, np.uint8), nodata=None)
    [first] = list(archive.catalog.get_items())
    archive.catalog = pystac.Catalog("made", "made for a benchmark")
    for number in range(days):
        item = first.clone()
        item.id = f"day-{number:03d}"
        item.datetime = FIRST + timedelta(days=number)
        archive.catalog.add_item(item)
    archive.save()
    return archive


def make_job(archive: Archive, output: Path, interval: str = "../..") -> JobSpec:
    return archive.job(
        output,
        grid={"tile_px": 256, "halo_px": 64, "block_px": BLOCK},
        model="benchmarks.growth:Silent",
        source={"time": interval},
    )


def day(number: int) -> str:
    return f"{FIRST + timedelta(days=number):%Y-%m-%d}"


def make_history(job: JobSpec) -> None:
    """Writes the output as a run over the job would leave it, without rasters."""
    made = plan(job)
    Path(job.output).parent.mkdir(parents=True, exist_ok=True)
    with Lease(job.output) as lease:
        root = create(made, job.output, lease.fence)
        table, ledger = SliceTable(root), Ledger(root, made)
        for at, piece in enumerate(made.slices):
            blocks, tiles = made.blocks_of(at), made.tiles_of(at)
            key = made.content_of_slice(at)
            row = SliceRow(piece.name, piece.start, piece.start, 1, key, len(blocks), tiles)
            table.rows.append(replace(row, state=SliceState.FINISHED))
            for block in blocks:
                content = made.content_of(block)
                ledger.note(block, Entry(4, FailedTiles(0, 0), content))
            ledger.flush()
            ledger.drop(at)
        table.save()
        extend(root, made, len(table.rows), ["blocks", "tiles", "raster", "overview"])
        for rows in KINDS:
            sync_rows(root, fenced(rows_beside(job.output, rows.name), lease.fence), table, rows)
        objects = fenced(rows_beside(job.output, OBJECTS.name), lease.fence)
        Tracking(root, objects, table).track()
        table.save()
        Path(items_beside(job.output)).write_bytes(frozen(made.items, made.series))
        store.consolidate(root)
        store.set_finished(root, 0)
        lease.finished = True


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the objects that this process reads and writes."""
    count: Counter[str] = Counter()
    with ExitStack() as patched:
        for owner, name, what in (
            (FencedStore, "get", "read"),
            (FencedStore, "_write", "written"),
            (FencedBlobs, "get", "read"),
            (FencedBlobs, "put", "written"),
        ):
            patched.enter_context(patch.object(owner, name, _counting(owner, name, what, count)))
        yield count


def _counting(owner: type, name: str, what: str, count: Counter[str]) -> Callable[..., Any]:
    """A method, which may be a coroutine, that counts its calls."""
    method = getattr(owner, name)

    def counted_call(*args: Any, **more: Any) -> Any:
        count[what] += 1
        return method(*args, **more)

    return counted_call


def updated(archive: Archive, output: Path, number: int, pool: ReplicaPool) -> tuple[float, int]:
    """Seconds and objects of a run that adds a day."""
    started = time.perf_counter()
    with counted() as count:
        report: RunReport = run(plan(make_job(archive, output, day(number))), pool=pool)
    assert (report.slices, report.failed_tiles) == (1, 0)
    return time.perf_counter() - started, count.total()


def idle_seconds(job: JobSpec, folder: Path) -> float:
    """Seconds of the command over an output that lacks nothing."""
    path = folder / "job.yaml"
    path.write_text(json.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True)))
    started = time.perf_counter()
    command = [sys.executable, "-m", "earthgptx.workflows.cli", "run", str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "nothing to do" in said, said
    return time.perf_counter() - started


def late_share(folder: Path, side: int, pool: ReplicaPool) -> float:
    """Tiles inferred after a late Item over a fifth of a slice, of those of the slice."""
    archive = Archive(folder / "late")
    archive.add("all", np.full((side * BLOCK, side * BLOCK), 9, np.uint8), nodata=None)
    archive.add(
        "late",
        np.full((side * BLOCK, side * BLOCK // 5), 9, np.uint8),
        when="2026-01-01T11:00:00Z",
        nodata=None,
    )
    job = make_job(archive, folder / "late.zarr")
    archive.publish(["all"])
    first = run(plan(job), pool=pool)
    archive.publish(["all", "late"])
    return run(plan(job), pool=pool).tiles / first.tiles


def measure(days: int, side: int) -> dict[str, float | str]:
    """Figures of a history of so many days, each of `side` x `side` blocks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = make_archive(folder / "archive", days, side)
        short, long = folder / "short.zarr", folder / "long.zarr"
        make_history(make_job(archive, short, f"{day(0)}"))
        make_history(make_job(archive, long, f"{day(0)}/{day(days - 2)}"))
        with ReplicaPool(make_job(archive, short).engine) as pool:
            share = late_share(folder, side, pool)  # warms the replicas
            second = updated(archive, short, 1, pool)
            last = updated(archive, long, days - 1, pool)
        idle = idle_seconds(make_job(archive, long), folder)
        return {
            "update_2_s": second[0],
            f"update_{days}_s": last[0],
            f"update_ratio_{days}": last[0] / second[0],
            "update_2_objects": float(second[1]),
            f"update_objects_ratio_{days}": last[1] / second[1],
            "idle_run_s": idle,
            "late_item_share": share,
        }
