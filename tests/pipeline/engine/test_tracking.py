"""Objects that stay from slice to slice share a track id, whatever the order of arrival."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine import tracking
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.tracking import REACH, stale
from earthgptx.pipeline.errors import Outage
from earthgptx.pipeline.results.object_table import OBJECTS
from earthgptx.pipeline.results.rows_group import rows_of
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState
from tests.archive import Archive
from tests.growing import Killed

PLACES = {"pier": (40, 40), "buoy": (40, 320), "guest": (120, 60), "other": (140, 340)}
"""Row and column of the objects; half of them lie on ground that the western scenes do not show."""
WEST, BOTH, EAST = (0, 200), (0, 400), (200, 400)
DAYS = {
    1: (BOTH, ["pier", "buoy", "guest"]),
    2: (WEST, ["pier"]),
    3: (EAST, ["buoy", "other"]),
    4: (WEST, ["pier", "guest"]),
    5: (BOTH, ["pier", "buoy", "other"]),
}
"""Columns that each day shows, and the objects that lie there then."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    made = Archive(tmp_path_factory.mktemp("tracks"))
    for day, ((left, right), shown) in DAYS.items():
        pixels = np.full((200, 400), 12, np.uint8)
        for row, col in (PLACES[name] for name in shown):
            pixels[row : row + 6, col : col + 6] = 220
        made.add(
            f"day-{day}",
            pixels[:, left:right],
            col=left,
            when=f"2026-01-0{day}T10:00:00Z",
            nodata=None,
        )
    return made


def tracks(archive: Archive, url: str) -> list[tuple[str, list[int]]]:
    """Returns the object and the days of each track, sorted."""
    objects = open_result(url).objects.sort_values("slice")
    found = []
    for track_id, group in objects.groupby("track_id"):
        assert track_id == group["object_id"].iloc[0], "a track has the id of its first object"
        centres = group.to_crs(archive.epsg).geometry.centroid
        names = {nearest(archive, centre.x, centre.y) for centre in centres}
        assert len(names) == 1
        found.append((names.pop(), group["slice"].dt.day.to_list()))
    return sorted(found)


def nearest(archive: Archive, x: float, y: float) -> str:
    row, col = (archive.north - y) / 10 - 3, (x - archive.west) / 10 - 3
    return min(PLACES, key=lambda name: np.hypot(PLACES[name][0] - row, PLACES[name][1] - col))


def grow(archive: Archive, pool: ReplicaPool, output: Path, *states: list[int]) -> str:
    """Grows a result over states of the archive, each of them some days."""
    job = archive.job(output)
    for days in states:
        archive.publish([f"day-{day}" for day in days])
        run(plan(job), pool=pool)
    return job.output


