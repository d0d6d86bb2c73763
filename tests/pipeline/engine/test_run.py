"""The engine on real Ray: faults, exactly once, resuming, refusing. Bytes are compared, not
pictures.
"""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import Progress
from earthgptx.pipeline.errors import OutputBusy, OutputError, RunFailed
from earthgptx.pipeline.results.status import state_of
from earthgptx.pipeline.storage.blobs import open_blobs
from earthgptx.pipeline.storage.fence import HOLDER, parts_of
from tests.archive import Archive, targets
from tests.pipeline.engine.runs import (
    done,
    logged,
    lonlat_of,
    raster,
    replicas,
)
from tests.results import contents, same


def test_two_runs_and_any_number_of_replicas_leave_the_same_bytes(
    scene: Archive, tmp_path: Path
) -> None:
    done(scene.job(tmp_path / "one.zarr"))
    done(scene.job(tmp_path / "two.zarr", engine={"replicas": 3}))
    same(tmp_path / "one.zarr", tmp_path / "two.zarr")
    assert not (tmp_path / "one.parts").exists()


def test_runs_that_share_a_pool_share_its_processes_and_leave_the_same_bytes(
    scene: Archive, tmp_path: Path
) -> None:
    done(scene.job(tmp_path / "apart.zarr"))
    job = scene.job(tmp_path / "one.zarr")
    with ReplicaPool(job.engine) as pool:
        done(job, pool=pool)
        [first] = replicas()
        done(scene.job(tmp_path / "two.zarr"), pool=pool)
        assert replicas() == [first]
        os.kill(first, signal.SIGKILL)
        done(scene.job(tmp_path / "three.zarr"), pool=pool)
        assert first not in replicas()
        with pytest.raises(RunFailed, match="no weights here"):
            done(scene.job(tmp_path / "a.zarr", model="tests.analysts:Unloadable"), pool=pool)
        assert open_result(str(tmp_path / "a.zarr")).state == "error"
        done(scene.job(tmp_path / "four.zarr"), pool=pool)
    for name in ("one", "two", "three", "four"):
        same(tmp_path / "apart.zarr", tmp_path / f"{name}.zarr")


def test_every_tile_is_inferred_once(
    scene: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray's workers are started with the driver's environment of then, so the log's place is written
    # to a file.
    log = tmp_path / "log.txt"
    report = logged(
        scene.job(tmp_path / "a.zarr", model="tests.analysts:Counting", engine={"replicas": 2}), log
    )
    lines = [line.split()[0] for line in log.read_text().splitlines()]
    assert len(lines) == report["tiles"] == 6 * 8
    assert max(Counter(lines).values()) == 1


def test_running_again_changes_nothing_and_another_plan_is_refused(
    scene: Archive, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    done(scene.job(out))
    before = contents(out)
    again = done(scene.job(out))
    assert (again.tiles, again.blocks_before, again.blocks) == (0, again.blocks, again.blocks)
    with pytest.raises(
        OutputError, match="result of another series.*differs in tasks.*--overwrite"
    ):
        done(scene.job(out, tasks={"find": ["other"]}))
    assert contents(out) == before
    done(scene.job(out, tasks={"find": ["other"]}), overwrite=True)
    assert open_result(str(out)).attrs["job"]["tasks"]["find"] == ["other"]


def test_a_run_goes_on_with_its_frozen_items_or_with_what_the_catalog_has_now(
    scene: Archive, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    job = scene.job(out)
    items = str(tmp_path / "a.items.parquet")
    frozen = scene.job(out, source={"catalog": items})

    def stop(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done == 0:
            raise KeyboardInterrupt

    with pytest.raises(RunFailed, match="interrupted"):
        done(job, on_progress=stop)
    scene.add("late", targets(6)[:300, :300], col=300, when="2026-01-01T12:00:00Z", nodata=None)
    scene.save()
    assert done(frozen).blocks == 4
    assert list(open_result(str(out)).slices["items"]) == [1]
    assert done(job).slices == 1
    assert list(open_result(str(out)).slices["items"]) == [2]
    assert open_result(str(out)).state == "finished"


def test_what_is_not_ours_is_never_overwritten(scene: Archive, tmp_path: Path) -> None:
    precious = tmp_path / "precious.zarr"
    zarr.create_group(precious, attributes={"mine": True})
    folder = tmp_path / "folder.zarr"
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years of work")
    for path in (precious, folder):
        with pytest.raises(OutputError, match="choose another output|holds no Zarr store"):
            done(scene.job(path), overwrite=True)
    assert (folder / "thesis.txt").read_text() == "ten years of work"
    assert zarr.open_group(precious, mode="r").attrs["mine"]


def test_two_runs_at_once_on_one_output_are_one_too_many(scene: Archive, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    errors: list[Exception] = []

    def second(progress: Progress) -> None:
        if progress.stage == "infer" and not errors:
            try:
                run(plan(scene.job(out)))
            except OutputBusy as error:
                errors.append(error)

    done(scene.job(out), on_progress=second)
    assert "is being written by another run" in str(errors[0])
    assert open_result(str(out)).state == "finished"


def test_a_run_that_lost_its_lease_cannot_commit(scene: Archive, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"

    def steal(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done == 0:
            thief = {"token": "thief", "host": "elsewhere", "pid": 1}
            open_blobs(parts_of(str(out))).put(HOLDER, json.dumps(thief).encode())

    with pytest.raises(Exception, match="another run holds the output now"):
        done(
            scene.job(
                out,
                grid={"tile_px": 256, "halo_px": 64, "block_px": 128},
                model="tests.analysts:Slow",
            ),
            on_progress=steal,
        )
    assert state_of(open_result(str(out))).blocks < 42


def test_a_place_that_cannot_be_written_is_refused(scene: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        done(scene.job(tmp_path / "file" / "a.zarr"))


def test_only_masked_nodata_and_outside_ground_gives_a_valid_result(
    archive: Archive, tmp_path: Path, ray_two: None
) -> None:
    archive.add("a", np.zeros((300, 300), np.uint8), nodata=0)
    archive.save()
    out = tmp_path / "a.zarr"
    report = done(archive.job(out))
    assert (report.tiles, report.failed_tiles, report.objects) == (0, 0, 0)
    assert (raster(str(out))["status"] == 3).all()
    result = open_result(str(out))
    assert len(result.objects) == 0
    [answer] = result.why(*lonlat_of(archive, 100, 100))
    assert answer.status == "no source data"


def test_progress_goes_through_the_stages_in_order(scene: Archive, tmp_path: Path) -> None:
    seen: list[Progress] = []
    done(scene.job(tmp_path / "a.zarr"), on_progress=seen.append)
    stages = [progress.stage for progress in seen]
    assert sorted(set(stages), key=stages.index) == ["infer", "stitch", "overview", "done"], stages
    assert all(progress.done <= progress.total for progress in seen)
