import shutil
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.results.conditions import Conditions, sql_where
from earthgptx.pipeline.results.duck import connect
from earthgptx.pipeline.results.object_table import OBJECTS
from earthgptx.pipeline.results.query import count_objects, find_objects
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.words import ranked
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
    with pytest.raises(JobError, match="no object has the label 'tank'; there are ship"):
        result.query(label="tank")
    sure = result.query(min_score=0.99)
    assert 0 < len(sure) < len(everything)
    assert (sure["score"] >= 0.99).all()
    january = result.query(time="2026-01")
    assert 0 < len(january) < len(everything)
    assert {f"{t:%Y-%m-%d %H}" for t in january["time"]} == {"2026-01-01 10"}
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
    with pytest.raises(JobError, match=r"nothing was seen there: the ground is 3 to 3\.\d+ deg"):
        result.query(within=shapely.box(50, 50, 51, 51))


def test_a_moment_without_imagery_says_what_there_is(result: Result) -> None:
    with pytest.raises(JobError, match="there is imagery from 2026-01-01 to 2026-02-01"):
        result.query(time="2031")
    assert len(result.query(time="2026-01-15")) == 0, "it lies between two slices"


def test_words_are_whole_words_in_singular_or_plural(result: Result) -> None:
    everything = len(result.objects)
    assert len(result.query(text="ships")) == everything
    assert len(result.query(text="nearest other")) > 0
    for part in ("shi", "hip", "near"):
        assert len(result.query(text=part)) == 0


def test_objects_are_sorted_and_limited_over_all_slices(result: Result) -> None:
    longest = result.query(order="-length_m", limit=5)
    expected = result.objects["length_m"].sort_values(ascending=False).head(5)
    assert longest["length_m"].tolist() == expected.tolist()
    area = shapely.box(*result.objects.total_bounds)
    again = result.query(order="-length_m", limit=5, within=area)
    assert again["object_id"].tolist() == longest["object_id"].tolist()
    with pytest.raises(JobError, match="not sorted by 'beauty'; give one of score, time"):
        result.query(order="beauty")


def test_objects_near_a_place_come_with_their_distance(result: Result) -> None:
    one = result.objects.iloc[7]
    middle = one.geometry.representative_point()
    found = result.query(near=(middle.x, middle.y, 800.0), order="distance_m")
    assert found["distance_m"].iloc[0] == 0.0
    assert found["distance_m"].is_monotonic_increasing
    assert found["distance_m"].max() <= 800
    zone = result.objects.to_crs(32631)
    here = zone.geometry.distance(zone.geometry.iloc[7].representative_point())
    assert set(found["object_id"]) == set(zone["object_id"][here <= 800 * 0.9996])


def test_sizes_bound_what_is_found(result: Result) -> None:
    found = result.query(length_m=(100.0, 200.0))
    assert 0 < len(found) < len(result.objects)
    assert found["length_m"].between(100, 200).all()


def test_objects_are_counted_by_what_they_have(result: Result) -> None:
    by_month = result.count("label", "month")
    assert by_month["month"].tolist() == ["2026-01", "2026-02"]
    assert by_month["objects"].sum() == len(result.objects)
    area = shapely.box(*result.objects.total_bounds)
    assert result.count("label", "month", within=area).equals(by_month)
    assert result.count().to_dict("list") == {"objects": [len(result.objects)]}
    items = result.count("item").set_index("item")["objects"]
    assert items.to_dict() == result.objects["item_id"].value_counts().to_dict()
    with pytest.raises(JobError, match="not counted by 'colour'; give some of label, slice"):
        result.count("colour")


def test_several_results_are_asked_together(result: Result) -> None:
    both = find_objects([result, result])
    assert len(both) == 2 * len(result.objects)
    assert set(both["result"].to_pylist()) == {result.url}
    assert count_objects([result, result], "result")["objects"].to_pylist() == [len(both)]


