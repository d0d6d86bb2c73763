"""Vector files are read by what their suffix says, and nothing in them names another file."""

import json
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.vectors import SUFFIXES, read_aoi, read_prompts, read_vector

AREA = shapely.box(10, 45, 11, 46)
VIRTUAL = """<OGRVRTDataSource><OGRVRTLayer name="{name}">
<SrcDataSource>{path}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"""


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("a.geojson", "GeoJSON"),
        ("a.json", "GeoJSON"),
        ("a.geojsonl", "GeoJSONSeq"),
        ("a.gpkg", "GPKG"),
        ("a.shp", "ESRI Shapefile"),
        ("A.GPKG", "GPKG"),
    ],
)
def test_each_format_gives_the_same_area(tmp_path: Path, name: str, driver: str) -> None:
    gpd.GeoDataFrame(geometry=[AREA], crs="OGC:CRS84").to_file(tmp_path / name, driver=driver)
    assert read_aoi(str(tmp_path / name)).equals(AREA)


def test_a_shape_in_metres_is_moved_to_degrees(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(geometry=[AREA], crs="OGC:CRS84").to_crs("EPSG:32632")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_file(tmp_path / "old.geojson", driver="GeoJSON", RFC7946="NO")
    assert "crs" in json.loads((tmp_path / "old.geojson").read_text())
    for name in ("a.parquet", "old.geojson"):
        assert read_aoi(str(tmp_path / name)).hausdorff_distance(AREA) < 1e-3


@pytest.mark.parametrize("document", [AREA, {"type": "Feature", "geometry": AREA}])
def test_a_bare_geometry_or_feature_is_an_area(tmp_path: Path, document: object) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(document, default=lambda shape: shape.__geo_interface__))
    assert read_aoi(str(path)).equals(AREA)


def test_prompts_are_named_by_the_ids_of_features(tmp_path: Path) -> None:
    features = [
        {"type": "Feature", "id": name, "properties": None, "geometry": geometry}
        for name, geometry in (("pier", AREA.__geo_interface__), ("gone", None))
    ]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_prompts(str(path), AREA)
    assert [name for name, _ in found.shapes] == ["pier"]
    assert found.refused == {"gone": "empty geometry"}


STARTS = [start.decode("latin-1") for start in SUFFIXES.values() if start]


@pytest.mark.parametrize("suffix", list(SUFFIXES))
@pytest.mark.parametrize("front", ["", '{"a": "', "  ", *STARTS])
def test_a_virtual_layer_reads_no_other_file(tmp_path: Path, suffix: str, front: str) -> None:
    secret = tmp_path / "secret.geojson"
    gpd.GeoDataFrame(geometry=[AREA], crs="OGC:CRS84").to_file(secret)
    path = tmp_path / f"area{suffix}"
    path.write_bytes(front.encode("latin-1") + VIRTUAL.format(name="secret", path=secret).encode())
    with pytest.raises(JobError, match=r"source\.aoi"):
        read_aoi(str(path))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.vrt", "", "none of the suffixes"),
        ("a.kml", "", "none of the suffixes"),
        ("a.geojson", "[1, 2]", "cannot read"),
        ("a.geojson", "{}", "cannot read"),
        ("a.geojson", '{"type": "FeatureCollection", "features": [{}]}', "cannot read"),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}', "no "),
        ("a.gpkg", "SQLite format 3\0", "cannot read"),
        ("a.fgb", "", "none of the suffixes"),
        ("a.geojson", '{"geometryType": "esriGeometryPoint", "features": []}', "it has no type"),
        ("a.geojson", '{"type": "Point", "coordinates": [NaN, 1]}', "are no numbers"),
        ("a.geojson", '{"type": "Point", "coordinates": [1e999, 1]}', "are no numbers"),
        ("a.geojson", '{"type": "Point", "coordinates": [1, 2], "crs": {"type": "link"}}', "crs"),
        ("a.geojson", '{"type": "Point", "coordinates": [1, 2], "crs": "nonsense"}', "nonsense"),
    ],
)
def test_bad_files_are_refused_with_a_sentence(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(JobError, match=reason):
        read_vector(str(path), "labels")
        read_aoi(str(path))


@pytest.mark.parametrize(
    "crs",
    [
        {"type": "EPSG", "properties": {"code": 32632}},
        {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}},
        "EPSG:32632",
    ],
)
def test_every_old_way_to_say_a_crs_counts(tmp_path: Path, crs: object) -> None:
    moved = gpd.GeoSeries([AREA], crs="OGC:CRS84").to_crs("EPSG:32632").iloc[0]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(moved.__geo_interface__ | {"crs": crs}))
    assert read_aoi(str(path)).hausdorff_distance(AREA) < 1e-3


def test_ids_that_are_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    features = [
        {"type": "Feature", "geometry": AREA.__geo_interface__, **more}
        for more in ({"id": 7}, {"properties": {"id": 12, "geometry": "odd"}}, {"id": "x"})
    ]
    path = tmp_path / "a.geojsonl"
    path.write_text("\n".join(map(json.dumps, features)))
    assert [name for name, _ in read_prompts(str(path), AREA).shapes] == ["7", "12", "x"]


@pytest.mark.parametrize("ids", [("", "a"), (" ", "a"), ("a", "a")])
def test_ids_that_are_blank_or_twice_give_way_to_row_numbers(
    tmp_path: Path, ids: tuple[str, str]
) -> None:
    features = [{"type": "Feature", "geometry": AREA.__geo_interface__, "id": each} for each in ids]
    path = tmp_path / "a.geojsonl"
    path.write_text("\n".join(map(json.dumps, features)))
    names = [name for name, _ in read_prompts(str(path), AREA).shapes]
    assert names == ["row-0", "row-1"]
