"""What `plan` says a job will read, against what it reads."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio

from earthgptx import plan
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import read_scene
from earthgptx.pipeline.reading.window import read_window
from tests.archive import Archive, real_job


def read_bytes(made: Plan) -> int:
    """Uncompressed bytes that all blocks of a plan read."""
    total = 0

    def counted(*args: Any) -> Any:
        nonlocal total
        values, nodata = read_window(*args)
        with rasterio.open(
            args[2].raster.href
        ) as raster:  # warped values are wider than the file's
            total += values.size * np.dtype(raster.dtypes[0]).itemsize
        return values, nodata

    with patch("earthgptx.pipeline.reading.item.read_window", counted):
        for key in made.blocks:
            grid = made.grids[key.grid]
            window = grid.read_window(key) & grid.window
            items = made.scene_items(key.grid, key.time, window)
            read_scene(grid, window, items, compose=made.spec.compose)
    return total


@pytest.mark.parametrize("collection", ["sentinel-2-l2a", "sentinel-1-grd", "naip"])
def test_bytes_of_real_jobs_are_within_a_factor_of_two(data: Path, collection: str) -> None:
    made = plan(real_job(data, collection))
    assert 0.5 < made.bytes_to_read / read_bytes(made) < 2


@pytest.mark.parametrize("compose", ["first", "median"])
def test_bytes_of_a_month_are_those_that_are_read(archive: Archive, compose: str) -> None:
    for day in range(1, 5):
        pixels = np.full((500, 700), 50, np.uint8)
        archive.add(f"i{day}", pixels, when=f"2026-01-0{day}T10:00:00Z", nodata=None)
    archive.save()
    made = plan(archive.job("a.zarr", slices="month", compose=compose))
    assert 0.5 < made.bytes_to_read / read_bytes(made) < 2
