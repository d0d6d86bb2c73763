"""What a result is held against before it is published."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.results.drift import distance
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState
from earthgptx.pipeline.results.store import Status
from earthgptx.workflows.flow.checks import check, deviation, empty_share
from earthgptx.workflows.flow.spec import Bounds
from tests.archive import Archive, targets


def a_slice(day: int, objects: int, *, tiles: int = 100) -> SliceRow:
    start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return SliceRow(
        f"{start:%Y-%m-%d}",
        start,
        start,
        1,
        "",
        1,
        tiles,
        objects=objects,
        state=SliceState.FINISHED,
    )


def test_a_slice_is_held_against_its_own_season() -> None:
    winter = [a_slice(day, 100 + day % 7) for day in range(0, 30, 3)]
    summer = [a_slice(day, 1000 + day % 7) for day in range(180, 210, 3)]
    rows = [*winter, *summer]

    def of(row: SliceRow) -> float:
        found = deviation(row, rows)
        assert found is not None
        return found

    assert of(a_slice(365 + 10, 103)) < 1, "a year later is the same season"
    assert of(a_slice(-10, 103)) < 1, "and so is the end of the year before"
    assert of(a_slice(12, 1000)) > 10
    assert of(a_slice(190, 100)) > 10
    assert of(replace(a_slice(12, 50), tiles=50)) < 1, "half of the ground has half of the objects"
    assert of(a_slice(12, 0)) > 10
    assert deviation(a_slice(90, 100), rows) is None, "nothing is known of spring"
    assert deviation(winter[0], winter[1:8]) is None, "seven are too few"


def test_scores_that_have_drifted() -> None:
    noise = np.random.default_rng(0)
    before = noise.uniform(0.5, 1.0, 500)
    same, lower = distance(noise.uniform(0.5, 1.0, 300), before), distance(before - 0.2, before)
    assert same is not None
    assert same == 0
    assert lower is not None
    assert lower > 0.3
    assert distance(before[:29], before) is None
    assert distance(before, before[:29]) is None


def test_pixels_without_an_answer() -> None:
    pixels = np.zeros(len(Status), np.int64)
    assert empty_share(pixels) == 0, "nothing was asked"
    pixels[Status.OUTSIDE_AOI], pixels[Status.NO_ANSWER] = 1000, 500
    pixels[Status.DONE], pixels[Status.MASKED], pixels[Status.QUARANTINED] = 70, 20, 10
    assert empty_share(pixels) == 1 - 70 / 100


def test_what_the_inspector_finds_is_held_against_bounds(tmp_path: Path, pool: ReplicaPool) -> None:
    archive = Archive(tmp_path / "archive")
    archive.add("a", targets(1, (400, 400), 40), nodata=None)
    archive.save()
    grid = {"tile_px": 256, "halo_px": 64, "block_px": 256}
    run(plan(archive.job(tmp_path / "out.zarr", grid=grid)), pool=pool)
    bounds = Bounds.model_validate({"seam": 1.5, "holes": 0, "duplicates": 0.01})
    assert check(open_result(str(tmp_path / "out.zarr")), bounds) == (1, [])
    status: Any = zarr.open_group(tmp_path / "out.zarr", mode="r+")["raster/status"]
    status[0, 10:20, 10:20] = 0
    (tmp_path / "out.checks.json").unlink()
    checked, [hole] = check(open_result(str(tmp_path / "out.zarr")), bounds)
    assert checked == 1
    assert hole.sentence == "holes 100 of 2026-01-01 is not at most 0"
