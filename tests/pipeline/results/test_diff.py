"""Objects that appeared, vanished, moved or stayed."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from earthgptx import open_result, plan, run
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.objects.overlap import Shapes
from earthgptx.pipeline.results.diff import match
from tests.archive import Archive

DEGREE_M = 111_195.0


def shapes(*objects: tuple[float, float, str]) -> Shapes:
    """Squares of 100 m around places in metres east and north of 0, 0."""
    half = 50 / DEGREE_M
    outlines = [
        shapely.box(
            x / DEGREE_M - half, y / DEGREE_M - half, x / DEGREE_M + half, y / DEGREE_M + half
        )
        for x, y, _ in objects
    ]
    labels = np.array([label for *_, label in objects], object)
    return Shapes(np.array(outlines, object), labels, np.arange(1, len(objects) + 1))


@pytest.mark.parametrize(
    ("old", "new", "pairs"),
    [
        ([(0, 0, "ship")], [(0, 0, "ship")], [(0, 0)]),
        ([(0, 0, "ship")], [(0, 0, "tank")], []),
        ([(0, 0, "ship")], [(150, 0, "ship")], [(0, 0)]),
        ([(0, 0, "ship")], [(900, 0, "ship")], []),
        # The larger overlap wins, and the other one takes what is left nearby.
        ([(0, 0, "ship"), (60, 0, "ship")], [(50, 0, "ship")], [(1, 0)]),
        ([(0, 0, "ship")], [(150, 0, "ship"), (20, 0, "ship")], [(0, 1)]),
        ([], [(0, 0, "ship")], []),
        ([(0, 0, "ship")], [], []),
    ],
)
def test_objects_are_paired_by_overlap_and_then_by_place(
    old: list[tuple[float, float, str]],
    new: list[tuple[float, float, str]],
    pairs: list[tuple[int, int]],
) -> None:
    found, lone_old, lone_new = match(shapes(*old), shapes(*new), 200.0)
    assert [(a, b) for a, b, *_ in found] == pairs
    assert sorted([a for a, *_ in found] + lone_old) == list(range(len(old)))
    assert sorted([b for _, b, *_ in found] + lone_new) == list(range(len(new)))


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory, ray_two: None) -> str:
    """A ship that stays, one that moves, one that comes and one that goes; the right third of the
    second day has no imagery.
    """
    folder = tmp_path_factory.mktemp("diff")
    archive = Archive(folder / "archive")
    both = [np.full((400, 600), 12, np.uint8) for _ in range(2)]
    for day, row, col in (
        (0, 100, 100),
        (1, 100, 100),
        (0, 200, 100),
        (1, 200, 112),
        (0, 300, 100),
        (1, 300, 300),
        (0, 100, 500),
    ):
        both[day][row : row + 6, col : col + 6] = 220
    archive.add("first", both[0], when="2026-01-01T10:00:00Z", nodata=None)
    archive.add("second", both[1][:, :400], when="2026-01-02T10:00:00Z", nodata=None)
    archive.save()
    job = archive.job(folder / "a.zarr")
    run(plan(job))
    return job.output


def test_what_could_not_be_seen_has_not_vanished(two_days: str) -> None:
    found = open_result(two_days).diff("2026-01-01", "2026-01-02")
    assert list(found["change"]) == ["appeared", "vanished", "moved", "stayed", "not seen after"]
    moved = found[found["change"] == "moved"].iloc[0]
    assert moved["moved_m"] == pytest.approx(120, abs=2)
    back = open_result(two_days).diff("2026-01-02", "2026-01-01")
    assert list(back["change"]) == ["appeared", "vanished", "moved", "stayed", "not seen before"]
    assert set(back["before_id"]) == set(found["after_id"])
    near = open_result(two_days).diff("2026-01-01", "2026-01-02", moved_m=50)
    assert list(near["change"]).count("moved") == 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("2026-01-01", "2026-01-01", "are the same time slice"),
        ("2026-01-01", "2026-01-03", "no time slice lies at.*2026-01-01, 2026-01-02"),
        ("2026-01", "2026-01-02", "meets 2 time slices; name one of 2026-01-01, 2026-01-02"),
        ("yesterday", "2026-01-02", "is no interval"),
    ],
)
def test_a_time_that_is_no_slice_is_refused(
    two_days: str, before: str, after: str, said: str
) -> None:
    with pytest.raises(JobError, match=said):
        open_result(two_days).diff(before, after)