def test_a_lost_file_of_objects_is_an_error(result: Result, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(result.url, copy)
    with pytest.raises(OutputError, match="file of objects is missing, damaged"):
        open_result(str(copy)).query()
    (folder,) = Path(result.url).parent.glob("out.objects")
    shutil.copytree(folder, tmp_path / "copy.objects")
    [first, _] = sorted((tmp_path / "copy.objects").rglob("*.parquet"))
    first.write_bytes(first.read_bytes()[:500])
    with pytest.raises(OutputError, match="file of objects is missing, damaged"):
        open_result(str(copy)).query()
    assert len(open_result(str(copy)).query(time="2026-02")) > 0, "the other is whole"


@pytest.mark.parametrize("harm", ["removed", "cut off", "replaced by a folder's leftover"])
def test_the_next_run_writes_a_lost_file_of_objects_anew(
    archive: Archive, pool: ReplicaPool, tmp_path: Path, harm: str
) -> None:
    spec = archive.job(tmp_path / "out.zarr")
    run(plan(spec), pool=pool)
    before = open_result(spec.output).objects
    [file, _] = sorted((tmp_path / "out.objects").rglob("*.parquet"))
    data = file.read_bytes()
    file.unlink()
    if harm == "cut off":
        file.write_bytes(data[:500])
    elif harm != "removed":
        file.with_name(f"{file.name}.{'0' * 32}.partial").write_bytes(data[:500])
    assert run(plan(spec), pool=pool).tiles == 0, "nothing is inferred again"
    assert file.read_bytes() == data
    assert open_result(spec.output).objects.equals(before)


def test_a_file_in_the_place_of_the_folder_of_objects_is_refused(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    (tmp_path / "out.objects").write_text("ten years of work")
    with pytest.raises(OutputError, match="out.objects"):
        run(plan(archive.job(tmp_path / "out.zarr")), pool=pool, overwrite=True)


@pytest.mark.parametrize("name", ["a*", "a?b", "a[1]", "a'b", "ä {x}"])
def test_no_character_of_a_name_is_a_pattern(result: Result, tmp_path: Path, name: str) -> None:
    for other in (name, "axb", "a1"):
        shutil.copytree(result.url, tmp_path / f"{other}.zarr")
        shutil.copytree(result.url.replace(".zarr", ".objects"), tmp_path / f"{other}.objects")
    assert len(open_result(str(tmp_path / f"{name}.zarr")).query()) == len(result.objects)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("boxes", True),
        ("box", True),
        ("planes", False),
        ("plan", True),
        ("ferry", True),
        ("Fähre", True),
        ("fa\N{COMBINING DIAERESIS}hre", True),
        ("fa", False),
        ("plan's", False),
        ("it's", True),
        (".*", False),
        ("-", False),
        ("x-ray", True),
    ],
)
def test_words_of_captions(text: str, found: bool) -> None:
    caption = "box plans ferries fa\N{COMBINING DIAERESIS}hre it's x-ray"
    assert bool(matching(text, caption)) == found


