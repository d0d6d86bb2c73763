"""A result that grew equals one that was made at once, whatever the order and what was killed."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthgptx import open_result, plan, run
from earthgptx.catalogs.errors import CatalogError
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.errors import OutputError, RunFailed
from tests.archive import Archive
from tests.growing import (
    ASKED_ALL,
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


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Several states of an archive, each with the write at which its run dies, or None."""
    version = st.sampled_from(["", "", "@2"])
    states = draw(
        st.lists(
            st.dictionaries(st.sampled_from(NAMES), version, min_size=1), min_size=2, max_size=4
        )
    )
    deaths = draw(st.lists(st.one_of(st.none(), st.integers(1, 250)), min_size=4, max_size=4))
    return {
        "states": [sorted(name + suffix for name, suffix in each.items()) for each in states],
        "deaths": deaths[: len(states) - 1],
        "batch": draw(st.integers(1, 5)),
        "order": draw(st.sampled_from(["oldest", "newest"])),
        "kind": draw(st.sampled_from(["", "icechunk+"])),
    }


def check(archive: Archive, pool: ReplicaPool, history: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = {"tiles_per_batch": history["batch"], "order": history["order"]}
        output = f"{history.get('kind', '')}{folder}/grown.zarr"
        job = archive.job(output, grid=GRID, engine=engine, **ASKED_ALL)
        for state, death in zip(history["states"], [*history["deaths"], None], strict=True):
            archive.publish(state)
            with suppress(Killed), dying(death) if death else nullcontext():
                grown(job, pool)
        again = grown(job, pool)
        assert (again.tiles, again.slices) == (0, 0), "nothing is left to do"
        once = archive.job(f"{folder}/once.zarr", grid=GRID, **ASKED_ALL)
        grown(once, pool)
        same(content(job.output), content(once.output))


LATE = [NAMES[0], NAMES[2]], [NAMES[0], NAMES[1], NAMES[2]]
HISTORIES: dict[str, dict[str, Any]] = {
    "late": {"states": [*LATE], "deaths": [None], "batch": 2, "order": "oldest"},
    "withdrawn": {"states": [*reversed(LATE)], "deaths": [None], "batch": 2, "order": "oldest"},
    "killed": {
        "states": [NAMES, [*NAMES[:2], "2026-01-02-0@2"], NAMES[:3]],
        "deaths": [60, 90],
        "batch": 1,
        "order": "newest",
    },
    "replaced, killed, withdrawn": {
        "states": [NAMES[:3], [*NAMES[:1], f"{NAMES[1]}@2", NAMES[2]], [NAMES[0], NAMES[2]]],
        "deaths": [None, 45],
        "batch": 2,
        "order": "oldest",
    },
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_result_that_grew_equals_one_that_was_made_at_once(
    archive: Archive, pool: ReplicaPool, name: str
) -> None:
    check(archive, pool, HISTORIES[name])


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=histories())
def test_whatever_the_history_of_an_archive_is(
    archive: Archive, pool: ReplicaPool, history: dict[str, Any]
) -> None:
    check(archive, pool, history)


def test_only_what_a_late_scene_shows_and_borders_on_is_done(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    job = archive.job(tmp_path / "a.zarr", grid=GRID)
    archive.publish([NAMES[0], NAMES[2]])
    first = grown(job, pool)
    archive.publish(NAMES[:3])
    late = grown(job, pool)
    assert (first.slices, late.slices, late.slices_before) == (2, 1, 1)
    assert 0 < late.tiles < first.tiles
    assert late.blocks_before > 0


def test_a_day_that_the_archive_lost_is_left_out_and_comes_back_without_inferring(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    job = archive.job(tmp_path / "a.zarr", grid=GRID)
    archive.publish([NAMES[0], NAMES[2]])
    grown(job, pool)
    before = content(job.output)
    archive.publish([NAMES[0]])
    gone = grown(job, pool)
    assert (gone.slices_gone, gone.tiles) == (1, 0)
    result = open_result(job.output)
    assert list(result.slices["state"]) == ["finished", "gone"]
    assert set(result.objects["slice"].dt.day) == {1}
    assert result.layer("raster").sizes["time"] == 1
    archive.publish([NAMES[0], NAMES[2]])
    assert grown(job, pool).tiles == 0
    same(content(job.output), before)


def test_a_range_of_time_adds_to_what_is_there_and_takes_nothing_away(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES)
    job = archive.job(tmp_path / "a.zarr", grid=GRID)
    for interval in ("2026-01-05", "2026-01-01/2026-01-02", "2026-01-02/.."):
        grown(archive.job(job.output, grid=GRID, source={"time": interval}), pool)
    assert list(open_result(job.output).slices["name"]) == [DAYS[2], *DAYS[:2]]
    archive.publish(NAMES)
    assert grown(job, pool).slices == 0, "the whole archive is there"
    once = archive.job(tmp_path / "once.zarr", grid=GRID)
    grown(once, pool)
    same(content(job.output), content(once.output))


def test_a_month_that_is_searched_in_part_keeps_its_other_days(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES)
    spec = {"grid": GRID, "slices": "month"}
    job = archive.job(tmp_path / "a.zarr", **spec)
    for interval in ("2026-01-01/2026-01-02", "2026-01-05", "2026-01-02"):
        grown(archive.job(job.output, source={"time": interval}, **spec), pool)
    assert grown(job, pool).tiles == 0
    once = archive.job(tmp_path / "once.zarr", **spec)
    grown(once, pool)
    same(content(job.output), content(once.output))


def test_a_job_of_another_series_is_refused_with_the_difference(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES[:1])
    job = archive.job(tmp_path / "a.zarr", grid=GRID)
    grown(job, pool)
    with pytest.raises(OutputError, match="another series.*differs in tasks"):
        grown(archive.job(job.output, grid=GRID, tasks={"find": ["other"]}), pool)
    assert grown(archive.job(job.output, grid=GRID, name="other"), pool).slices == 0


def test_a_day_that_a_killed_run_left_unfinished_is_said_by_a_run_over_other_days(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES)
    job = archive.job(tmp_path / "a.zarr", grid=GRID, source={"time": "2026-01-01/2026-01-02"})

    def die(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done:
            raise Killed

    with pytest.raises(Killed):
        grown(job, pool, on_progress=die)
    later = archive.job(job.output, grid=GRID, source={"time": "2026-01-05"})
    with pytest.raises(RunFailed, match=r"not finished.*--time 2026-01-01/2026-01-02"):
        grown(later, pool)
    assert open_result(job.output).state == "error"
    assert len(open_result(job.output).query(time="2026-01-05")) > 0, "what is done is there"
    grown(job, pool)
    assert open_result(job.output).state == "finished"


def test_what_nobody_knows_any_more_is_not_guessed(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES)
    spec: dict[str, Any] = {"grid": GRID, "slices": "month"}
    job = archive.job(tmp_path / "a.zarr", **spec)
    grown(job, pool)
    part = archive.job(job.output, source={"time": "2026-01-05"}, **spec)
    items = tmp_path / "a.items.parquet"
    kept = items.read_bytes()
    items.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(CatalogError, match="damaged"):
        grown(part, pool)
    items.unlink()
    with pytest.raises(CatalogError, match=r"missing.*--time \.\./\.\."):
        grown(part, pool)
    assert grown(job, pool).slices == 0


@pytest.mark.parametrize("column", ["objects", "start", "state", "key"])
def test_a_damaged_column_of_slices_is_mended_only_by_a_run_over_everything(
    archive: Archive, pool: ReplicaPool, tmp_path: Path, column: str
) -> None:
    archive.publish([NAMES[0], NAMES[2]])
    job = archive.job(tmp_path / "a.zarr", grid=GRID)
    grown(job, pool)
    before = content(job.output)
    chunk = tmp_path / "a.zarr" / "slices" / column / "c" / "0"
    chunk.write_bytes(chunk.read_bytes()[:9])
    with pytest.raises(OutputError, match=f"slices/{column}.*damaged; run its job once over"):
        grown(archive.job(job.output, grid=GRID, source={"time": "2026-01-02"}), pool)
    with pytest.raises(OutputError, match="damaged"):
        open_result(job.output).objects.head()
    assert grown(job, pool).tiles == 0
    same(content(job.output), before)


def test_a_time_without_items_takes_nothing_away_and_warns(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES[:1])
    job = archive.job(tmp_path / "a.zarr", grid=GRID)
    grown(job, pool)
    empty = plan(archive.job(job.output, grid=GRID, source={"time": "2020"}))
    assert "what the result has of this time stays" in empty.warnings[0]
    assert run(empty, pool=pool).slices == 0
    assert list(open_result(job.output).slices["state"]) == ["finished"]


def test_failed_tiles_of_a_finished_slice_are_tried_again_only_if_asked(
    archive: Archive, pool: ReplicaPool, tmp_path: Path
) -> None:
    archive.publish(NAMES[:1])
    [item] = plan(archive.job(tmp_path / "x.zarr", grid=GRID)).items
    path = Path(item.assets["image"].href)
    kept = path.read_bytes()
    job = archive.job(tmp_path / "a.zarr", grid=GRID, engine={"max_failed_fraction": 1.0})
    try:
        path.write_bytes(kept[: len(kept) // 3])
        failed = grown(job, pool)
    finally:
        path.write_bytes(kept)
    assert failed.failed_tiles > 0
    assert grown(job, pool).slices == 0
    again = grown(job, pool, retry_failed=True)
    assert (again.slices, again.failed_tiles) == (1, 0)
    assert again.blocks_before < again.blocks
    once = archive.job(tmp_path / "once.zarr", grid=GRID)
    grown(once, pool)
    same(content(job.output), content(once.output))
