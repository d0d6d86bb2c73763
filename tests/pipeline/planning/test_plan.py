import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from earthgptx import JobSpec, plan
from earthgptx.catalogs.errors import NoItems, UnknownCollection
from earthgptx.catalogs.geoparquet import frozen, thaw
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import Window
from tests.archive import Archive

DARK = np.full((600, 700), 20, np.uint8)


@pytest.fixture
def scene(archive: Archive) -> Archive:
    archive.add("a", DARK)
    archive.add("b", DARK, col=650, when="2026-01-01T12:00:00Z")
    archive.add("c", DARK, when="2026-02-01T10:00:00Z")
    archive.save()
    return archive


def test_the_same_job_gives_the_same_plan_and_how_it_runs_does_not_change_it(
    scene: Archive, tmp_path: Path
) -> None:
    first = plan(scene.job("a.zarr"))
    again = plan(scene.job("elsewhere.zarr", engine={"replicas": 7, "max_failed_fraction": 0.5}))
    assert (first.series, first.item_keys) == (again.series, again.item_keys)
    assert (first.blocks, first.tile_count, first.slices) == (
        again.blocks,
        again.tile_count,
        again.slices,
    )
    (tmp_path / "items.parquet").write_bytes(frozen(first.items))
    thawed = plan(scene.job("a.zarr"), items=thaw(str(tmp_path / "items.parquet")))
    assert (thawed.series, thawed.item_keys) == (first.series, first.item_keys)


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": {"find": ["other"]}},
        {"grid": {"tile_px": 320}, "unused": None},
        {"slices": "all"},
        {"source": {"aoi": {"bbox": [3, 42, 3.05, 43]}}},
        {"source": {"filter": "platform = 'a'"}},
        {"prompts": {"from": "grid"}},
        {
            "source": {
                "profiles": {
                    "made": {
                        "modality": "infrared",
                        "bands": [{"asset": "image", "low": 0, "high": 255}] * 3,
                    }
                }
            }
        },
    ],
)
def test_what_changes_the_result_changes_the_plan(scene: Archive, change: dict[str, Any]) -> None:
    change.pop("unused", None)
    if "grid" in change:
        change["grid"]["block_px"] = 576
    items = plan(scene.job("a.zarr")).items
    made = plan(scene.job("a.zarr", **change), items=list(items))
    assert made.series != plan(scene.job("a.zarr")).series


def test_a_series_may_grow_with_time(scene: Archive) -> None:
    part = plan(scene.job("a.zarr", source={"time": "2026-01"}))
    assert (part.series, len(part.slices)) == (plan(scene.job("a.zarr")).series, 1)


@pytest.mark.parametrize(
    ("slices", "members"),
    [
        ("item", [("a",), ("b",), ("c",)]),
        ("day", [("a", "b"), ("c",)]),
        ("month", [("a", "b"), ("c",)]),
        ("all", [("a", "b", "c")]),
    ],
)
def test_slices_gather_items(scene: Archive, slices: str, members: list[tuple[str, ...]]) -> None:
    made = plan(scene.job("a.zarr", slices=slices))
    assert [tuple(made.items[at].id for at in piece.items) for piece in made.slices] == members


def test_a_plan_counts_what_the_engine_will_do(scene: Archive) -> None:
    made = plan(scene.job("a.zarr", slices="item"))
    [grid] = made.grids.values()
    assert grid.shape == (600, 1350)
    assert len([key for key in made.blocks if key.time == 0]) == 4
    per_scene = [sum(1 for key in made.blocks if key.time == time) for time in range(3)]
    assert per_scene == [4, 4, 4]
    shown = [Window(0, 0, 600, 700), Window(0, 650, 600, 1350), Window(0, 0, 600, 700)]
    windows = [grid.read_window(key) & grid.window & shown[key.time] for key in made.blocks]
    assert made.bytes_to_read == sum(window.shape[0] * window.shape[1] for window in windows)
    assert made.replica_bytes < 1e9


