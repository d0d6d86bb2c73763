"""Results that the tests of the map share, and their server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.results.result import Result
from tests.archive import Archive
from tests.browsers import serving

ATTACK = "<img src=x onerror=\"document.body.dataset.attacked='yes'\">"
GRID = {"tile_px": 256, "halo_px": 64, "block_px": 512}
SHIPS = {"2026-01-01": [(100, 100), (300, 420)], "2026-01-02": [(100, 100), (200, 250)]}
"""Row and column of a ship's corner, by day."""


def sea(folder: Path, ships: dict[str, list[tuple[int, int]]]) -> Archive:
    """A scene of a dark sea for each day, with its ships."""
    archive = Archive(folder)
    for day, places in ships.items():
        pixels = np.random.default_rng(0).integers(20, 30, (500, 800)).astype(np.uint8)
        for row, col in places:
            pixels[row : row + 12, col : col + 40] = 220
        archive.add(day, pixels, when=f"{day}T10:00:00Z", nodata=None)
    archive.save()
    return archive


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    """Two days of a sea with ships, one of which stays; its label is an attack on the page."""
    folder = tmp_path_factory.mktemp("map")
    archive = sea(folder / "archive", SHIPS)
    job = archive.job(folder / "out.zarr", grid=GRID, tasks={"find": [ATTACK]})
    run(plan(job), pool=pool)
    return open_result(str(folder / "out.zarr"))


@pytest.fixture(scope="module")
def other(result: Result, pool: ReplicaPool) -> Result:
    """The same days with a ship less on each."""
    folder = Path(result.url).parent
    archive = sea(folder / "other-archive", {day: places[:1] for day, places in SHIPS.items()})
    job = archive.job(folder / "other.zarr", grid=GRID, tasks={"find": ["ship"]})
    run(plan(job), pool=pool)
    return open_result(str(folder / "other.zarr"))


@pytest.fixture(scope="module")
def address(result: Result) -> Iterator[str]:
    with serving(result.url) as served:
        yield served
