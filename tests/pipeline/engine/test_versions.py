"""Results in Icechunk repositories: the same as plain ones, and every finished state stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import icechunk
import pytest
import xarray as xr
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.survey import survey
from earthgptx.pipeline.errors import JobError, OutputError
from tests.archive import Archive
from tests.growing import (
    ASKED,
    DAYS,
    GRID,
    NAMES,
    Killed,
    content,
    dying,
    growing_archive,
    grown,
    same,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return growing_archive(tmp_path_factory.mktemp("growing"))


@pytest.fixture(scope="module")
def pool(archive: Archive, ray_two: None) -> Iterator[ReplicaPool]:
    with ReplicaPool(archive.job("x.zarr", grid=GRID).engine) as made:
        yield made


def repository(url: str) -> icechunk.Repository:
    path = url.removeprefix("icechunk+")
    return icechunk.Repository.open(icechunk.local_filesystem_storage(path))


def test_a_versioned_result_that_grew_equals_a_plain_one_and_keeps_its_states(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID, **ASKED)
    states = {}
    for names in ([NAMES[0]], NAMES[:3], [NAMES[0], f"{NAMES[1]}@2", NAMES[2]]):
        archive.publish(names)
        grown(job, pool)
        states[open_result(job.output).versions["snapshot"][0]] = content(job.output)
    assert grown(job, pool).tiles == 0
    plain = archive.job(tmp_path / "plain.zarr", grid=GRID, **ASKED)
    grown(plain, pool)
    same(content(job.output), content(plain.output))

    result = open_result(job.output)
    assert repository(job.output).list_branches() == {"main"}, "the run's branch is gone"
    assert repository(job.output).list_tags() == {DAYS[0], f"{DAYS[0]}.2", f"{DAYS[0]}.3", DAYS[1]}
    assert set(states) <= set(result.versions["snapshot"])
    for snapshot, state in states.items():
        same(content(job.output, snapshot=snapshot), state)
    assert [row.name for row in open_result(job.output, tag=DAYS[0]).time_slices] == [DAYS[0]]
    first = result.versions.set_index("snapshot").loc[next(iter(states))]
    assert len(open_result(job.output, as_of=first["time"].to_pydatetime()).time_slices) == 1
    # Plain xarray, as of any Icechunk repository.
    session = repository(job.output).readonly_session(tag=DAYS[1])
    assert xr.open_zarr(session.store, group="raster", consolidated=False).sizes["time"] == 2


@pytest.mark.parametrize("write", [6, 24, 40])
def test_a_run_that_is_killed_leaves_what_readers_see_untouched(
    archive: Archive, pool: ReplicaPool, tmp_path: Path, write: int
) -> None:
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID, **ASKED)
    archive.publish([NAMES[0], NAMES[2]])
    grown(job, pool)
    main, before = repository(job.output).lookup_branch("main"), content(job.output)
    archive.publish([NAMES[0], f"{NAMES[1]}@2", f"{NAMES[2]}@2"])
    with pytest.raises(Killed), dying(write):
        grown(job, pool)
    assert repository(job.output).lookup_branch("main") == main
    same(content(job.output), before)

    left = survey(plan(job))
    assert left.refusal == ""
    again = grown(job, pool)
    assert again.slices == 2
    assert repository(job.output).list_branches() == {"main"}
    plain = archive.job(tmp_path / "plain.zarr", grid=GRID, **ASKED)
    grown(plain, pool)
    same(content(job.output), content(plain.output))


def test_blocks_that_a_killed_run_has_committed_are_not_inferred_again(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES)
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID)
    whole = archive.job(tmp_path / "plain.zarr", grid=GRID)
    tiles = grown(whole, pool).tiles
    finished = []

    def die(progress: object) -> None:
        if getattr(progress, "stage", "") == "overview":
            finished.append(progress)
            raise Killed

    with pytest.raises(Killed):
        run(plan(job), pool=pool, on_progress=die)
    assert open_result(job.output).state == "created", "readers see no slice yet"
    with pytest.raises(OutputError, match="is created: objects come with"):
        open_result(job.output).objects.head()
    assert survey(plan(job)).tiles < tiles
    again = grown(job, pool)
    assert again.tiles < tiles
    same(content(job.output), content(whole.output))


def test_a_run_that_has_lost_its_output_commits_nothing(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    """Its branch is gone once another run has begun, whatever the clock of its lease says."""
    archive.publish([NAMES[0]])
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID)
    with pytest.raises(Killed), dying(12):
        grown(job, pool)
    [branch] = [b for b in repository(job.output).list_branches() if b != "main"]
    session = repository(job.output).writable_session(branch)
    zarr.open_group(session.store).attrs["late"] = True
    grown(job, pool)
    with pytest.raises(icechunk.ConflictError):
        session.commit("late")


def test_a_state_that_is_not_there_is_refused_with_those_that_are(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish([NAMES[0]])
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID)
    grown(job, pool)
    last = open_result(job.output).versions["snapshot"][0]
    for asked, said in (
        ({"snapshot": "K1DNF6QZXH5X8KHRT92G"}, "snapshot K1DNF6QZXH5X8KHRT92G"),
        ({"snapshot": "first"}, "snapshot first"),
        ({"tag": "2020-01-01"}, "tag 2020-01-01"),
        ({"as_of": datetime(2020, 1, 1, tzinfo=UTC)}, "state as of 2020-01-01T00:00:00\\+0000"),
        ({"as_of": "2020-01-01"}, "state as of 2020-01-01T00:00:00\\+0000"),
    ):
        with pytest.raises(OutputError, match=f"has no {said}; there are .*{last} of .*finished"):
            open_result(job.output, **asked)  # type: ignore[arg-type]
    with pytest.raises(JobError, match="exclude one another"):
        open_result(job.output, snapshot=last, tag=DAYS[0])
    with pytest.raises(JobError, match="is no moment"):
        open_result(job.output, as_of="yesterday")
    plain = archive.job(tmp_path / "plain.zarr", grid=GRID)
    grown(plain, pool)
    with pytest.raises(OutputError, match=r"keeps its last state only.*icechunk\+"):
        open_result(plain.output, tag=DAYS[0])
    with pytest.raises(OutputError, match="holds no Zarr store"):
        open_result(f"icechunk+{tmp_path / 'nothing.zarr'}")
    with pytest.raises(OutputError, match=f"is a plain Zarr store; its address is {plain.output}"):
        open_result(f"icechunk+{plain.output}")
    with pytest.raises(OutputError, match=r"is an Icechunk repository; its address is icechunk\+"):
        open_result(job.output.removeprefix("icechunk+"))
    with pytest.raises(OutputError, match="is an Icechunk repository"):
        grown(archive.job(job.output.removeprefix("icechunk+"), grid=GRID), pool)


def test_a_versioned_result_is_replaced_only_if_asked(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish([NAMES[0]])
    output = f"icechunk+{tmp_path / 'a.zarr'}"
    grown(archive.job(output, grid=GRID), pool)
    other = archive.job(output, grid=GRID, tasks={"find": ["other"]})
    with pytest.raises(OutputError, match="another series.*differs in tasks"):
        grown(other, pool)
    assert grown(other, pool, overwrite=True).slices == 1
    assert len(open_result(output).versions) == 3
