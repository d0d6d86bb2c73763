"""Jobs over real archives give valid results: every status is explained, every object has words and
a place.
"""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
import xarray as xr

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.geoparquet import frozen, thaw
from earthgptx.catalogs.interval import parse_interval
from earthgptx.catalogs.search import search
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.pipeline.results.picture import draw
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.store import Status
from tests import REPO
from tests.archive import ground_of

ANCHORED = (
    (-118.2375, 33.7170),
    (-118.2280, 33.7209),
    (-118.2235, 33.7372),
    (-118.2095, 33.7260),
    (-118.2308, 33.7332),
    (-118.1726, 33.7284),
    (-118.1646, 33.7468),
)
"""Ships on 7 November 2020, marked by eye in the radar picture: in the roads and off the
breakwater.
"""


def ran(pool: ReplicaPool, out: Path, source: dict[str, Any], **more: Any) -> Result:
    found = search(
        source["catalog"],
        collections=tuple(source["collections"]),
        aoi=shapely.box(-180, -90, 180, 90),
        time=parse_interval("../.."),
    )
    document = {
        "name": "real",
        "source": {"aoi": ground_of(found), **source},
        "tasks": {"find": ["ship"]},
        "output": str(out),
        **more,
    }
    run(plan(JobSpec.from_dict(document)), pool=pool)
    return open_result(str(out))


def valid(result: Result) -> dict[str, int]:
    """Check a finished result; the number of pixels by status."""
    assert result.state == "finished"
    counts: dict[str, int] = {}
    for grid in result.grids:
        layers = result.layer("raster", grid).load()
        status, label, ids = (layers[name].values for name in ("status", "label", "object_id"))
        assert (label[status != Status.DONE] == 0).all()
        assert set(np.unique(ids)) - {0} <= set(result.objects["object_id"].astype(np.uint64))
        for value, count in zip(*np.unique(status, return_counts=True), strict=True):
            counts[Status(value).name] = counts.get(Status(value).name, 0) + int(count)
    objects = result.objects
    assert objects["object_id"].is_unique
    assert objects.geometry.is_valid.all()
    assert (objects["caption"].str.len() > 3).all()
    assert set(objects["item_id"]) <= {item.id for item in thaw(items_beside(result.url))}
    return counts


@pytest.mark.parametrize(
    ("collection", "profiles", "grids", "statuses"),
    [
        ("sentinel-2-l2a", {}, 1, {"DONE", "MASKED"}),
        ("landsat-c2-l2", {}, 7, {"DONE", "MASKED", "NO_SOURCE_DATA"}),
        (
            "landsat-c2-l2",
            {"landsat-c2-l2": "landsat-c2-l2-thermal"},
            6,
            {"DONE", "MASKED", "NO_SOURCE_DATA"},
        ),
        ("sentinel-1-grd", {}, 2, {"DONE", "NO_SOURCE_DATA"}),
        ("naip", {}, 1, {"DONE"}),
    ],
)
def test_a_job_over_each_collection_gives_a_valid_result(
    data: Path,
    tmp_path: Path,
    pool: ReplicaPool,
    collection: str,
    profiles: dict[str, str],
    grids: int,
    statuses: set[str],
) -> None:
    source = {
        "catalog": str(data / "scenes/catalog.json"),
        "collections": [collection],
        "profiles": profiles,
    }
    if profiles:  # one scene, of the surface reflectance product, has no thermal band
        source["filter"] = "landsat:wrs_path <> '099'"
    result = ran(pool, tmp_path / "real.zarr", source, tasks={"find": ["ship"], "describe": True})
    counts = valid(result)
    assert len(result.grids) == grids
    assert statuses <= set(counts)
    # Landsat's four scenes are cloudy, and each has a date of its own, on which the other grids see
    # nothing.
    assert counts["DONE"] > (0.01 if collection.startswith("landsat") else 0.2) * sum(
        counts.values()
    )


