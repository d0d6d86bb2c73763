"""The accessor `ds.earthgptx` of a result that plain xarray has opened."""

from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr

import earthgptx.xarray
from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.results.result import Result
from tests.archive import Archive, targets


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    archive = Archive(tmp_path_factory.mktemp("accessor"))
    archive.add("first", targets(8), nodata=None)
    archive.add("second", targets(9), when="2026-02-01T10:00:00Z", nodata=None)
    archive.save()
    job = archive.job(archive.folder / "out.zarr", tasks={"find": ["ship"]})
    run(plan(job), pool=pool)
    return open_result(job.output)


@pytest.fixture
def raster(result: Result) -> Iterator[xr.Dataset]:
    with xr.open_zarr(result.url, group="raster") as opened:
        yield opened


def test_a_dataset_knows_its_objects(result: Result, raster: xr.Dataset) -> None:
    assert raster.earthgptx.labels == ("ship",)
    everything = raster.earthgptx.query()
    assert set(everything.object_id) == set(result.objects.object_id)
    assert isinstance(earthgptx.xarray.EarthgptxAccessor(raster).result, Result)


def test_a_selection_knows_the_objects_that_it_shows(raster: xr.Dataset) -> None:
    some = raster.isel(time=0, x=slice(0, 300), y=slice(100, 400))
    found = some.earthgptx.query()
    shown = set(np.unique(some["object_id"])) - {0}
    assert shown
    assert set(found.object_id) == shown
    assert len(some.earthgptx.query(min_score=0.99)) < len(found)
    assert len(some.earthgptx.query(order="-score", limit=2)) == 2


def test_an_overview_shows_the_same_ground(result: Result, raster: xr.Dataset) -> None:
    with xr.open_zarr(result.url, group="overview/2") as coarse:
        assert set(coarse.earthgptx.query().object_id) == set(raster.earthgptx.query().object_id)


def test_a_place_says_why(raster: xr.Dataset) -> None:
    lon, lat = raster.earthgptx.ground.centroid.coords[0]
    assert {each.status for each in raster.earthgptx.why(lon, lat)} == {"done"}


def test_what_is_no_result_is_said(result: Result, raster: xr.Dataset) -> None:
    with pytest.raises(OutputError, match="does not say which store it comes from"):
        _ = xr.Dataset().earthgptx.result
    with pytest.raises(OutputError, match="the dataset has no pixels"):
        raster.isel(x=slice(0, 0)).earthgptx.query()
    with (
        xr.open_zarr(result.url, group="tiles") as tiles,
        pytest.raises(OutputError, match="shows no ground"),
    ):
        tiles.earthgptx.query()
