"""The result as others read it: plain xarray in a process that cannot import our packages, GDAL,
geopandas.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.results.status import state_of
from earthgptx.pipeline.results.store import Status
from tests.archive import Archive, targets


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Path:
    """Two dates, ground without data, an AOI with a slanted edge, two phrases."""
    folder = tmp_path_factory.mktemp("store")
    archive = Archive(folder / "archive")
    pixels = targets(8)
    archive.add("first", pixels, nodata=None)
    holed = pixels.copy()
    holed[300:400, 200:500] = 0
    archive.add("second", holed, when="2026-02-01T10:00:00Z", nodata=0)
    archive.save()
    slanted = shapely.from_wkt("POLYGON ((2.9 42, 3.12 42, 3.05 42.6, 2.9 42.6, 2.9 42))")
    job = archive.job(
        folder / "out.zarr",
        tasks={"find": ["ship", "white boat"], "describe": True, "keep_scores": True},
        source={"aoi": {"wkt": shapely.to_wkt(slanted & shapely.from_wkt(archive.ground), 12)}},
    )
    run(plan(job), pool=pool)
    return folder / "out.zarr"


READER = """
import importlib.abc, sys
class Ours(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "earthgptx":
            raise ImportError("our packages are not here")
sys.meta_path.insert(0, Ours())
import json, warnings
warnings.simplefilter("error")
import numpy, xarray as xr
tree = xr.open_datatree(sys.argv[1], engine="zarr")
raster = xr.open_zarr(sys.argv[1], group="raster")
print(json.dumps({
    "groups": sorted(tree.groups), "dims": dict(raster.sizes),
    "dtypes": {n: str(v.dtype) for n, v in raster.items()},
    "score": float(raster.score.max()), "meanings": raster.label.attrs["flag_meanings"],
    "statuses": raster.status.attrs["flag_meanings"],
    "status": numpy.unique(raster.status).tolist(),
    "times": [str(t)[:10] for t in raster.time.values], "x": raster.x.values[:2].tolist(),
    "y": raster.y.values[:2].tolist(), "wkt": tree["raster"]["spatial_ref"].attrs["crs_wkt"][:50],
    "captions": tree["tiles"]["caption"].values.ravel().tolist()[:1],
    "words": str(tree["objects"]["caption"].values[0]),
    "state": tree.attrs["earthgptx"]["state"], "coarse": tree["overview/2"]["label"].shape,
}))
"""


def test_plain_xarray_reads_it_where_our_packages_are_not(result: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", READER, str(result)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert {"/raster", "/overview", "/objects", "/tiles", "/blocks"} <= set(found["groups"])
    assert found["dims"] == {"time": 2, "y": 1024, "x": 1024, "phrase": 2}
    assert found["dtypes"]["label"] == found["dtypes"]["status"] == "uint8"
    assert found["dtypes"]["object_id"] == "uint64"
    assert 0.5 < found["score"] <= 1
    assert found["meanings"] == "none ship white_boat"
    assert found["statuses"].split()[:3] == ["no_answer", "done", "outside_aoi"]
    assert found["status"] == [0, Status.DONE, Status.OUTSIDE_AOI, Status.NO_SOURCE_DATA]
    assert found["times"] == ["2026-01-01", "2026-02-01"]
    assert found["x"] == [500_005, 500_015]
    assert found["y"] == [4_699_995, 4_699_985]
    assert found["wkt"].startswith('PROJCS["WGS 84 / UTM zone 31N"')
    assert "bright targets" in found["captions"][0]
    assert found["words"].startswith(("ship, about", "white boat, about"))
    assert found["state"] == "finished"
    assert found["coarse"] == [2, 512, 512]


def test_the_raster_knows_its_crs_by_rioxarray(result: Path) -> None:
    import rioxarray  # noqa: F401

    raster = xr.open_zarr(result, group="raster")
    assert raster.rio.crs.to_epsg() == 32631
    assert raster.rio.transform() == rasterio.Affine(10, 0, 500_000, 0, -10, 4_700_000)
    clipped = raster["label"].rio.clip_box(501_000, 4_696_000, 502_000, 4_697_000)
    assert clipped.shape == (2, 100, 100)


def test_layers_agree_with_one_another_and_with_the_objects(result: Path) -> None:
    raster = xr.open_zarr(result, group="raster").load()
    status, label, score = (raster[name].values for name in ("status", "label", "score"))
    ids = raster["object_id"].values
    assert (label[status != Status.DONE] == 0).all()
    assert (ids[status != Status.DONE] == 0).all()
    assert (status[1, 300:400, 200:500] == Status.NO_SOURCE_DATA)[
        status[1, 300:400, 200:500] != 2
    ].all()
    assert ((score >= 128 / 255 - 1e-9) == (label > 0)).all()
    assert np.allclose(raster["scores"].values.max(axis=0), score)
    objects = open_result(str(result)).objects
    assert set(np.unique(ids)) - {0} <= set(objects["object_id"].astype(np.uint64))
    assert objects["object_id"].is_unique


def test_overviews_keep_what_is_there(result: Path) -> None:
    base = xr.open_zarr(result, group="raster").load()
    tree = xr.open_datatree(result, engine="zarr")
    levels = sorted(int(name) for name in tree["overview"].children)
    assert levels == [2, 4]
    fine = base["object_id"].values[0]
    for level in levels:
        coarse = np.asarray(tree[f"overview/{level}/object_id"])[0]
        padded = np.zeros((coarse.shape[0] * level, coarse.shape[1] * level), fine.dtype)
        padded[: fine.shape[0], : fine.shape[1]] = fine
        cells = padded.reshape(coarse.shape[0], level, coarse.shape[1], level).max(axis=(1, 3))
        assert np.array_equal(cells > 0, coarse > 0)
    layout = tree.attrs["multiscales"]["layout"]
    assert [step["asset"] for step in layout] == ["raster", "overview/2", "overview/4"]
    for step in layout:
        group = tree[step["asset"]]
        assert step["spatial:shape"] == list(group["label"].shape[1:])
        assert group.attrs["spatial:bbox"] == tree.attrs["spatial:bbox"], "all share one extent"


def test_a_shard_is_a_block_and_chunks_are_whole(result: Path) -> None:
    label = zarr.open_array(result / "raster" / "label", mode="r")
    assert label.shards == (1, 512, 512)
    assert label.chunks == (1, 512, 512)
    files = sorted(
        str(p.relative_to(result / "raster/label/c"))
        for p in (result / "raster/label/c").rglob("*")
        if p.is_file()
    )
    assert all(len(name.split("/")) == 3 for name in files)


def test_the_tables_beside_it_open_with_geopandas_and_pystac(result: Path) -> None:
    base = str(result).removesuffix(".zarr")
    files = sorted(Path(f"{base}.objects").rglob("*.parquet"))
    objects = pd.concat([gpd.read_parquet(file) for file in files], ignore_index=True)
    assert objects.crs.to_epsg() == 4326 or objects.crs.to_string() == "OGC:CRS84"
    ours = open_result(str(result)).objects
    assert objects.geometry.to_wkb().equals(ours.geometry.to_wkb())
    geo = json.loads(pq.read_schema(files[0]).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert "covering" in geo["columns"]["geometry"]
    west = gpd.read_parquet(files[0], bbox=(2.9, 42, 3.05, 42.6))
    assert 0 < len(west) < len(gpd.read_parquet(files[0]))
    item = pystac.Item.from_file(f"{base}.item.json")
    assert item.bbox is not None
    assert item.bbox[2] - item.bbox[0] < 1, "the ground that the imagery shows, not the AOI's box"
    assert item.properties["proj:code"] == "EPSG:32631"
    assert item.properties["processing:lineage"].startswith("series ")
    assert [c["name"] for c in item.assets["raster"].extra_fields["classification:classes"]] == [
        "none",
        "ship",
        "white_boat",
    ]
    sources = [link.target for link in item.links if link.rel == "derived_from"]
    assert len(sources) == 2
    assert Path(item.assets["objects"].get_absolute_href() or "").is_dir()


def test_a_result_that_is_not_finished_says_so(result: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "half.zarr"
    shutil.copytree(result, copy)
    root = zarr.open_group(copy, mode="r+")
    said: dict[str, Any] = dict(root.attrs["earthgptx"])  # type: ignore[arg-type]
    root.attrs["earthgptx"] = {**said, "state": "error"}
    root["blocks/record"][0, 0, 0] = 0  # type: ignore[index]
    root["slices/state"][...] = "running"  # type: ignore[index]
    del root["objects"]
    half = open_result(str(copy))
    assert state_of(half).state == "error"
    assert state_of(half).blocks == 7
    with pytest.raises(Exception, match="is error: objects come with the first"):
        _ = half.objects
