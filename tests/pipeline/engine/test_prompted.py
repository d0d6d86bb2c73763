"""Objects of one result as the visual prompts of another job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.survey import survey
from earthgptx.pipeline.errors import JobError, OutputError
from tests.archive import Archive
from tests.growing import GRID, NAMES, content, growing_archive, grown, same

LARGE = "label = 'target' AND area_m2 > 13000"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return growing_archive(tmp_path_factory.mktemp("prompted"))


def asking(archive: Archive, output: Path, found: str, **prompts: Any) -> JobSpec:
    """A job that asks about objects of a result, and nothing else."""
    asked = {"from": found, "where": LARGE, "within": "PT12H", **prompts}
    return archive.job(output, grid=GRID, tasks={"find": [], "refer": True}, prompts=asked)


def test_each_slice_is_asked_about_the_objects_of_its_time(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES)
    first = archive.job(tmp_path / "first.zarr", grid=GRID)
    grown(first, pool)
    large = open_result(first.output).query(where=LARGE)
    assert 0 < len(large) < len(open_result(first.output).objects)

    job = asking(archive, tmp_path / "second.zarr", first.output, grow_m=30)
    made = plan(job)
    report = run(made, pool=pool)
    assert 0 < report.blocks < len(plan(first).blocks), "blocks without an object are not read"
    answers = open_result(job.output).answers
    by_day = answers.groupby(answers["slice"].dt.date)["prompt_id"].agg(set)
    asked = large.groupby(large["slice"].dt.date)["object_id"].agg(lambda ids: set(map(str, ids)))
    assert by_day.to_dict() == asked.to_dict()
    assert set(answers["prompt_kind"]) == {"box"}
    assert (answers["outcome"] == "object").mean() > 0.7

    wide = asking(archive, tmp_path / "wide.zarr", first.output, within="P1D")
    grown(wide, pool)
    days = open_result(wide.output).answers.groupby("prompt_id")["slice"].nunique()
    assert days.max() == 2, "days 1 and 2 ask about each other's objects, day 5 about its own"
    empty = asking(archive, tmp_path / "empty.zarr", first.output, where="score > 2")
    assert grown(empty, pool).blocks == 0
    assert len(open_result(empty.output).objects) == 0


def test_what_is_asked_grows_with_what_was_found(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    first = archive.job(tmp_path / "first.zarr", grid=GRID)
    job = asking(archive, tmp_path / "second.zarr", first.output)
    for names in ([NAMES[0], NAMES[2]], NAMES[:3]):
        archive.publish(names)
        grown(first, pool)
        grown(job, pool)
    assert grown(job, pool).tiles == 0
    once = asking(archive, tmp_path / "once.zarr", first.output)
    grown(once, pool)
    same(content(job.output), content(once.output))
    # The other result changes, the archive does not.
    archive.publish([NAMES[0], f"{NAMES[1]}@2", NAMES[2]])
    before = survey(plan(job)).shares["done"].slices
    grown(first, pool)
    shares = survey(plan(job)).shares
    assert before == 1, "the day whose scene was replaced has changed, the other not"
    assert shares["changed"].slices == 1
    assert 0 < shares["changed"].blocks < len(plan(first).blocks)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"within": None}, "set prompts.within, such as P3D"),
        ({"within": "3 days"}, "'3 days' is no duration; write P3D"),
        ({"where": "label = "}, "is no condition"),
        ({"where": "colour = 'red'"}, "names 'colour', which is no column.*object_id, track_id"),
        ({"where": "score > 'high'"}, "cannot be asked of objects"),
        ({"where": "object_id = 1234567890123456789"}, "write it as a text"),
        ({"from": "grid", "within": None}, "prompts.where goes with objects of a result"),
    ],
)
def test_a_wrong_question_is_refused(
    archive: Archive, pool: ReplicaPool, tmp_path: Path, prompts: dict[str, Any], said: str
) -> None:
    archive.publish(NAMES[:1])
    first = archive.job(tmp_path / "first.zarr", grid=GRID)
    grown(first, pool)
    with pytest.raises(JobError, match=said):
        plan(asking(archive, tmp_path / "second.zarr", first.output, **prompts))


def test_a_result_that_is_not_there_yet_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish(NAMES[:1])
    with pytest.raises(OutputError, match="first.zarr holds no Zarr store"):
        plan(asking(archive, tmp_path / "second.zarr", str(tmp_path / "first.zarr")))
    with pytest.raises(JobError, match="is the job's own output"):
        plan(asking(archive, tmp_path / "own.zarr", str(tmp_path / "own.zarr")))
