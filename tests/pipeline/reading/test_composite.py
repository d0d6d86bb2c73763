"""Composites of the Items of a time slice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgptx import plan
from earthgptx.pipeline.job.grid import Window
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.reading.scene import Scene, read_scene
from tests.archive import Archive

SHAPE = (1100, 90)
"""Rows of three strips of cells."""


def scene_of(made: Plan, window: Window | None = None) -> Scene:
    [grid] = made.grids.values()
    window = window or grid.window
    items = made.scene_items(grid.name, 0, window)
    return read_scene(grid, window, items, compose=made.spec.compose)


def stack(archive: Archive, count: int, seed: int = 0) -> np.ndarray:
    """So many Items on the same ground, with holes; 0 is no data. (N, H, W)."""
    dice = np.random.default_rng(seed)
    layers = dice.integers(1, 255, (count, *SHAPE)).astype(np.uint8)
    layers[dice.random(layers.shape) < 0.4] = 0
    layers[:, 5:9, 5:9] = 0
    for number, layer in enumerate(layers):
        archive.add(f"i{number}", layer, when=f"2026-01-0{number + 1}T10:00:00Z")
    archive.save()
    return layers


def lower_median(layers: np.ndarray) -> np.ndarray:
    expected = np.zeros(SHAPE, np.uint8)
    for at in np.ndindex(SHAPE):
        values = sorted(value for value in layers[(slice(None), *at)] if value)
        if values:
            expected[at] = values[(len(values) - 1) // 2]
    return expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_median_is_of_what_was_seen(archive: Archive, count: int) -> None:
    layers = stack(archive, count)
    made = plan(archive.job("a.zarr", slices="all", compose="median"))
    scene = scene_of(made)
    expected = lower_median(layers)
    assert np.array_equal(scene.pixels[0], expected)
    assert np.array_equal(scene.valid, expected > 0)
    assert (scene.source == -1).all()
    part = Window(490, 3, 1050, 77)
    again = scene_of(made, part)
    assert np.array_equal(again.pixels, scene.pixels[:, 490:1050, 3:77])


def test_one_item_is_the_same_with_and_without_a_graph(archive: Archive) -> None:
    stack(archive, 1)
    straight = scene_of(plan(archive.job("a.zarr", slices="all")))
    graph = scene_of(plan(archive.job("a.zarr", slices="all", compose="median")))
    assert np.array_equal(straight.pixels, graph.pixels)
    assert np.array_equal(straight.valid, graph.valid)


def test_where_an_item_cannot_be_read_there_is_no_median(archive: Archive) -> None:
    """The median of the others would be another one."""
    full = np.full((100, 100), 50, np.uint8)
    archive.add("a", full)
    path = archive.add("b", full[:, :40], when="2026-01-02T10:00:00Z")
    archive.save()
    made = plan(archive.job("a.zarr", slices="all", compose="median"))
    Path(path).unlink()
    scene = scene_of(made)
    assert scene.broken[:, :40].all()
    assert not scene.valid[:, :40].any()
    assert scene.valid[:, 40:].all()
    assert "asset image of item b" in scene.errors[0]


@pytest.mark.parametrize(
    ("compose", "value"), [("first", 10), ("latest", 30), ("least_cloud", 20), ("median", 20)]
)
def test_which_item_a_pixel_shows(archive: Archive, compose: str, value: int) -> None:
    clouds: list[dict[str, Any]] = [{"eo:cloud_cover": 60}, {"eo:cloud_cover": 5}, {}]
    for number, cloud in enumerate(clouds):
        pixels = np.full((40, 40), 10 * (number + 1), np.uint8)
        when = f"2026-01-0{number + 1}T10:00:00Z"
        archive.add(f"i{number}", pixels, when=when, properties=cloud)
    archive.save()
    made = plan(archive.job("a.zarr", slices="month", compose=compose))
    assert (scene_of(made).pixels == value).all()
    other = plan(archive.job("a.zarr", slices="month"))
    assert (made.series == other.series) == (compose == "first")


@pytest.mark.parametrize(
    ("resolution", "side", "shape"),
    [("native", 20, (50, 50)), ("finest", 10, (100, 100)), ("coarsest", 20, (50, 50))],
)
def test_the_pixel_size_of_items_that_differ_is_chosen_and_said(
    archive: Archive, resolution: str, side: float, shape: tuple[int, int]
) -> None:
    archive.add("coarse", np.full((50, 50), 9, np.uint8), step=20)
    archive.add("fine", np.full((100, 100), 8, np.uint8), when="2026-01-01T12:00:00Z")
    archive.save()
    made = plan(archive.job("a.zarr", grid={"resolution": resolution}))
    [grid] = made.grids.values()
    assert (grid.transform[0], grid.shape) == (side, shape)
    [warning] = made.warnings
    assert "1 of 10 in EPSG:32631, 1 of 20 in EPSG:32631" in warning
    assert (scene_of(made).pixels == 9).all()
