"""Sentinel-1 GRD in decibels of sigma0, by the table of its calibration annotation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio

from earthgptx import plan
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Window
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.calibration import gain, gains_of
from earthgptx.pipeline.reading.scene import Scene, read_scene
from earthgptx.pipeline.reading.sources import Document, Raster
from tests.archive import real_job


def annotation(
    lines: list[int],
    pixels: Sequence[Sequence[float]],
    values: list[list[float]],
    polarisation: str = "",
) -> str:
    vectors = "".join(
        f"<calibrationVector><line>{line}</line><pixel>{' '.join(map(str, at))}</pixel>"
        f"<sigmaNought>{' '.join(f'{value:e}' for value in row)}</sigmaNought></calibrationVector>"
        for line, at, row in zip(lines, pixels, values, strict=True)
    )
    said = f"<polarisation>{polarisation}</polarisation><list>{vectors}</list>"
    return f"<?xml version='1.0'?><calibration>{said}</calibration>"


def grd(data: Path, folder: Path, document: str | None) -> Plan:
    """A plan over the real scene, whose Item has a calibration annotation or not."""
    job = real_job(data, "sentinel-1-grd", grid={"crs": "EPSG:32643"})
    bare = plan(job)
    [item] = [item.clone() for item in bare.items]
    if document is not None:
        for band in ("vv", "vh"):
            path = folder / f"calibration-{band}.xml"
            path.write_text(document)
            item.assets[f"schema-calibration-{band}"] = type(item.assets["vv"])(str(path))
    spec = job.model_dump(mode="json", by_alias=True)
    spec["source"]["access"]["folders"] = [str(folder)]
    return plan(JobSpec.from_dict(spec), items=[item])


def raw_of(made: Plan) -> tuple[np.ndarray, Any]:
    with rasterio.open(made.items[0].assets["vv"].href) as raster:
        return raster.read(1), raster.gcps[0]


def whole(made: Plan) -> Scene:
    [grid] = made.grids.values()
    return read_scene(grid, grid.window, made.scene_items(grid.name, 0, grid.window))


def test_values_between_lines_and_pixels_are_linear() -> None:
    document = annotation([0, 100], [[0, 10, 20], [0, 20]], [[100, 200, 300], [1100, 1300]])
    found = gains_of(document).at(np.array([-5.0, 0, 50, 100, 120]), np.array([0.0, 5, 20, 30]))
    expected = [
        [1, 1.5, 3, 3],
        [1, 1.5, 3, 3],
        [6, 6.5, 8, 8],
        [11, 11.5, 13, 13],
        [11, 11.5, 13, 13],
    ]
    assert np.allclose(found / 100, expected)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("no XML", "no XML"),
        ("<calibration/>", "no calibrationVector"),
        (annotation([0], [[0, 10]], [[1.0]]), "no calibrationVector"),
        (annotation([0], [[0, 10]], [[600.0, 0.0]]), "which no product has"),
        (annotation([0], [[0, 10]], [[600.0, 1e300]]), "which no product has"),
        (annotation([0], [[0, 10]], [[600.0, float("nan")]]), "some of its numbers are none"),
        (annotation([0], [[0, float("inf")]], [[600.0, 600.0]]), "some of its numbers are none"),
        (annotation([5, 5], [[0, 10]] * 2, [[1.0, 1.0]] * 2), "do not increase"),
        (
            annotation(
                list(range(60)),
                [list(range(200_000)), *[[0, 1]] * 59],
                [[9.0] * 200_000, *[[9.0, 9.0]] * 59],
            ),
            "12,000,000 values",
        ),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><calibration/>", "document type"),
    ],
)
def test_what_is_no_annotation_is_said(document: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        gains_of(document)


def test_a_scene_is_sigma0_by_its_own_annotation(data: Path, tmp_path: Path) -> None:
    """At the ground control points, whose place in the scene is known: 20 log10(DN / A)."""
    rows, cols = raw_of(grd(data, tmp_path, None))[0].shape
    at = [*range(0, cols, 40), cols - 1]
    lines = [-50, rows // 2, rows + 50]
    table = [[300 + line / 10 + pixel / 5 for pixel in at] for line in lines]
    made = grd(data, tmp_path, annotation(lines, [at] * 3, table))
    assert not made.warnings
    [grid] = made.grids.values()
    raw, points = raw_of(made)
    channel = made.sources[0].channels[0]
    assert channel.annotation
    found = gain(grid, grid.window, channel.raster, channel.annotation, made.opening)
    scene = whole(made)
    assert not scene.errors
    to_grid = pyproj.Transformer.from_crs("OGC:CRS84", grid.crs, always_xy=True)
    band = channel.band
    checked, pairs = 0, []
    for point in points:
        row, col = int(point.row), int(point.col)
        x, y = (int(value) for value in ~grid.affine @ to_grid.transform(point.x, point.y))
        if not (5 < row < rows - 5 and 5 < col < cols - 5):
            continue
        assert found[y, x] == pytest.approx(300 + row / 10 + col / 5, rel=2e-3)
        there = raw[row - 4 : row + 5, col - 4 : col + 5]
        sigma0 = 20 * np.log10(np.maximum(np.median(there), 1) / found[y, x])
        seen = np.median(scene.pixels[0][y - 4 : y + 5, x - 4 : x + 5])
        pairs.append((np.clip((sigma0 - band.low) * 255 / (band.high - band.low), 0, 255), seen))
        checked += 1
    assert checked > 100
    expected, seen_there = np.array(pairs).T
    assert np.median(np.abs(expected - seen_there)) < 4
    part = Window(300, 500, 700, 900)
    again = read_scene(grid, part, made.scene_items(grid.name, 0, part))
    assert np.array_equal(again.pixels, scene.pixels[:, 300:700, 500:900])


def test_a_scene_without_annotation_is_close_and_says_so(data: Path, tmp_path: Path) -> None:
    bare = grd(data, tmp_path, None)
    [warning] = bare.warnings
    assert "no calibration annotation" in warning
    cols = raw_of(bare)[0].shape[1]
    flat = annotation([0, 9999], [[0, cols - 1]] * 2, [[600.0, 600.0]] * 2)
    calibrated = whole(grd(data, tmp_path, flat))
    difference = calibrated.pixels.astype(int) - whole(bare).pixels
    assert np.abs(difference).max() <= 1, "of one gain, they differ by rounding"
    assert bare.item_keys != grd(data, tmp_path, flat).item_keys


ROWS, COLS = 837, 1280
"""Of the real scene."""


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("broken", "cannot be used: it is no XML"),
        (annotation([0, ROWS], [[0, 9]] * 2, [[600.0] * 2] * 2), "its columns 0 to 9"),
        (annotation([0, ROWS], [[COLS - 9, COLS]] * 2, [[600.0] * 2] * 2), "its columns"),
        (annotation([0, 10], [[0, COLS]] * 2, [[600.0] * 2] * 2), "its lines are 0 to 10"),
        (annotation([10**6, 10**6 + 9], [[0, COLS]] * 2, [[600.0] * 2] * 2), "its lines"),
        (annotation([0], [[0, COLS]], [[600.0] * 2]), "is not that of asset"),
        (annotation([0, ROWS], [[0, COLS]] * 2, [[600.0] * 2] * 2, "HH"), "its polarisation 'HH'"),
    ],
)
def test_an_annotation_of_another_scene_breaks_the_ground(
    data: Path, tmp_path: Path, document: str, reason: str
) -> None:
    made = grd(data, tmp_path, document)
    assert raw_of(made)[0].shape == (ROWS, COLS)
    scene = whole(made)
    assert not scene.valid.any()
    assert reason in scene.errors[0]


def test_pixels_on_the_ground_are_not_calibrated_in_the_sensors_geometry(
    data: Path, tmp_path: Path
) -> None:
    made = grd(data, tmp_path, "<calibration/>")
    path = tmp_path / "ground.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=10, height=10, count=1, dtype="uint16", crs="EPSG:32643"
    ) as raster:
        raster.write(np.ones((1, 10, 10), np.uint16))
    flat = tmp_path / "flat.xml"
    flat.write_text(annotation([0, 9], [[0, 9]] * 2, [[1.0, 1.0]] * 2))
    [grid] = made.grids.values()
    with pytest.raises(SourceError, match="does not lie as the sensor saw it"):
        gain(
            grid,
            Window(0, 0, 9, 9),
            Raster("a", "vv", str(path)),
            Document("a", "schema-calibration-vv", str(flat)),
            made.opening,
        )