@pytest.fixture(scope="module")
def longbeach(data: Path, tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    spec = JobSpec.from_yaml(REPO / "examples" / "longbeach.yaml")
    document = spec.model_dump(mode="json", by_alias=True)
    document["source"]["catalog"] = str(data / "s1s2-longbeach/catalog.json")
    document["output"] = str(tmp_path_factory.mktemp("longbeach") / "sar.zarr")
    run(plan(JobSpec.from_dict(document)), pool=pool)
    return open_result(document["output"])


def test_ships_at_anchor_are_found_and_described_once_each(longbeach: Result) -> None:
    assert valid(longbeach)["DONE"] > 0.99 * 2048 * 2048
    ships = longbeach.query(label="ship")
    for lon, lat in ANCHORED:
        near = ships[ships.distance(shapely.Point(lon, lat)) < 0.0015]
        assert len(near) == 1, (lon, lat)
        assert 80 < near["length_m"].iloc[0] < 350
        assert near["prompt_ids"].iloc[0].startswith("cfar-"), (
            "the prompt and the phrase agree on one object"
        )
    assert len(ANCHORED) <= len(ships) <= 2 * len(ANCHORED)
    tree = shapely.STRtree(ships.geometry.to_numpy())
    a, b = tree.query(ships.geometry.to_numpy(), predicate="intersects")
    assert (a == b).all()


def test_four_items_join_without_a_seam(longbeach: Result) -> None:
    raster = longbeach.raster
    assert isinstance(raster, xr.Dataset)
    done = raster["status"].values[0] == Status.DONE
    rows, cols = (np.flatnonzero(done.any(axis=axis)) for axis in (1, 0))
    score = raster["score"].values[0, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    assert score.shape == (2048, 2048)
    across = np.abs(score[:, 1024] - score[:, 1023]).mean()
    beside = np.mean(
        [np.abs(score[:, c] - score[:, c - 1]).mean() for c in (1000, 1010, 1040, 1050)]
    )
    assert across < 3 * beside + 0.01


def test_its_picture_can_be_drawn(longbeach: Result, tmp_path: Path) -> None:
    draw(longbeach, tmp_path / "longbeach.png")
    assert (tmp_path / "longbeach.png").stat().st_size > 100_000


def test_the_optical_scene_of_the_port_runs_too(
    data: Path, tmp_path: Path, pool: ReplicaPool
) -> None:
    bands = [{"asset": "visual", "index": index, "low": 0, "high": 255} for index in (1, 2, 3)]
    source = {
        "catalog": str(data / "s1s2-longbeach/catalog.json"),
        "collections": ["sentinel-2-l1c-rgb"],
        "profiles": {"sentinel-2-l1c-rgb": {"modality": "optical", "bands": bands}},
    }
    assert valid(ran(pool, tmp_path / "s2.zarr", source))["DONE"] > 0.99 * 2048 * 2048


@pytest.mark.slow
def test_every_outline_of_a_real_scene_is_answered_once(
    data: Path, tmp_path: Path, pool: ReplicaPool
) -> None:
    folder = data / "banepa-buildings/banepa-north"
    item = pystac.Item.from_file(str(folder / "banepa-north.json"))
    item.make_asset_hrefs_absolute()
    item.collection_id = "banepa"
    (tmp_path / "items.parquet").write_bytes(frozen([item]))
    bands = [{"asset": "image", "index": index, "low": 0, "high": 255} for index in (1, 2, 3)]
    source = {
        "catalog": str(tmp_path / "items.parquet"),
        "collections": ["banepa"],
        "profiles": {"banepa": {"modality": "optical", "bands": bands}},
    }
    prompts = {"from": str(folder / "buildings.geojson")}
    result = ran(
        pool,
        tmp_path / "b.zarr",
        source,
        prompts=prompts,
        tasks={"find": ["building"], "refer": True},
        slices="all",
    )
    valid(result)
    asked = gpd.read_file(folder / "buildings.geojson")
    assert len(asked) == 1201
    answered = [name for names in result.objects["prompt_ids"] for name in names.split()]
    refused = result.attrs["refused_prompts"]
    assert len(answered) == len(set(answered))
    assert len(answered) + len(refused) == len(asked)
    assert len(refused) <= 20


def test_items_of_public_apis_are_read_or_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    """Their rasters are not here: a plan needs only an Item that says where its pixels lie."""
    planned, refused = [], {}
    for path in sorted((data / "stac-recordings/items").rglob("*.json")):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and document.get("type") == "Collection":
            continue
        features = document if isinstance(document, list) else document.get("features", [document])
        items = [pystac.Item.from_dict(feature) for feature in features]
        place = str(tmp_path / f"{path.stem}.parquet")
        Path(place).write_bytes(frozen(items))
        names = sorted({item.collection_id or "" for item in items})
        try:
            found = search(
                place,
                collections=tuple(names),
                aoi=shapely.box(-180, -90, 180, 90),
                time=parse_interval("../.."),
            )
            spec = JobSpec.from_dict(
                {
                    "name": "real",
                    "source": {"catalog": place, "collections": names, "aoi": ground_of(items)},
                    "tasks": {"find": ["ship"]},
                    "output": str(tmp_path / "x.zarr"),
                }
            )
            planned.append((path.stem, plan(spec, items=found).tile_count))
        except (CatalogError, JobError) as error:
            refused[path.stem] = str(error)
    known = {"landsat-c2-l2-pc", "naip-pc", "sentinel-1-rtc-pc", "sentinel-2-l2a-pc"}
    assert known <= {name for name, _ in planned}, refused
    assert all(count > 0 for _, count in planned)
    assert set(refused) >= {"cop-dem-glo-30-pc", "umbra-sar"}
    assert all(
        "describe it in the job file under source.profiles" in reason for reason in refused.values()
    )
