import geopandas as gpd
import pyproj
import pytest
import shapely

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.results.query import Result
from tests.archive import Archive, targets


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(tmp_path_factory.mktemp("query"))
    archive.add("first", targets(8), nodata=None)
    archive.add("second", targets(9), when="2026-02-01T10:00:00Z", nodata=None)
    archive.save()
    return archive


@pytest.fixture(scope="module")
def result(archive: Archive, pool: ReplicaPool) -> Result:
    run(
        plan(archive.job(archive.folder / "out.zarr", tasks={"find": ["ship"], "describe": True})),
        pool=pool,
    )
    return open_result(str(archive.folder / "out.zarr"))


def test_every_condition_narrows_and_all_of_them_hold(result: Result) -> None:
    everything = result.objects
    assert len(result.query()) == len(everything) > 20
    assert len(result.query(label="ship")) == len(everything)
    assert len(result.query(label="tank")) == 0
    sure = result.query(min_score=0.99)
    assert 0 < len(sure) < len(everything)
    assert (sure["score"] >= 0.99).all()
    january = result.query(time="2026-01")
    assert 0 < len(january) < len(everything)
    assert {f"{t:%Y-%m-%d}" for t in january["time"]} == {"2026-01-01"}
    assert len(result.query(time="2026-01")) + len(result.query(time="2026-02-01/..")) == len(
        everything
    )
    both = result.query(time="2026-01", min_score=0.99)
    assert set(both["object_id"]) == set(sure["object_id"]) & set(january["object_id"])


def test_words_are_found_in_any_case_and_order(result: Result) -> None:
    found = result.query(text="NORTH-south Ship")
    assert 0 < len(found) < len(result.objects)
    assert found["caption"].str.contains("lying north-south").all()
    assert len(result.query(text="(.*")) == 0, "words are words, not patterns"


def test_a_place_is_met_not_only_contained(result: Result) -> None:
    one = result.objects.geometry.iloc[5]
    middle = one.representative_point()
    found = result.query(within=middle.buffer(1e-6))
    assert one.equals(found.geometry.iloc[0])
    assert len(result.query(within=shapely.box(50, 50, 51, 51))) == 0


def test_a_query_answers_with_the_type_that_the_field_uses(result: Result) -> None:
    found = result.query(min_score=0.9)
    assert isinstance(found, gpd.GeoDataFrame)
    assert found.crs.to_string() == "OGC:CRS84"
    assert found.index.tolist() == list(range(len(found)))
    with pytest.raises(JobError, match="time 'soon' is no interval"):
        result.query(time="soon")


def test_why_names_the_object_of_each_time(result: Result, archive: Archive) -> None:
    first = result.objects[result.objects["time"] == "2026-01-01"].iloc[3]
    place = first.geometry.representative_point()
    answers = result.why(place.x, place.y)
    assert [answer.time[:10] for answer in answers] == ["2026-01-01", "2026-02-01"]
    assert answers[0].object_id == first["object_id"]
    assert answers[0].label == "ship"
    assert answers[0].status == "done"
    to_lonlat = pyproj.Transformer.from_crs(archive.epsg, "OGC:CRS84", always_xy=True)
    for col, row, inside in (
        (0.4, 0.4, True),
        (899.6, 699.6, True),
        (-0.6, 10, False),
        (900.6, 10, False),
    ):
        lon, lat = to_lonlat.transform(archive.west + 10 * col, archive.north - 10 * row)
        if inside:
            assert result.why(lon, lat)[0].status == "done"
        else:
            with pytest.raises(JobError, match="lies outside the result"):
                result.why(lon, lat)


def test_what_is_no_result_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OutputError, match=r"nowhere.zarr holds no Zarr store"):
        open_result(str(tmp_path / "nowhere.zarr"))
