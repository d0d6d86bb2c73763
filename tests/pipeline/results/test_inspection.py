"""The inspector finds what is planted, and nothing in a clean result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.results.inspection import Bounds, Measure, inspect
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.seams import BLOCK, INSIDE, TILE, Lines
from tests.archive import Archive, targets
from tests.workflows.test_cli import earthgptx

GRID = {"tile_px": 256, "halo_px": 64, "block_px": 256}
CORE, SIDE = 128, 900
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Path:
    folder = tmp_path_factory.mktemp("inspected")
    archive = Archive(folder / "archive")
    for seed, day in enumerate(DAYS):
        pixels = targets(seed, (SIDE, SIDE), 150)
        archive.add(day, pixels, when=f"{day}T10:00:00Z", nodata=None)
    archive.save()
    run(plan(archive.job(folder / "out.zarr", grid=GRID)), pool=pool)
    return folder


@pytest.fixture
def spoiled(clean: Path, tmp_path: Path) -> Path:
    """A copy of the result, to be spoiled."""
    for name in ("out.zarr", "out.objects"):
        shutil.copytree(clean / name, tmp_path / name)
    return tmp_path / "out.zarr"


def wrong(url: Path, **bounds: Any) -> set[tuple[str, str]]:
    """Slice and name of the measures that do not hold."""
    found = inspect(open_result(str(url)), Bounds(**bounds))
    return {(each.slice, each.measure) for each in found if not each.holds}


@pytest.mark.parametrize(
    ("bound", "measures"),
    [
        (
            "seam",
            {f"{of} seams of {by}" for of in ("label", "score") for by in ("tiles", "blocks")},
        ),
        ("holes", {"holes"}),
        ("step", {"step"}),
        ("drift", {"drift"}),
        ("duplicates", {"duplicates"}),
        ("cut", {"cut objects"}),
        ("", set()),
    ],
)
def test_what_has_no_bound_is_not_measured(clean: Path, bound: str, measures: set[str]) -> None:
    none = Bounds(None, None, None, None, None, None)
    bounds = replace(none, **{bound: 1.0}) if bound else none
    found = inspect(open_result(str(clean / "out.zarr")), bounds)
    assert {each.measure for each in found} == measures


def test_there_is_nothing_in_a_clean_result(clean: Path) -> None:
    found = inspect(open_result(str(clean / "out.zarr")), Bounds())
    assert [each for each in found if not each.holds] == []
    names = {each.measure for each in found}
    assert names >= {"label seams of tiles", "score seams of blocks", "step", "holes", "duplicates"}
    assert {each.slice for each in found if each.measure == "drift"} == set(DAYS[1:])


def test_lines_are_told_apart() -> None:
    kinds = Lines(300, CORE, 256).kinds
    assert {at: kind for at, kind in enumerate(kinds) if kind != INSIDE} == {
        0: BLOCK,
        128: TILE,
        256: BLOCK,
    }


def spoil(url: Path, name: str, change: Callable[[np.ndarray], None], at: int = 1) -> None:
    """Changes a layer of one slice in place."""
    array: Any = zarr.open_group(url, mode="r+")[f"raster/{name}"]
    values = array[at]
    change(values)
    array[at] = values


def test_a_seam_is_found(spoiled: Path) -> None:
    def flip(label: np.ndarray) -> None:
        rows, cols = np.indices(label.shape) // CORE
        inside = (rows < SIDE // CORE) & (cols < SIDE // CORE)
        label[inside & ((rows + cols) % 2 == 1)] ^= 1

    spoil(spoiled, "label", flip)
    assert wrong(spoiled) == {
        (DAYS[1], "label seams of tiles"),
        (DAYS[1], "label seams of blocks"),
    }


def test_a_hole_is_found_with_its_place(spoiled: Path) -> None:
    def empty(status: np.ndarray) -> None:
        status[300:310, 400:420] = 0

    spoil(spoiled, "status", empty)
    assert wrong(spoiled) == {(DAYS[1], "holes")}
    assert wrong(spoiled, holes=200) == set()
    [hole] = [each for each in inspect(open_result(str(spoiled)), Bounds()) if not each.holds]
    assert hole.value == 200
    result = open_result(str(spoiled))
    assert covers(hole, result, 305, 410)


def covers(found: Measure, result: Result, row: int, col: int) -> bool:
    raster: Any = result.raster
    crs = raster["spatial_ref"].attrs["crs_wkt"]
    move = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    place = shapely.Point(move.transform(float(raster["x"][col]), float(raster["y"][row])))
    return any(shapely.box(*each).buffer(1e-4).contains(place) for each in found.places)


def test_a_block_whose_scores_drift_is_found_with_its_place(spoiled: Path) -> None:
    def raise_one(score: np.ndarray) -> None:
        score[256:512, 256:512] = np.minimum(score[256:512, 256:512].astype(int) + 40, 255)

    spoil(spoiled, "score", raise_one)
    found = [each for each in inspect(open_result(str(spoiled)), Bounds()) if not each.holds]
    assert (DAYS[1], "step") in {(each.slice, each.measure) for each in found}
    assert {each.slice for each in found} == {DAYS[1]}
    step = next(each for each in found if each.measure == "step")
    assert step.value == pytest.approx(40 / 255, rel=0.3)
    assert covers(step, open_result(str(spoiled)), 400, 256)


def rewrite(url: Path, day: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes the objects of a slice."""
    [file] = url.with_suffix(".objects").glob(f"**/*{day}*/*.parquet")
    schema = pq.read_schema(file)
    pq.write_table(change(pq.read_table(file, partitioning=None)).cast(schema), file)


