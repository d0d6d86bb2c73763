"""Results that grow (`benchmarks.growth`), many objects (`benchmarks.finish`), and questions.

The questions are to a million and ten million made objects in 40 slices.

Words, an area of a tenth of the region's side, and half of the time; by the command, its process
started anew, and in a process that has asked before. Beside it, what DuckDB alone takes for the
same rows without outlines: the bare limit.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import shapely
import zarr

from benchmarks import finish, growth
from benchmarks.report import arguments, report
from earthgptx import open_result
from earthgptx.pipeline.objects.finals import outline_columns
from earthgptx.pipeline.results.completing import along_curve
from earthgptx.pipeline.results.object_table import OBJECTS, SCHEMA, as_geoparquet
from earthgptx.pipeline.results.partitions import partition
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState, SliceTable
from earthgptx.pipeline.results.store import LAYOUT, MARK

SLICES = 40
SIDE_DEG = 10.0
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
ASKED: dict[str, Any] = {"text": "red ship", "time": "2026-01-01/2026-04-10"}
AREA = (2.0, 42.0, 3.0, 43.0)


def objects(number: int, count: int) -> pa.Table:
    """Boxes of some 100 m all over the region, with captions."""
    rng = np.random.default_rng(number)
    lon, lat = rng.uniform(0, SIDE_DEG, count), rng.uniform(40, 40 + SIDE_DEG, count)
    size = rng.uniform(2e-4, 2e-3, count)
    outlines = shapely.box(lon, lat, lon + size, lat + size)
    kinds = np.array(["ship", "aircraft", "storage tank"])[rng.integers(0, 3, count)]
    colours = np.array(["red", "white", "grey", "blue"])[rng.integers(0, 4, count)]
    start = FIRST + timedelta(days=5 * number)
    text = [
        f"a {c} {k}, {int(s * 1e5)} m long" for c, k, s in zip(colours, kinds, size, strict=True)
    ]
    ids = rng.integers(1, 2**62, count)
    plain = {
        "object_id": ids,
        "track_id": ids,
        "slice": [start] * count,
        "time": [start] * count,
        "label": kinds.tolist(),
        "score": rng.uniform(0.5, 1, count),
        "caption": text,
        "length_m": size * 1e5,
        "width_m": size * 8e4,
        "orientation_deg": np.zeros(count),
        "area_m2": size**2 * 8e9,
        "prompt_ids": [""] * count,
        "prompt_kind": [""] * count,
        "item_id": [f"item-{number}"] * count,
        "model": ["null"] * count,
        "model_digest": ["null-1"] * count,
    }
    columns = [pa.array(values, SCHEMA.field(name).type) for name, values in plain.items()]
    table = pa.Table.from_arrays([*columns, *outline_columns(outlines)], schema=SCHEMA)
    return table.take(
        pa.array(np.argsort(along_curve(*shapely.get_coordinates(shapely.centroid(outlines)).T)))
    )


def make(folder: Path, count: int) -> tuple[str, float]:
    """A result of so many objects, without rasters; its URL and the seconds to write its files."""
    url = str(folder / "made.zarr")
    root = zarr.create_group(url, attributes={MARK: {"state": "finished", "layout": LAYOUT}})
    written, seconds = SliceTable(root), 0.0
    for number in range(SLICES):
        table = objects(number, count // SLICES)
        start = FIRST + timedelta(days=5 * number)
        name = f"{start:%Y-%m-%d}"
        path = folder / "made.objects" / partition(name, 0)
        path.parent.mkdir(parents=True)
        clock = time.perf_counter()
        path.write_bytes(as_geoparquet([table], OBJECTS))
        seconds += time.perf_counter() - clock
        row = SliceRow(name, start, start, 1, "", 1, 1, objects=len(table), files=1)
        # The rows of the Zarr group are not asked for here.
        written.rows.append(replace(row, state=SliceState.FINISHED))
    written.save()
    return url, seconds


def seconds(step: Callable[[], object], repeats: int = 5) -> float:
    found = []
    for _ in range(repeats):
        clock = time.perf_counter()
        step()
        found.append(time.perf_counter() - clock)
    return statistics.median(found)


def bare(url: str) -> Callable[[], pa.Table]:
    """The same rows by DuckDB alone."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    files = sorted(str(path) for path in Path(url).with_suffix(".objects").rglob("*.parquet"))
    west, south, east, north = AREA
    sql = """
        SELECT object_id, label, caption, score, time FROM read_parquet(?)
        WHERE bbox.xmin <= ? AND bbox.xmax >= ? AND bbox.ymin <= ? AND bbox.ymax >= ?
        AND time <= '2026-04-10' AND caption LIKE '%red%' AND caption LIKE '%ship%'
    """
    return lambda: connection.execute(sql, [files, east, west, north, south]).to_arrow_table()


def command(url: str) -> None:
    area = (str(edge) for edge in AREA)
    asked = ("--text", ASKED["text"], "--time", ASKED["time"], "--bbox", *area)
    subprocess.run(
        [sys.executable, "-m", "earthgptx.workflows.cli", "query", url, *asked],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def measure(name: str, url: str) -> dict[str, float | str]:
    result, area = open_result(url), shapely.box(*AREA)
    found = len(result.query(within=area, **ASKED))
    assert found == len(bare(url)()), "both find the same"
    return {
        f"query_{name}_found": float(found),
        f"query_{name}_cold_s": seconds(lambda: command(url), 3),
        f"query_{name}_warm_s": seconds(lambda: result.query(within=area, **ASKED)),
        f"query_{name}_bare_s": seconds(bare(url)),
        f"count_{name}_s": seconds(lambda: result.count("label", "month")),
    }


def main() -> None:
    args = arguments(__doc__)
    figures = growth.measure(*((12, 6) if args.quick else (365, 20)))
    figures |= finish.measure(6 if args.quick else 20)
    sizes = {"1m": 100_000} if args.quick else {"1m": 1_000_000, "10m": 10_000_000}
    for name, count in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            url, figures[f"write_{name}_s"] = make(Path(folder), count)
            figures |= measure(name, url)
    report("results that grow, and questions to large ones", figures, args.json)


if __name__ == "__main__":
    main()
