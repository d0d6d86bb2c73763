"""The pixels that the model sees, as a user opens them in xarray."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from earthgptx import open_scene, plan
from earthgptx.pipeline.errors import JobError, SourceError
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.reading.scene import read_scene
from tests.archive import Archive


@pytest.fixture
def mosaic(archive: Archive) -> Archive:
    """Two Items that overlap, and one a day later."""
    dice = np.random.default_rng(0)
    for name, col, when in (("a", 0, "T10"), ("b", 300, "T11"), ("c", 0, "T10")):
        pixels = dice.integers(1, 255, (700, 500)).astype(np.uint8)
        day = "02" if name == "c" else "01"
        archive.add(name, pixels, col=col, when=f"2026-01-{day}{when}:00:00Z")
    archive.save()
    return archive


def test_a_scene_is_what_a_replica_reads_block_by_block(mosaic: Archive) -> None:
    made = plan(mosaic.job("a.zarr"))
    [grid] = made.grids.values()
    scene = open_scene(made)
    assert isinstance(scene.pixels.data, da.Array), "nothing is read before it is computed"
    assert scene.sizes == {"band": 3, "y": 700, "x": 800}
    computed = scene.compute()
    for row in range(grid.blocks_shape[0]):
        for col in range(grid.blocks_shape[1]):
            key = BlockKey(grid.name, 0, row, col)
            window = grid.read_window(key) & grid.window
            ours = read_scene(grid, window, made.scene_items(grid.name, 0, window))
            at = {"y": slice(window.y0, window.y1), "x": slice(window.x0, window.x1)}
            assert np.array_equal(computed.pixels.isel(at), ours.pixels)
            assert np.array_equal(computed.valid.isel(at), ours.valid)


def test_each_pixel_knows_its_item(mosaic: Archive) -> None:
    scene = open_scene(mosaic.job("a.zarr"))
    assert scene.attrs["items"] == ["made/a", "made/b"]
    item = scene.item.values
    assert (item[:, :500] == 0).all()
    assert (item[:, 500:] == 1).all()
    assert open_scene(mosaic.job("a.zarr"), 1).attrs["items"] == ["made/c"]
    assert (open_scene(mosaic.job("a.zarr"), 1).item.values[:, 500:] == -1).all()


def test_a_scene_lies_where_its_imagery_lies(mosaic: Archive, tmp_path: Path) -> None:
    scene = open_scene(mosaic.job("a.zarr"))
    assert scene.rio.crs.to_epsg() == 32631
    assert scene.rio.bounds() == (500_000, 4_693_000, 508_000, 4_700_000)
    one = scene.sel(x=500_005, y=4_699_995)
    assert int(one.pixels[0]) == int(scene.pixels[0, 0, 0])


def test_a_slice_or_grid_that_is_not_there_is_said(mosaic: Archive) -> None:
    with pytest.raises(JobError, match="no time slice 2; the plan has 0 to 1"):
        open_scene(mosaic.job("a.zarr"), 2)
    with pytest.raises(JobError, match="one of the plan's grids: epsg32631"):
        open_scene(mosaic.job("a.zarr"), grid="other")


def test_an_item_that_cannot_be_read_is_an_error_and_no_hole(mosaic: Archive) -> None:
    made = plan(mosaic.job("a.zarr"))
    Path(made.items[0].assets["image"].href).unlink()
    with pytest.raises(SourceError, match="asset image of item a"):
        open_scene(made).compute()