def test_an_object_goes_on_the_track_of_the_last_slice_that_saw_its_ground(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    assert tracks(archive, grow(archive, pool, tmp_path / "a.zarr", [1, 2, 3, 4, 5])) == [
        ("buoy", [1, 3, 5]),
        ("guest", [1]),
        ("guest", [4]),  # on day 2 its berth was seen empty
        ("other", [3, 5]),
        ("pier", [1, 2, 4, 5]),
    ]


def test_tracks_do_not_depend_on_the_order_of_arrival(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    once = grow(archive, pool, tmp_path / "once.zarr", [1, 2, 3, 4, 5])
    late = grow(
        archive, pool, tmp_path / "late.zarr", [3, 5], [1, 3, 5], [1, 3, 4, 5], [1, 2, 3, 4, 5]
    )
    assert tracks(archive, late) == tracks(archive, once)
    result = open_result(late)
    for row in result.time_slices:
        kept = rows_of(result.root, OBJECTS, row.first_object, row.objects)
        shown = result.query(time=row.name).set_index("object_id")["track_id"]
        assert dict(
            zip(kept["object_id"].to_pylist(), kept["track_id"].to_pylist(), strict=True)
        ) == (shown.to_dict()), "the Zarr group says the same as the files"
    gone = grow(archive, pool, tmp_path / "late.zarr", [2, 3, 4, 5])
    assert ("pier", [2, 4, 5]) in tracks(archive, gone), "day 1 is withdrawn"


def test_an_object_is_looked_for_in_a_bounded_number_of_slices() -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        SliceRow(str(at), first + timedelta(at), first, 1, f"{at}", 1, 1, state=SliceState.FINISHED)
        for at in range(3 * REACH)
    ]
    rows = [replace(rows[at], track_key=key) for at, key in stale(rows).items()]
    assert not stale(rows)
    rows[REACH] = replace(rows[REACH], object_digest="other")
    assert list(stale(rows)) == list(range(REACH + 1, 2 * REACH + 1))


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """More days than an object is looked back for; it lies there on all of them."""
    made = Archive(tmp_path_factory.mktemp("long"))
    for day in range(1, REACH + 5):
        pixels = np.full((200, 200), 12, np.uint8)
        pixels[60:66, 60 : 66 + day % 3] = 220
        when = f"2026-01-{day:02}T10:00:00Z"
        made.add(f"day-{day}", pixels, when=when, nodata=None)
    return made


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("put_files", REACH + 2),
        pytest.param("put_rows", REACH + 2, marks=pytest.mark.slow),
        pytest.param("put_files", 1, marks=pytest.mark.slow),
        pytest.param("put_rows", 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_while_tracks_are_made_again_leaves_none_that_is_wrong(
    long_archive: Archive, pool: ReplicaPool, tmp_path: Path, moment: str, number: int
) -> None:
    """The first day comes last, so that the tracks of all others change."""
    days = list(range(1, REACH + 5))
    late = grow(long_archive, pool, tmp_path / "late.zarr", days[1:])
    long_archive.publish([f"day-{day}" for day in days])
    owner, name = {
        "put_files": (tracking, "put_files"),
        "put_rows": (tracking.Tracking, "_put_rows"),
    }[moment]
    write, count = getattr(owner, name), [0]

    def dying(*given: object) -> object:
        done = write(*given)
        count[0] += 1
        if count[0] == number:
            raise Killed
        return done

    with patch.object(owner, name, dying), pytest.raises(Killed):
        run(plan(long_archive.job(late)), pool=pool)
    run(plan(long_archive.job(late)), pool=pool)
    result = open_result(late)
    assert not stale(result.rows)
    first = result.time_slices[-1]
    assert result.objects["track_id"].nunique() == 1
    kept = rows_of(result.root, OBJECTS, 0, len(days))
    assert set(kept["track_id"].to_pylist()) == set(result.objects["track_id"])
    assert set(result.query(time=first.name)["object_id"]) == set(result.objects["track_id"])


def test_a_damaged_file_of_objects_is_said_and_then_mended(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    url = grow(archive, pool, tmp_path / "a.zarr", [1, 2, 3, 4])
    path = tmp_path / "a.objects/slice=2026-01-04/0.parquet"
    data = bytearray(path.read_bytes())
    for at in range(4, len(data) // 2):
        data[at] ^= 0xFF
    path.write_bytes(data)
    archive.publish([f"day-{day}" for day in DAYS])
    with pytest.raises(Outage, match="the objects of 2026-01-04 are damaged.*writes them anew"):
        run(plan(archive.job(url)), pool=pool)
    run(plan(archive.job(url)), pool=pool)
    assert tracks(archive, url) == tracks(
        archive, grow(archive, pool, tmp_path / "once.zarr", [1, 2, 3, 4, 5])
    )


def test_two_objects_of_a_slice_are_never_on_one_track(pool: ReplicaPool, tmp_path: Path) -> None:
    """One that has broken in two, of which the day between has seen one half only."""
    made = Archive(tmp_path / "archive")
    bars = {1: [(180, 220)], 2: [(180, 220)], 3: [(180, 196), (204, 220)]}
    for day, shown in bars.items():
        pixels = np.full((200, 400), 12, np.uint8)
        for left, right in shown:
            pixels[60:70, left:right] = 220
        seen = pixels[:, :200] if day == 2 else pixels
        made.add(f"day-{day}", seen, when=f"2026-01-0{day}T10:00:00Z", nodata=None)
    objects = open_result(grow(made, pool, tmp_path / "a.zarr", [1, 2, 3])).objects
    last = objects[objects["slice"].dt.day == 3]
    assert (len(objects), len(last)) == (4, 2)
    assert last["track_id"].nunique() == 2
    assert objects["track_id"].nunique() == 2
