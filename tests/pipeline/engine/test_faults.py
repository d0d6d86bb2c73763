"""The engine under faults: tiles that fail, replicas that hang or die, disks that are full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from earthgptx import JobSpec, open_result
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.run import Progress
from earthgptx.pipeline.errors import RunFailed
from earthgptx.pipeline.results.status import state_of
from tests import REPO
from tests.archive import Archive, targets
from tests.pipeline.engine.runs import (
    done,
    job_file,
    kill_all,
    lonlat_of,
    raster,
    start,
    wait_for_commits,
)
from tests.results import same


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Raising", "raised RuntimeError: this tile is too much for me"),
        ("WrongShape", "answered scores uint8 (1, 7, 7), expected uint8 (1, 256, 256)"),
        ("Silent", "gave 0 answers to 1 tiles"),
        ("Killing", "process died 2 times on this tile"),
    ],
)
def test_a_tile_that_fails_is_quarantined_and_the_job_goes_on(
    marked: Archive, tmp_path: Path, model: str, reason: str
) -> None:
    out = tmp_path / "a.zarr"
    job = marked.job(
        out, model=f"tests.analysts:{model}", engine={"replicas": 2, "max_failed_fraction": 0.5}
    )
    report = done(job)
    assert report.failed_tiles == 1
    assert reason in report.failures[0]
    assert "tile 2/3 of " in report.failures[0]
    result = open_result(str(out))
    assert result.state == "finished"
    layer = raster(str(out))
    bad = layer["status"].values[0] == 5
    assert bad[256:384, 384:512].all()
    assert bad.sum() == 128 * 128
    assert (layer["status"].values[0][~bad] == 1).all()
    assert (layer["label"].values[0][bad] == 0).all()
    lonlat = lonlat_of(marked, row=300, col=400)
    [answer] = result.why(*lonlat)
    assert answer.status.startswith("quarantined")
    assert reason in answer.reason
    assert "tests.analysts" in result.attrs["job"]["model"]


def test_a_replica_that_hangs_is_replaced_and_its_tile_quarantined(
    marked: Archive, tmp_path: Path
) -> None:
    job = marked.job(
        tmp_path / "a.zarr", model="tests.analysts:Hanging", engine={"max_failed_fraction": 0.5}
    )
    with ReplicaPool(job.engine, limit_s=3) as pool:
        report = done(job, pool=pool)
    assert report.failed_tiles == 1
    assert "process died" in report.failures[0]


def test_too_many_failures_stop_the_job_and_keep_what_is_finished(
    marked: Archive, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    with pytest.raises(
        RunFailed, match="more than engine.max_failed_fraction 0.0 allows.*too much for me"
    ):
        done(marked.job(out, model="tests.analysts:Raising", engine={"max_failed_fraction": 0}))
    assert open_result(str(out)).state == "error"


def test_a_model_that_cannot_be_loaded_is_named(scene: Archive, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="RuntimeError: no weights here"):
        done(scene.job(tmp_path / "a.zarr", model="tests.analysts:Unloadable"))


def test_a_broken_item_is_quarantined_with_its_reason(scene: Archive, tmp_path: Path) -> None:
    path = scene.add("broken", targets(6)[:300, :300], col=900, nodata=None)
    scene.save()
    path.write_bytes(path.read_bytes()[:5000])
    out = tmp_path / "a.zarr"
    report = done(scene.job(out, engine={"max_failed_fraction": 0.5}))
    assert report.failed_tiles > 0
    assert "asset image of item broken" in report.failures[0]
    status = raster(str(out))["status"].values[0]
    assert (status[:, :700] == 1).all()
    assert (status[:300, 1100:] == 5).all()


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bytes(
    scene: Archive, tmp_path: Path
) -> None:
    small = {
        "grid": {"tile_px": 256, "halo_px": 64, "block_px": 256},
        "model": "tests.analysts:Slow",
    }
    done(scene.job(tmp_path / "alone.zarr", **small))
    out = tmp_path / "killed.zarr"
    path = job_file(tmp_path, scene.job(out, **small))
    process = start(path)
    before = wait_for_commits(out, 2, process)
    kill_all(process)
    assert open_result(str(out)).state == "running"
    assert 0 < state_of(open_result(str(out))).blocks < 12
    report = done(JobSpec.from_yaml(path))
    assert report.blocks_before >= before
    assert report.tiles < 48, "what was finished is not done again"
    same(tmp_path / "alone.zarr", out)


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_keeps_finished_blocks(scene: Archive, tmp_path: Path) -> None:
    small = {
        "grid": {"tile_px": 256, "halo_px": 64, "block_px": 256},
        "model": "tests.analysts:Slow",
    }
    out = tmp_path / "a.zarr"
    process = start(job_file(tmp_path, scene.job(out, **small)))
    wait_for_commits(out, 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in said
    assert "Run the same command again to go on" in said
    assert "Traceback" not in said
    assert open_result(str(out)).state == "canceled"
    assert state_of(open_result(str(out))).blocks >= 2
    done(scene.job(out, **small))
    assert open_result(str(out)).state == "finished"


def test_a_replica_that_is_killed_is_replaced_and_the_bytes_are_the_same(
    scene: Archive, tmp_path: Path
) -> None:
    small = {
        "grid": {"tile_px": 256, "halo_px": 64, "block_px": 256},
        "model": "tests.analysts:Slow",
    }
    done(scene.job(tmp_path / "alone.zarr", **small))
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done >= 2 and not killed:
            replicas = [
                p
                for p in psutil.process_iter(["cmdline"])
                if "ray::Replica" in " ".join(p.info["cmdline"] or [])
            ]
            os.kill(replicas[0].pid, signal.SIGKILL)
            killed.append(replicas[0].pid)

    out = tmp_path / "killed.zarr"
    report = done(scene.job(out, engine={"replicas": 2}, **small), on_progress=kill_one)
    assert killed
    assert report.failed_tiles == 0
    same(tmp_path / "alone.zarr", out)


@pytest.mark.slow
def test_a_disk_that_is_full_is_said_and_loses_nothing(scene: Archive, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    path = job_file(tmp_path, scene.job(place / "a.zarr"))
    command = (
        f"mount -t tmpfs -o size=600k tmpfs {place} && {sys.executable} -m workflows.cli run {path}"
    )
    probe = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    ended = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "No space left on device" in ended.stderr
    assert "make room and run again" in ended.stderr
    assert "Traceback" not in ended.stderr
