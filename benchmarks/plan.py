"""How long a plan takes, and how much memory.

Over a million tiles: 36 Sentinel-2 tiles on 41 days, at 10 m. Over a frozen file of 20,000 Items
with 17 assets each, as catalogs have them.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import pystac
import shapely
from rasterio.warp import transform_bounds

from benchmarks.report import arguments, report
from earthgptx import JobSpec, plan
from earthgptx.catalogs.geoparquet import frozen

Result = TypeVar("Result")

SIDE_PX = 10980
STEP_M = 100_000
"""Sentinel-2 tiles of 109.8 km overlap their neighbours by 9.8 km."""


def items(columns: int, rows: int, days: int) -> list[pystac.Item]:
    found = []
    for day in range(days):
        for col in range(columns):
            for row in range(rows):
                west, north = 200_000 + col * STEP_M, 5_200_000 - row * STEP_M
                bounds = (west, north - SIDE_PX * 10, west + SIDE_PX * 10, north)
                box = transform_bounds("EPSG:32632", "EPSG:4326", *bounds)
                item = pystac.Item(
                    f"tile-{col}-{row}-{day}",
                    shapely.geometry.mapping(shapely.box(*box)),
                    list(box),
                    datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=5 * day),
                    {"proj:code": "EPSG:32632"},
                    collection="sentinel-2-l2a",
                )
                grid = {
                    "proj:shape": [SIDE_PX, SIDE_PX],
                    "proj:transform": [10, 0, west, 0, -10, north],
                }
                for key in ("red", "green", "blue", "scl"):
                    item.add_asset(
                        key,
                        pystac.Asset(f"https://example.com/{item.id}/{key}.tif", extra_fields=grid),
                    )
                found.append(item)
    return found


def measure(columns: int, rows: int, days: int) -> tuple[float, float, int]:
    made = items(columns, rows, days)
    spec = JobSpec.from_dict(
        {
            "name": "million",
            "source": {
                "catalog": "https://example.com",
                "collections": ["sentinel-2-l2a"],
                "aoi": {"bbox": [0, 30, 20, 60]},
            },
            "tasks": {"find": ["ship"]},
            "output": "million.zarr",
        }
    )
    started = time.perf_counter()
    result = plan(spec, items=made)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result.tile_count


def freeze(path: Path, count: int) -> None:
    """Writes a stac-geoparquet file of so many Items with all assets of Sentinel-2."""
    made = items(6, 6, count // 36 + 1)[:count]
    for item in made:
        for number in range(13):
            item.assets[f"B{number:02d}"] = item.assets["red"].clone()
    path.write_bytes(frozen(made))


def measure_frozen(path: Path) -> tuple[float, float, int]:
    spec = JobSpec.from_dict(
        {
            "name": "frozen",
            "source": {
                "catalog": str(path),
                "collections": ["sentinel-2-l2a"],
                "aoi": {"bbox": [0, 30, 20, 60]},
            },
            "slices": "all",
            "tasks": {"find": ["ship"]},
            "output": "frozen.zarr",
        }
    )
    started = time.perf_counter()
    result = plan(spec)
    seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds, peak_mb, len(result.items)


def alone(function: Callable[..., Result], *args: object) -> Result:
    """A call in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    args = arguments(__doc__)
    size, count = ((2, 2, 5), 1000) if args.quick else ((6, 6, 41), 20_000)
    seconds, peak_mb, tiles = alone(measure, *size)
    figures: dict[str, float | str] = {
        "tiles": float(tiles),
        "seconds": seconds,
        "peak_mb": peak_mb,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        alone(freeze, path, count)
        seconds, peak_mb, found = alone(measure_frozen, path)
    figures |= {
        "frozen_items": float(found),
        "plan_20k_s": seconds,
        "plan_20k_peak_mb": peak_mb,
    }
    report("a plan", figures, args.json)


if __name__ == "__main__":
    main()
