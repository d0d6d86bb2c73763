"""The engine against a bare loop, on one three-band COG; and whether its memory grows with the
scene.

The loop is what a person writes in an afternoon: one process, tile after tile, window read, the
same Analyst, the same blend, Zarr written at the end. It keeps the whole scene's sums in memory and
makes no objects table, no status, no overviews and no ledger; the engine makes all of them.

Each run has a process of its own, so that no peak is another run's. Ray's start and the loading of
the replicas are not counted: they are the same for a minute's and a day's work. A first run over a
small scene has done both; what is counted is the whole second run, from the empty folder to the
finished result.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import rasterio
import ray
import zarr
from rasterio.windows import Window as RasterWindow

from benchmarks.report import arguments, report
from earthgptx import JobSpec, plan, run
from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.job.grid import Window
from earthgptx.pipeline.objects.blend import Blend
from earthgptx.pipeline.planning.plan import Plan
from tests.archive import Archive, targets

Result = TypeVar("Result")

PATTERN = 2048
MEMORY_BLOCK_PX = 1536
"""Small enough that the smallest scene too has more blocks than are in flight at once: only then do
two sides compare.
"""


def make_scene(folder: Path, side: int) -> None:
    """A COG-like file of (3, side, side) uint8 in a static catalog."""
    pattern = np.stack([targets(seed, (PATTERN, PATTERN), 120) for seed in (1, 2, 3)])
    archive = Archive(folder)
    archive.add("scene", np.tile(pattern, (1, side // PATTERN, side // PATTERN)), nodata=None)
    archive.save()
    (folder / "aoi.wkt").write_text(archive.ground)


def make_plan(folder: Path, replicas: int, block_px: int = 3072) -> Plan:
    bands = [{"asset": "image", "index": index, "low": 0, "high": 255} for index in (1, 2, 3)]
    return plan(
        JobSpec.from_dict(
            {
                "name": "bench",
                "source": {
                    "catalog": str(folder / "catalog.json"),
                    "collections": ["made"],
                    "aoi": {"wkt": (folder / "aoi.wkt").read_text()},
                    "profiles": {"made": {"modality": "sar", "bands": bands}},
                },
                "tasks": {"find": ["target"]},
                "grid": {"block_px": block_px},
                "output": str(folder / "engine.zarr"),
                "engine": {"replicas": replicas},
            }
        )
    )


def bare_loop(folder: Path) -> float:
    """Seconds that the loop takes."""
    made = make_plan(folder, 1)
    grid = next(iter(made.grids.values()))
    analyst = find_analyst("cfar").load()
    height, width = grid.shape
    started = time.perf_counter()
    rows, cols = grid.tiles_shape
    padded = Window(0, 0, rows * grid.core_px, cols * grid.core_px).grown(grid.halo_px)
    blend = Blend(padded, 1, grid.tile_px, made.traits.context_px)
    with rasterio.open(made.items[0].assets["image"].href) as raster:
        for key in made.blocks:
            for tile in grid.tiles(key):
                seen = tile.window & grid.window
                at = seen.within(tile.window)
                pixels = np.zeros((3, grid.tile_px, grid.tile_px), np.uint8)
                valid = np.zeros((grid.tile_px, grid.tile_px), bool)
                pixels[(slice(None), *at)] = raster.read(
                    window=RasterWindow(seen.x0, seen.y0, *seen.shape[::-1])
                )
                valid[at] = True
                question = TileInput(
                    pixels=pixels,
                    valid=valid,
                    wanted=valid,
                    modality="sar",
                    metres_per_pixel=10.0,
                    phrases=("target",),
                    prompts=(),
                    names=(),
                    describe=False,
                )
                [answer] = analyst.analyse([question])
                blend.add(tile, answer.scores)
    [score] = blend.sums.crop(Window(0, 0, height, width)).divided()
    root = zarr.open_group(folder / "loop.zarr", mode="w")
    for name, values in (("score", score), ("label", (score >= 128).astype(np.uint8))):
        array = root.create_array(
            name, shape=values.shape, dtype="u1", chunks=(512, 512), shards=(3072, 3072)
        )
        array[...] = values
    return time.perf_counter() - started


def engine(folder: Path, small: Path, replicas: int, block_px: int = 3072) -> tuple[float, float]:
    """Seconds that the engine takes for a run, and peak MB of driver and workers meanwhile.

    Args:
        folder: scene to measure.
        small: scene of the run before.
        replicas: number of replicas.
        block_px: side of a block.
    """
    made = make_plan(folder, replicas, block_px)
    ray.init(
        num_cpus=replicas, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False
    )
    with ReplicaPool(made.spec.engine) as pool:
        run(make_plan(small, replicas, MEMORY_BLOCK_PX), overwrite=True, pool=pool)
        with Peak() as peak:
            began = time.perf_counter()
            run(made, overwrite=True, pool=pool)
            ended = time.perf_counter()
    ray.shutdown()
    return ended - began, peak.mb


class Peak:
    """Largest sum of proportional set sizes of this process and Ray's workers below it, four times
    a second.
    """

    def __enter__(self) -> Peak:
        self.mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.25):
            total = me.memory_full_info().pss
            for child in me.children(recursive=True):
                try:
                    if "".join(child.cmdline()[:1]).startswith("ray::"):
                        total += child.memory_full_info().pss
                except psutil.Error:
                    continue
            self.mb = max(self.mb, total / 2**20)


def alone(function: Callable[..., Result], *args: object) -> Result:
    """A call in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    args = arguments(__doc__)
    side = 4096 if args.quick else 8192
    figures: dict[str, float | str] = {"side_px": float(side)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = folder / "small"
        alone(make_scene, small, 4096)
        alone(make_scene, folder / str(side), side)
        pixels = side * side / 1e6
        loop_s = alone(bare_loop, folder / str(side))
        engine_s, _ = alone(engine, folder / str(side), small, 2)
        figures["bare_loop_mpx_s"] = pixels / loop_s
        figures["engine_mpx_s"] = pixels / engine_s
        figures["ratio_to_bare_loop"] = loop_s / engine_s
        for other in (4096,) if args.quick else (4096, 16384):
            alone(make_scene, folder / str(other), other)
            place = folder / str(other)
            _, figures[f"peak_mb_{other}"] = alone(engine, place, small, 2, MEMORY_BLOCK_PX)
        if not args.quick:
            most, least = (float(figures[f"peak_mb_{other}"]) for other in (16384, 4096))
            figures["peak_16384_to_4096"] = most / least
    report("the engine with 2 replicas, the analyst is CFAR", figures, args.json)


if __name__ == "__main__":
    main()
