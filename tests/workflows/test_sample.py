"""The sample archive, and the demo over it."""

import hashlib
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
from matplotlib.image import imread

from earthgptx import open_result
from earthgptx.workflows.demo import run_demo
from earthgptx.workflows.sample import DATES, SAR_DATES, make_sample


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(
        b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)
    ).hexdigest()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_another_coast(tmp_path: Path) -> None:
    make_sample(tmp_path / "one", seed=3)
    make_sample(tmp_path / "two", seed=3)
    make_sample(tmp_path / "other", seed=4)
    assert digest(tmp_path / "one") == digest(tmp_path / "two") != digest(tmp_path / "other")


@pytest.mark.slow
def test_scale_makes_it_bigger(tmp_path: Path, sample_archive: Path) -> None:
    make_sample(tmp_path / "big", scale=2)
    assert len(list((tmp_path / "big").rglob("*.tif"))) == 2 * len(
        list(sample_archive.rglob("*.tif"))
    )


def test_it_is_a_static_catalog_of_three_sensors_two_zones_and_several_dates(
    sample_archive: Path,
) -> None:
    catalog = pystac.Catalog.from_file(str(sample_archive / "catalog.json"))
    collections = {
        collection.id: list(collection.get_items()) for collection in catalog.get_children()
    }
    assert sorted(collections) == ["sample-infrared", "sample-optical", "sample-sar"]
    for name, items in collections.items():
        dates = SAR_DATES if name == "sample-sar" else DATES
        assert {item.datetime for item in items} == set(dates)
        assert {item.properties["proj:code"] for item in items} == {"EPSG:32631", "EPSG:32632"}
        assert all(
            asset.extra_fields["proj:transform"] for item in items for asset in item.assets.values()
        ), name
    optical = collections["sample-optical"][0]
    assert 0 <= optical.properties["eo:cloud_cover"] <= 100
    assert collections["sample-sar"][0].properties["sar:polarizations"] == ["VV", "VH"]
    first, second = (
        shape
        for shape in sorted(item.bbox for item in collections["sample-optical"] if item.bbox)[0:4:3]
    )
    assert second[0] < first[2], "some scenes overlap"


def test_its_rasters_are_cogs_with_overviews_whose_mask_says_where_cloud_is(
    sample_archive: Path,
) -> None:
    for path in sorted(sample_archive.rglob("*.tif"))[::7]:
        with rasterio.open(path) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.overviews(1), path
            assert raster.profile["tiled"]
    visual = next(iter(sorted(sample_archive.rglob("visual.tif"))))
    shares = []
    for folder in sorted({path.parent for path in sample_archive.rglob("visual.tif")}):
        with (
            rasterio.open(folder / "visual.tif") as raster,
            rasterio.open(folder / "cloud.tif") as mask,
        ):
            bright, cloud = raster.read().mean(axis=0), mask.read(1) == 1
        if 0.02 < cloud.mean() < 0.9:
            shares.append(bright[cloud].mean() - bright[~cloud].mean())
    assert shares
    assert min(shares) > 20
    assert visual.is_file()


def test_the_truth_lies_on_what_the_pixels_show(sample_archive: Path) -> None:
    truth = gpd.read_parquet(sample_archive / "truth.parquet")
    kinds = {"ship", "aircraft", "storage tank", "building", "vehicle", "road", "harbour"}
    assert kinds <= set(truth["class"])
    assert truth["caption"].str.len().min() > 5
    folder = next(iter(sorted((sample_archive / "sample-infrared").glob("*20260114-000"))))
    ships = truth[(truth["class"] == "ship") & (truth["time"] == DATES[0])]
    with rasterio.open(folder / "temperature.tif") as raster:
        moved = ships.to_crs(raster.crs)
        kelvin = raster.read(1) / 100
        inside = moved[moved.within(__import__("shapely").box(*raster.bounds).buffer(-50))]
        middles = [raster.index(shape.centroid.x, shape.centroid.y) for shape in inside.geometry]
    assert len(middles) >= 3
    assert np.mean([kelvin[at] > 303 for at in middles]) > 0.9


@pytest.mark.slow
def test_the_demo_finds_ships_with_every_sensor_and_draws_them(tmp_path: Path) -> None:
    shown = run_demo(tmp_path)
    assert [one.job.stem for one in shown] == ["optical", "sar", "infrared"]
    for one in shown:
        assert imread(one.picture).shape[1] >= 1200
        assert one.report.failed_tiles == 0
        ships = open_result(one.report.output).query(label="ship")
        assert len(ships) > 50
        assert ships["caption"].str.contains("ship").mean() > 0.9