def matching(text: str, caption: str) -> int:
    objects = pa.table({"label": [""], "caption": [caption]})
    where = sql_where(Conditions(text=text), OBJECTS)
    connection = connect()
    connection.register("objects", objects)
    answer = connection.execute(f"SELECT count(*) FROM objects WHERE {where}").fetchone()
    assert answer
    return int(answer[0])


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"near": (5.0, 95.0, 10.0)}, "near 5 95 10 is no longitude"),
        ({"near": (float("nan"), 5.0, 10.0)}, "is no longitude, latitude and distance"),
        ({"near": (3.0, 42.0, -1.0)}, "is no longitude, latitude and distance"),
        ({"length_m": (20.0, 5.0)}, "length 20 5 is no least and largest"),
        ({"limit": 0}, "limit 0 is no number of objects"),
        ({"text": "a\x00b"}, "cannot be printed"),
    ],
)
def test_conditions_without_a_meaning_are_refused(
    result: Result, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(JobError, match=reason):
        result.query(**asked)


def test_an_object_is_found_at_its_very_moment(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    made = Archive(tmp_path / "fine")
    made.add("a", targets(8), when="2026-01-01T10:56:29.924Z", nodata=None)
    made.save()
    run(plan(made.job(tmp_path / "fine.zarr")), pool=pool)
    fine = open_result(str(tmp_path / "fine.zarr"))
    count = len(fine.objects)
    for time in ("2026-01-01T10:56:29.924Z", "2026-01-01T10:56:29Z/2026-01-01T10:56:29.95Z"):
        assert len(fine.query(time=time)) == count
    with pytest.raises(JobError, match="nothing was seen then"):
        fine.query(time="2026-01-01T10:56:29.925Z/..")


def test_slices_say_where_their_objects_are(result: Result) -> None:
    slices = result.slices
    assert all(name.startswith("2026") for name in slices["name"])
    ids = np.asarray(zarr.open_array(f"{result.url}/objects/object_id", mode="r")[...])
    for row in slices.to_dict("records"):
        first, after = row["first_object"], row["first_object"] + row["objects"]
        there = result.objects["object_id"][result.objects["slice"] == row["start"]]
        assert set(ids[first:after]) == set(there)


def test_the_time_and_the_item_of_an_object_are_those_of_its_pixels(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    """Two Items of a day that share the ground: the first has no data in its eastern half."""
    made = Archive(tmp_path / "halves")
    west = targets(8)
    west[:, 450:] = 0
    made.add("west", west, when="2026-01-01T09:00:00Z")
    made.add("all", targets(9), when="2026-01-01T11:00:00Z", nodata=None)
    made.save()
    run(plan(made.job(tmp_path / "day.zarr", slices="day")), pool=pool)
    found = open_result(str(tmp_path / "day.zarr")).objects
    middles = found.to_crs(made.epsg).geometry.centroid.x
    border = made.west + 4500
    sure = (middles - border).abs() > 300
    assert {f"{t:%H}" for t in found["time"][sure & (middles < border)]} == {"09"}
    assert {f"{t:%H}" for t in found["time"][sure & (middles > border)]} == {"11"}
    assert (found["item_id"] == found["time"].dt.hour.map({9: "west", 11: "all"})).all()
    assert {str(t) for t in found["slice"]} == {"2026-01-01 00:00:00+00:00"}


def test_a_query_answers_with_the_type_that_the_field_uses(result: Result) -> None:
    found = result.query(min_score=0.9)
    assert isinstance(found, gpd.GeoDataFrame)
    assert found.crs.to_string() == "OGC:CRS84"
    assert found.index.tolist() == list(range(len(found)))
    with pytest.raises(JobError, match="time 'soon' is no interval"):
        result.query(time="soon")


def test_why_names_the_object_of_each_time(result: Result, archive: Archive) -> None:
    first = result.query(time="2026-01-01").iloc[3]
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


def test_the_best_match_comes_first(result: Result) -> None:
    pytest.importorskip("bm25s")
    found = result.query(text="ship north-south", rank=True)
    assert len(found) == len(result.objects), "any of the words will do"
    assert found["rank"].is_monotonic_decreasing
    both = found["caption"].str.contains("north-south")
    assert both.any()
    assert not both.all()
    assert found["rank"][both].min() > found["rank"][~both].max()
    assert len(result.query(text="ship", rank=True, limit=3)) == 3


@pytest.mark.parametrize("asked", [{"text": " "}, {"text": "ship", "order": "score"}])
def test_a_rank_needs_words_and_no_order(result: Result, asked: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="give text, and no order"):
        result.query(rank=True, **asked)


def test_a_rank_without_its_package_is_one_sentence(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(JobError, match=r"pip install earthgptx\[rank\]"):
        result.query(text="ship", rank=True)


@pytest.mark.parametrize(
    ("text", "order"), [("north", [2, 1]), ("ships north", [2, 3, 1]), ("north-south", [2, 1])]
)
def test_parts_of_compounds_count_as_the_condition_takes_them(text: str, order: list[int]) -> None:
    pytest.importorskip("bm25s")
    captions = ["a pier, lying north-west of a basin", "ship lying north-south", "ship"]
    objects = pa.table({"object_id": [1, 2, 3], "label": [""] * 3, "caption": captions})
    found = ranked(objects, text)
    assert found["object_id"].to_pylist()[: len(order)] == order
    ranks = dict(zip(found["object_id"].to_pylist(), found["rank"].to_pylist(), strict=True))
    assert all(ranks[at] > 0 for at in order)


def test_rare_words_and_short_captions_count_more() -> None:
    pytest.importorskip("bm25s")
    captions = ["a ship", "a ship at a pier", "ships", "a red ship at a pier with many cranes"]
    objects = pa.table({"object_id": [1, 2, 3, 4], "label": [""] * 4, "caption": captions})
    assert ranked(objects, "red ship")["object_id"].to_pylist() == [4, 3, 1, 2]
    assert ranked(objects.slice(0, 0), "red")["rank"].to_pylist() == []