def test_objects_that_are_there_twice_are_found(spoiled: Path) -> None:
    rewrite(spoiled, DAYS[1], lambda table: pa.concat_tables([table, table.slice(0, 10)]))
    assert wrong(spoiled) == {(DAYS[1], "duplicates")}
    assert wrong(spoiled, duplicates=0.5) == set()


def test_objects_cut_along_a_border_are_found(spoiled: Path) -> None:
    raster: Any = open_result(str(spoiled)).raster
    affine = raster.attrs["spatial:transform"]
    crs = raster["spatial_ref"].attrs["crs_wkt"]
    move = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    dice = np.random.default_rng(0)

    def cut(table: pa.Table) -> pa.Table:
        rows, cols = dice.integers(20, SIDE - 60, (2, len(table)))
        cols[:40] = CORE * dice.integers(1, 6, 40)
        boxes = shapely.box(
            affine[2] + cols * affine[0],
            affine[5] + rows * affine[4],
            affine[2] + (cols + 9) * affine[0],
            affine[5] + (rows + 11) * affine[4],
        )
        outlines = shapely.transform(
            boxes, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1]))
        )
        at = table.schema.get_field_index("geometry")
        return table.set_column(at, "geometry", pa.array(shapely.to_wkb(outlines), pa.binary()))

    rewrite(spoiled, DAYS[1], cut)
    assert (DAYS[1], "cut objects") in wrong(spoiled, duplicates=1.0)


def test_scores_that_drift_are_found(spoiled: Path) -> None:
    def lower(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("score")
        scores = table["score"].to_numpy() * 0.6
        return table.set_column(at, "score", pa.array(scores))

    rewrite(spoiled, DAYS[2], lower)
    assert wrong(spoiled) == {(DAYS[2], "drift")}


def test_the_command_tells_and_draws(spoiled: Path, tmp_path: Path) -> None:
    said, _ = earthgptx("inspect", spoiled)
    assert "0 of" in said

    def empty(status: np.ndarray) -> None:
        status[300:310, 400:420] = 0

    spoil(spoiled, "status", empty)
    picture = tmp_path / "inspected.png"
    said, _ = earthgptx("inspect", spoiled, "--png", picture, code=1)
    assert "DOES NOT HOLD" in said
    assert picture.stat().st_size > 10_000
    found = json.loads(earthgptx("inspect", spoiled, "--slice", DAYS[1], "--json", code=1)[0])
    assert {each["slice"] for each in found} == {DAYS[1]}
    earthgptx("inspect", spoiled, "--holes", 200)
    assert "no finished time slice 'x'" in earthgptx("inspect", spoiled, "--slice", "x", code=2)[1]
    with pytest.raises(JobError):
        inspect(open_result(str(spoiled)), Bounds(), ["x"])