def test_the_corner_of_the_grid_stays_on_the_items_lattice(scene: Archive) -> None:
    bbox = [3.011, 42.41, 3.05, 42.43]
    made = plan(scene.job("a.zarr", source={"aoi": {"bbox": bbox}}))
    [grid] = made.grids.values()
    col, row = (grid.transform[2] - scene.west) / 10, (scene.north - grid.transform[5]) / 10
    assert col == int(col) > 0
    assert row == int(row) > 0
    whole = next(iter(plan(scene.job("a.zarr")).grids.values()))
    assert (grid.lattice[0] - whole.lattice[0], grid.lattice[1] - whole.lattice[1]) == (row, col)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (
            {"source": {"aoi": {"bbox": [50, 10, 51, 11]}}},
            NoItems,
            "source.aoi lies outside all 3 items",
        ),
        (
            {"source": {"time": "2020"}},
            NoItems,
            "no item of .* is in source.time; they are from 2026-01-01 to 2026-02-01",
        ),
        ({"source": {"aoi": {"wkt": "POINT (3 42)"}}}, JobError, "source.aoi.wkt holds no area"),
        ({"source": {"aoi": {"wkt": "POLYGON"}}}, JobError, "source.aoi.wkt is no WKT"),
        ({"source": {"profiles": {}}}, UnknownCollection, "collection 'made' is not known"),
        ({"grid": {"crs": "mars"}}, JobError, "grid.crs 'mars' is no CRS"),
        ({"grid": {"tile_px": 336, "halo_px": 40, "block_px": 256}}, JobError, "use at least 41"),
        ({"model": "lenet"}, JobError, "no analyst 'lenet'"),
        (
            {
                "source": {
                    "profiles": {
                        "made": {
                            "modality": "sar",
                            "bands": [{"asset": "hh", "low": 0, "high": 1}] * 3,
                        }
                    }
                }
            },
            JobError,
            "item a has no asset hh; it has image",
        ),
    ],
)
def test_a_job_that_cannot_be_is_refused(
    scene: Archive, change: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    spec = scene.job("a.zarr").model_dump(mode="json", by_alias=True)
    for key, value in change.items():
        spec[key] = {**spec[key], **value} if isinstance(value, dict) else value
    with pytest.raises(kind, match=sentence):
        plan(JobSpec.from_dict(spec))


def prompts_file(
    path: Path, shapes: list[Any], crs: str | None = "OGC:CRS84", **columns: Any
) -> str:
    gpd.GeoDataFrame(columns, geometry=shapes, crs=crs).to_parquet(path)
    return str(path)


def with_prompts(scene: Archive, path: str) -> JobSpec:
    return scene.job("a.zarr", prompts={"from": path}, tasks={"refer": True})


def test_prompts_that_cannot_be_asked_are_named_and_the_others_go_on(
    scene: Archive, tmp_path: Path
) -> None:
    inside = shapely.Point(3.02, 42.42)
    shapes = [
        inside,
        shapely.Point(9, 9),
        shapely.Polygon(),
        shapely.Polygon([(3, 42.4), (3.01, 42.4), (3, 42.4)]),
    ]
    path = prompts_file(tmp_path / "p.parquet", shapes, id=["in", "out", "empty", "flat"])
    made = plan(with_prompts(scene, path))
    assert [prompt.id for found in made.prompts.values() for prompt in found] == ["in"]
    assert made.refused_prompts["empty"] == "empty geometry"
    assert made.refused_prompts["flat"].startswith("invalid geometry")
    assert (
        "imagery" in made.refused_prompts["out"] or "outside the AOI" in made.refused_prompts["out"]
    )


def test_a_prompt_file_that_cannot_be_used_is_refused(scene: Archive, tmp_path: Path) -> None:
    point = [shapely.Point(3.02, 42.42)]
    with pytest.raises(JobError, match="does not say its CRS"):
        plan(with_prompts(scene, prompts_file(tmp_path / "a.parquet", point, crs=None)))
    with pytest.raises(JobError, match="none of 1 prompts can be asked"):
        plan(with_prompts(scene, prompts_file(tmp_path / "b.parquet", [shapely.Point()])))
    with pytest.raises(JobError, match="cannot read .* as a vector file"):
        plan(with_prompts(scene, str(tmp_path / "missing.geojson")))
    (tmp_path / "text.geojson").write_text("hello")
    with pytest.raises(JobError, match="cannot read .* as a vector file"):
        plan(with_prompts(scene, str(tmp_path / "text.geojson")))


def test_an_aoi_file_may_be_in_any_crs_and_of_several_parts(scene: Archive, tmp_path: Path) -> None:
    shapes = gpd.GeoSeries(
        [shapely.box(3.0, 42.4, 3.02, 42.42), shapely.box(3.03, 42.4, 3.04, 42.42)], crs=4326
    )
    shapes.to_crs(3857).to_file(tmp_path / "aoi.gpkg")
    shapes.to_file(tmp_path / "aoi.geojson")
    one = plan(scene.job("a.zarr", source={"aoi": str(tmp_path / "aoi.gpkg")}))
    other = plan(scene.job("a.zarr", source={"aoi": str(tmp_path / "aoi.geojson")}))
    assert one.blocks == other.blocks
    assert one.tile_count < plan(scene.job("a.zarr")).tile_count
    (tmp_path / "metres.geojson").write_text(
        json.dumps(
            {"type": "Polygon", "coordinates": [[[5e5, 4e6], [6e5, 4e6], [6e5, 5e6], [5e5, 4e6]]]}
        )
    )
    with pytest.raises(JobError, match="not in lon/lat"):
        plan(scene.job("a.zarr", source={"aoi": str(tmp_path / "metres.geojson")}))


def test_two_zones_share_the_ground_without_gap_or_overlap(tmp_path: Path) -> None:
    west = Archive(tmp_path, epsg=32631, west=740_000.0)
    west.add("west", DARK)
    east = Archive(tmp_path, epsg=32632, west=255_000.0)
    east.catalog = west.catalog
    east.add("east", DARK)
    west.save()
    made = plan(west.job("a.zarr"))
    assert sorted(made.grids) == ["epsg32631", "epsg32632"]
    one, other = (made.grids[name] for name in ("epsg32631", "epsg32632"))
    for lon in (5.5, 5.99999, 6.0, 6.5):
        assert one.owns(lon, 42.4) != other.owns(lon, 42.4)
