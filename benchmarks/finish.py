"""What it costs the driver to finish a time slice of many objects: to stitch them and write them.

The objects lie in the files that blocks leave, 2,500 a block, and 3 in 100 of them are cut by the
border of two blocks. They become GeoParquet files and rows in Zarr, in a process of its own.
Beside it, what pyarrow alone takes to write the same rows: the bare limit.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from benchmarks.growth import BLOCK, make_archive, make_job
from benchmarks.report import arguments, report
from earthgptx import JobSpec, open_result, plan
from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.engine.gathering import Gathering
from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.engine.scratch import BlockObjects, Scratch
from earthgptx.pipeline.job.grid import BlockKey, Grid
from earthgptx.pipeline.objects.finals import (
    ANSWER,
    FINAL,
    TILE_REPLY,
    finals_table,
    outline_columns,
)
from earthgptx.pipeline.objects.measure import ground
from earthgptx.pipeline.objects.parts import Part
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results import store
from earthgptx.pipeline.results.layout import create
from earthgptx.pipeline.results.object_table import ANSWERS, OBJECTS
from earthgptx.pipeline.results.partitions import rows_beside
from earthgptx.pipeline.results.rows_group import put_files, sync_rows
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState, SliceTable
from earthgptx.pipeline.storage.fence import fenced

A_BLOCK, CUT = 2500, 0.03
"""Objects of a block, and the share of them that a border cuts, which two blocks see."""


def part(mask: Mask, key: BlockKey, grid: Grid) -> Part:
    own = grid.block_window(key)
    col = min(max(mask.x0 + mask.width // 2, own.x0), own.x1 - 1)
    tile = next(
        tile
        for tile in grid.tiles(key)
        if tile.core.y0 <= mask.y0 < tile.core.y1 and tile.core.x0 <= col < tile.core.x1
    )
    return Part(
        label="ship",
        score=0.9,
        mask=mask,
        caption="",
        prompt_ids=(),
        prompted=False,
        tile=(tile.row, tile.col),
        scope=tile.window.grown(-8),
        cut=False,
        at_home=True,
        item="made/day-000",
    )


def block_objects(made: Plan, key: BlockKey, sample: pa.Table) -> BlockObjects:
    """The sample's objects, moved to another block, and parts at its left and right border."""
    grid = made.grids[key.grid]
    east, south = key.col * BLOCK, key.row * BLOCK
    outlines = shapely.from_wkb(sample["geometry"].to_numpy(zero_copy_only=False))
    step = np.array([east * 1.2e-4, -south * 0.9e-4])
    geometry, bbox = outline_columns(shapely.transform(outlines, lambda at: at + step))
    number = (key.row * 1000 + key.col) * 10_000
    moved = {
        "object_id": pa.array(number + np.arange(len(sample))),
        "lon": pa.array(sample["lon"].to_numpy() + step[0]),
        "lat": pa.array(sample["lat"].to_numpy() + step[1]),
        "geometry": geometry,
        "bbox": bbox,
    }
    finals = pa.Table.from_arrays(
        [moved.get(name, sample[name]) for name in FINAL.names], schema=FINAL
    )
    parts = []
    for border in (east, east + BLOCK):
        if 0 < border < grid.shape[1]:
            for at in range(round(A_BLOCK * CUT)):
                y0 = south + at * (BLOCK - 4) // round(A_BLOCK * CUT)
                parts.append(part(Mask(y0, border - 2, 2, 4, (0, 8)), key, grid))
    return BlockObjects(
        finals=finals,
        settled=[],
        open=parts,
        answers=ANSWER.empty_table(),
        replies=TILE_REPLY.empty_table(),
    )


def prepare(folder: Path, side: int) -> JobSpec:
    """What blocks leave behind, as a run would."""
    archive = make_archive(folder / "archive", 1, side)
    job = make_job(archive, folder / "made.zarr")
    made = plan(job)
    rng = np.random.default_rng(0)
    [grid] = made.grids.values()
    first = BlockKey(grid.name, 0, 0, 0)
    places = rng.integers(8, BLOCK - 16, (A_BLOCK - round(A_BLOCK * CUT), 2))
    shapes = rng.random((len(places), 5, 7)) < 0.9
    masks = [
        Mask.from_array(inside, y0=int(y), x0=int(x))
        for (y, x), inside in zip(places, shapes, strict=True)
    ]
    parts = [part(mask, first, grid) for mask in masks]
    sample = finals_table(ground(parts, grid, 0, made.slices[0].name))
    with Lease(job.output) as lease:
        create(made, job.output, lease.fence)
        scratch = Scratch(job.output, lease.fence, made.content_of)
        for key in made.blocks_of(0):
            scratch.put_objects(key, block_objects(made, key, sample))
        lease.finished = True
    return job


def finish(job: JobSpec) -> dict[str, float]:
    """Finishes the slice; its figures."""
    made = plan(job)
    with Lease(job.output) as lease:
        root = store.open_group(job.output, lease.fence)
        scratch = Scratch(job.output, lease.fence, made.content_of)
        folder = fenced(rows_beside(job.output, OBJECTS.name), lease.fence)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        found = Gathering(made, 0, scratch)
        stitched = time.perf_counter()
        piece, table = made.slices[0], SliceTable(root)
        files = put_files(folder, piece.name, found.tables(), OBJECTS)
        written = time.perf_counter()
        row = SliceRow(piece.name, piece.start, piece.start, 1, "", 1, 1, objects=found.objects)
        table.rows.append(row)
        table.change(0, state=SliceState.FINISHED, **files)
        table.save()
        sync_rows(root, folder, table, OBJECTS)
        sync_rows(root, fenced(rows_beside(job.output, ANSWERS.name), lease.fence), table, ANSWERS)
        ended = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "objects": found.objects,
        "s": ended - started,
        "stitch_s": stitched - started,
        "parquet_s": written - stitched,
        "zarr_s": ended - written,
        "peak_mb": peak / 1024,
        "before_mb": before / 1024,
    }


def bare_seconds(job: JobSpec) -> float:
    """Seconds of pyarrow to write the same rows."""
    files = sorted(Path(rows_beside(job.output, OBJECTS.name)).rglob("*.parquet"))
    table, file = pa.concat_tables([pq.read_table(each) for each in files]), files[0]
    started = time.perf_counter()
    pq.write_table(table, file.with_suffix(".bare"), compression="zstd", row_group_size=50_000)
    return time.perf_counter() - started


def measure(side: int, name: str = "1m") -> dict[str, float | str]:
    """Figures of a slice of `side` x `side` blocks."""
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(Path(folder), side)
        command = [sys.executable, "-m", "benchmarks.finish", "--job"]
        text = json.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True))
        said = subprocess.run([*command, text], check=True, capture_output=True, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        open_result(job.output)
        figures: dict[str, float | str] = {
            f"finish_{name}_{key}": value for key, value in found.items()
        }
        figures[f"finish_{name}_bare_s"] = bare_seconds(job)
        figures[f"finish_{name}_ratio_to_bare"] = found["s"] / figures[f"finish_{name}_bare_s"]
        return figures


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(finish(JobSpec.from_dict(json.loads(sys.argv[2])))))
        return
    args = arguments(__doc__)
    report("finishing a slice of many objects", measure(6 if args.quick else 20), args.json)


if __name__ == "__main__":
    main()
