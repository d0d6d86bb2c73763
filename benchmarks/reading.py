"""Reading imagery, against the libraries that read it otherwise, in the same run.

One Item of three bands in one COG of 8192 x 8192 px: a block that is aligned with the grid, against
one rasterio window read; and blocks on a grid of another UTM zone, against `odc.stac.load` and
stackstac on the same grid with the same resampling. And a month of six Items that all cover the
same ground, against one of them, by what leaves the file.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import odc.stac
import rasterio
import stackstac
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterWindow

from benchmarks.report import arguments, report
from earthgptx import JobSpec, plan
from earthgptx.pipeline.job.grid import Window
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import read_scene
from earthgptx.pipeline.reading.window import read_window
from tests.archive import Archive, targets

BLOCK_PX = 3072
PATTERN = 2048
BANDS = [{"asset": "image", "index": index, "low": 0, "high": 255} for index in (1, 2, 3)]


def make(folder: Path, side: int, items: int = 1, bands: int = 3) -> Archive:
    """Items of (bands, side, side) uint8 on the same ground, one a day."""
    pattern = np.stack([targets(seed, (PATTERN, PATTERN), 120) for seed in range(1, bands + 1)])
    pixels = np.tile(pattern, (1, side // PATTERN, side // PATTERN))
    archive = Archive(folder)
    for day in range(items):
        archive.add(f"day-{day}", pixels, nodata=None, when=f"2026-01-{day + 1:02d}T10:00:00Z")
    for item in archive.catalog.get_items():
        item.assets["image"].extra_fields |= {
            "eo:bands": [{"name": f"b{index}"} for index in range(1, bands + 1)],
            "raster:bands": [{"data_type": "uint8"}] * bands,
        }
        item.stac_extensions += [
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ]
    archive.save()
    return archive


def planned(archive: Archive, *, bands: int = 3, **more: Any) -> Plan:
    profile = {"made": {"modality": "optical", "bands": BANDS if bands == 3 else BANDS[:1] * 3}}
    job: JobSpec = archive.job("never.zarr", source={"profiles": profile}, **more)
    return plan(job)


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median time of a call, after one that is not counted."""
    function()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def ours(made: Plan, window: Window) -> np.ndarray:
    [grid] = made.grids.values()
    return read_scene(grid, window, made.scene_items(grid.name, 0, window)).pixels


def by_rasterio(path: str, window: Window) -> np.ndarray:
    with rasterio.open(path) as raster:
        at = RasterWindow(window.x0, window.y0, *window.shape[::-1])
        pixels: np.ndarray = raster.read([1, 2, 3], window=at)
        return pixels


def by_odc(made: Plan, window: Window) -> np.ndarray:
    [grid] = made.grids.values()
    lazy = odc.stac.load(
        list(made.items),
        bands=["b1", "b2", "b3"],
        geobox=grid.geobox(window),
        chunks={"x": 1024, "y": 1024},
        resampling="bilinear",
    )
    return lazy.isel(time=0).to_array().compute(scheduler="synchronous").values


def by_stackstac(made: Plan, window: Window) -> np.ndarray:
    """A file of one band: stackstac refuses files of several."""
    [grid] = made.grids.values()
    box = grid.geobox(window).extent.boundingbox
    step = abs(grid.transform[0])
    stack = stackstac.stack(
        [item.to_dict() for item in made.items],
        assets=["image"],
        epsg=int(grid.crs.removeprefix("EPSG:")),
        resolution=step,
        bounds=(box.left, box.bottom, box.right, box.top),
        resampling=Resampling.bilinear,
        dtype="float32",
        fill_value=np.float32("nan"),
        rescale=False,
        chunksize=1024,
    )
    return stack.compute(scheduler="synchronous").values


def bytes_read(archive: Archive) -> float:
    """Uncompressed bytes that a block of the month's slice reads from the files."""
    made = planned(archive, slices="month", grid={"tile_px": 512, "block_px": BLOCK_PX})
    total = 0

    def counted(*args: Any) -> Any:
        nonlocal total
        values, nodata = read_window(*args)
        total += values.nbytes
        return values, nodata

    with patch("earthgptx.pipeline.reading.item.read_window", counted):
        ours(made, Window(0, 0, BLOCK_PX, BLOCK_PX))
    return total


def main() -> None:
    args = arguments(__doc__)
    warnings.simplefilter("ignore")
    side, repeats = (4096, 2) if args.quick else (8192, 5)
    figures: dict[str, float | str] = {"side_px": float(side)}
    with tempfile.TemporaryDirectory() as name:
        archive = make(Path(name) / "one", side)
        aligned = planned(archive)
        window = Window(512, 512, 512 + BLOCK_PX, 512 + BLOCK_PX)
        path = aligned.items[0].assets["image"].href
        assert np.array_equal(ours(aligned, window), by_rasterio(path, window))
        bare_s = seconds(lambda: by_rasterio(path, window), repeats)
        our_s = seconds(lambda: ours(aligned, window), repeats)
        mpx = BLOCK_PX**2 / 1e6
        figures["aligned_mpx_s"] = mpx / our_s
        figures["aligned_ratio"] = bare_s / our_s

        warped = planned(archive, grid={"crs": "EPSG:32630", "resolution": 10})
        [grid] = warped.grids.values()
        row, col = (side // 2 for side in grid.shape)
        half = BLOCK_PX // 2
        window = Window(row - half, col - half, row + half, col + half)
        our_s = seconds(lambda: ours(warped, window), repeats)
        figures["warped_mpx_s"] = mpx / our_s
        figures["warped_ratio_odc"] = seconds(lambda: by_odc(warped, window), repeats) / our_s

        grey = planned(
            make(Path(name) / "grey", side, bands=1),
            bands=1,
            grid={"crs": "EPSG:32630", "resolution": 10},
        )
        our_s = seconds(lambda: ours(grey, window), repeats)
        stack_s = seconds(lambda: by_stackstac(grey, window), repeats)
        figures["warped_ratio_stackstac"] = stack_s / our_s

        month = make(Path(name) / "month", 4096, 6)
        single = make(Path(name) / "single", 4096, 1)
        figures["month_bytes_ratio"] = bytes_read(month) / bytes_read(single)
    report("reading blocks of 3072 px, three bands", figures, args.json)


if __name__ == "__main__":
    main()
