"""Results in Icechunk repositories: the same as plain ones, and every finished state stays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import icechunk
import pystac
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine import steps
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.survey import survey
from earthgptx.pipeline.errors import JobError, OutputError, RunFailed
from earthgptx.workflows.cli import app
from tests.archive import Archive
from tests.growing import (
    ASKED,
    DAYS,
    GRID,
    NAMES,
    Content,
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


def repository(url: str) -> icechunk.Repository:
    path = url.removeprefix("icechunk+")
    return icechunk.Repository.open(icechunk.local_filesystem_storage(path))


def test_a_versioned_result_that_grew_equals_a_plain_one_and_keeps_its_states(
    archive: Archive, pool: ReplicaPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID, **ASKED)
    states = {}
    monkeypatch.setattr(steps, "BLOCKS_A_REPLICA", 1)  # a slice is published by itself
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


MOMENTS = ("first commit", "third commit", "create_tag", "reset_branch", "delete_branch")


@contextmanager
def killed_at(moment: str) -> Iterator[None]:
    """The driver dies in place of one of its calls to Icechunk."""
    owner: Any = icechunk.Session if "commit" in moment else icechunk.Repository
    name = "commit" if "commit" in moment else moment
    call, count = getattr(owner, name), [0]
    number = {"third commit": 3, "delete_branch": 1}.get(moment, 1)

    def dying(*given: Any, **more: Any) -> Any:
        count[0] += 1
        if count[0] >= number:
            raise Killed
        return call(*given, **more)

    with patch.object(owner, name, dying):
        yield


@pytest.fixture(scope="module")
def grown_at_once(
    archive: Archive, pool: ReplicaPool, tmp_path_factory: pytest.TempPathFactory
) -> Content:
    archive.publish(CHANGED)
    plain = archive.job(tmp_path_factory.mktemp("once") / "plain.zarr", grid=GRID, **ASKED)
    grown(plain, pool)
    return content(plain.output)


CHANGED = [NAMES[0], f"{NAMES[1]}@2", f"{NAMES[2]}@2"]


FAST = "reset_branch"
"""The moment that is part of the fast tests; a run takes seconds."""


@pytest.mark.parametrize(
    "moment",
    [each if each == FAST else pytest.param(each, marks=pytest.mark.slow) for each in MOMENTS],
)
def test_a_run_that_is_killed_leaves_what_readers_see_untouched(
    archive: Archive, pool: ReplicaPool, tmp_path: Path, moment: str, grown_at_once: Content
) -> None:
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID, **ASKED)
    archive.publish([NAMES[0], NAMES[2]])
    grown(job, pool)
    main, before = repository(job.output).lookup_branch("main"), content(job.output)
    archive.publish(CHANGED)
    with pytest.raises(Killed), killed_at(moment):
        grown(job, pool)
    if moment != "delete_branch":  # the last call of all
        assert repository(job.output).lookup_branch("main") == main
        same(content(job.output), before)
    assert survey(plan(job)).refusal == ""
    state = open_result(job.output).as_runs_left_it().state
    assert (state == "finished") == (moment in ("first commit", "delete_branch"))
    grown(job, pool)
    assert repository(job.output).list_branches() == {"main"}
    same(content(job.output), grown_at_once)
    said = {tag for tags in open_result(job.output).versions["tags"] for tag in tags}
    assert said == repository(job.output).list_tags() == {*DAYS[:2], *(f"{d}.2" for d in DAYS[:2])}


@pytest.mark.slow
def test_days_that_a_killed_run_left_open_are_named_before_readers_lose_them(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID)
    archive.publish([NAMES[0], NAMES[2]])
    grown(job, pool)
    archive.publish([NAMES[0], NAMES[2], f"{NAMES[1]}@2", NAMES[4]])
    with pytest.raises(Killed), killed_at("third commit"):
        grown(job, pool)
    later = archive.job(job.output, grid=GRID, source={"time": "2026-01-05"})
    with pytest.raises(RunFailed, match=r"not finished.*--time 2026-01-01/2026-01"):
        grown(later, pool)
    assert len(open_result(job.output).time_slices) == 2
    grown(job, pool)
    assert len(open_result(job.output).time_slices) == 3


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


@pytest.mark.slow
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


def test_without_the_extra_one_sentence_says_what_to_install(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish([NAMES[0]])
    job = archive.job(f"icechunk+{tmp_path / 'a.zarr'}", grid=GRID)
    with patch.dict(sys.modules, {"icechunk": None}):
        for attempt in (lambda: open_result(job.output), lambda: run(plan(job), pool=pool)):
            with pytest.raises(JobError, match=r"pip install 'earthgptx\[icechunk\]'"):
                attempt()


def test_a_catalog_of_results_of_both_kinds_can_be_asked(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish([NAMES[0]])
    catalog = pystac.Catalog("results", "of both kinds")
    for output in (f"icechunk+{tmp_path / 'a.zarr'}", str(tmp_path / "b.zarr")):
        job = archive.job(output, grid=GRID)
        grown(job, pool)
        item = pystac.Item.from_file(job.output.removeprefix("icechunk+")[:-5] + ".item.json")
        item.make_asset_hrefs_absolute()
        catalog.add_item(item)
    catalog.normalize_and_save(str(tmp_path / "stac"), pystac.CatalogType.ABSOLUTE_PUBLISHED)
    asked = CliRunner().invoke(
        app, ["query", str(tmp_path / "stac/catalog.json"), "--count-by", "result", "--json"]
    )
    counted = {row["result"]: row["objects"] for row in json.loads(asked.stdout)}
    assert set(counted) == {f"icechunk+{tmp_path / 'a.zarr'}", str(tmp_path / "b.zarr")}
    assert len(set(counted.values())) == 1


@pytest.mark.slow
def test_neither_kind_is_written_into_the_other(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    """Also where the one before it was never finished."""
    archive.publish([NAMES[0]])
    for first, second in (("icechunk+", ""), ("", "icechunk+")):
        path = tmp_path / f"{first or 'plain'}.zarr"
        with pytest.raises(Killed), dying(20):
            grown(archive.job(f"{first}{path}", grid=GRID), pool)
        with pytest.raises(OutputError, match="; its address is"):
            grown(archive.job(f"{second}{path}", grid=GRID), pool)
        assert grown(archive.job(f"{first}{path}", grid=GRID), pool).slices == 1
