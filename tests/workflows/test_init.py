"""A first job file: it is commented, it runs, and a mistake leaves nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from earthgptx import JobSpec, plan
from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.init import write_job


def image(path: Path, dtype: str, *, crs: str | None = "EPSG:32631") -> Path:
    """A small georeferenced image of three bands, values from 0 to 4000 or 200."""
    most = 200 if dtype == "uint8" else 4000
    values = np.random.default_rng(0).integers(0, most, (3, 96, 128)).astype(dtype)
    profile = {"driver": "GTiff", "count": 3, "height": 96, "width": 128, "dtype": dtype}
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_700_000)
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as raster:
        raster.write(values)
    return path


def test_the_sample_job_is_ready_to_run(tmp_path: Path, sample_archive: Path) -> None:
    (tmp_path / "sample").symlink_to(sample_archive)  # an archive that is there stays
    [job] = write_job(tmp_path / "first.yaml", "sample")
    made = plan(JobSpec.from_yaml(job))
    assert made.spec.output == str(tmp_path / "results" / "first.zarr")
    assert made.tile_count > 50


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_drone_image_becomes_a_catalog_and_a_plan(tmp_path: Path, dtype: str) -> None:
    catalog, job = write_job(
        tmp_path / "field 1.yaml", "drone", image=image(tmp_path / "a.tif", dtype)
    )
    assert catalog == tmp_path / "field-1-catalog" / "catalog.json"
    made = plan(JobSpec.from_yaml(job))
    [grid] = made.grids.values()
    assert grid.crs == "EPSG:32631"
    assert all(0 <= side - own < 10 for side, own in zip(grid.shape, (96, 128), strict=True))
    profile = made.sources[0].profile
    assert [band.index for band in profile.bands] == [1, 2, 3]
    low, high = profile.bands[0].low, profile.bands[0].high
    assert (low, high) == (0, 255) if dtype == "uint8" else 0 < low < 200 < 3800 < high < 4000


def test_the_job_over_a_public_catalog_is_valid_and_says_what_it_needs(tmp_path: Path) -> None:
    [job] = write_job(tmp_path / "gibraltar.yaml", "stac-api")
    assert job.read_text().startswith("# Needs the internet.")
    assert JobSpec.from_yaml(job).source.collections == ["sentinel-2-l2a"]


@pytest.mark.parametrize("stem", ["2024", "no", "null", "hafen-süd", "..", "a" * 120])
def test_any_file_name_gives_a_valid_job(tmp_path: Path, stem: str) -> None:
    [job] = write_job(tmp_path / f"{stem}.yaml", "stac-api")
    assert JobSpec.from_yaml(job).output.endswith(".zarr")


def test_mistakes_are_named_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(JobError, match=r"there.yaml exists already"):
        write_job(tmp_path / "there.yaml", "sample")
    assert (tmp_path / "there.yaml").read_text() == "mine"
    for origin, given in (("drone", None), ("sample", tmp_path / "there.yaml")):
        with pytest.raises(JobError, match=r"--from drone goes with --image"):
            write_job(tmp_path / "job.yaml", origin, image=given)
    with pytest.raises(JobError, match=r"cannot be read as a GeoTIFF"):
        write_job(tmp_path / "job.yaml", "drone", image=tmp_path / "there.yaml")
    with pytest.raises(JobError, match=r"a.tif has no CRS"):
        unplaced = image(tmp_path / "a.tif", "uint8", crs=None)
        write_job(tmp_path / "job.yaml", "drone", image=unplaced)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "there.yaml"]
