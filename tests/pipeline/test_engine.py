"""The engine on real Ray: faults, exactly once, resuming, refusing. Bytes are compared, not pictures."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr
import yaml
import zarr

from pipeline import JobSpec, open_result, plan, run
from pipeline.crew import Crew
from pipeline.engine import Progress, RunReport
from pipeline.errors import OutputBusy, OutputError, RunFailed
from pipeline.ledger import Lease
from pipeline.scratch import Scratch
from pipeline.status import state_of
from tests.analysts import LOG, MARK
from tests.archive import Archive, targets
from tests.results import contents, same

REPO = Path(__file__).parents[2]


@pytest.fixture
def scene(archive: Archive, ray_two: None) -> Archive:
    archive.add("a", np.minimum(targets(5), MARK - 1), nodata=None)
    archive.save()
    return archive


@pytest.fixture
def marked(archive: Archive, ray_two: None) -> Archive:
    """The same scene with one pixel on which an Analyst misbehaves, in the core of the tile at 2/3."""
    pixels = np.minimum(targets(5), MARK - 1)
    pixels[2 * 128 + 60, 3 * 128 + 60] = MARK
    archive.add("a", pixels, nodata=None)
    archive.save()
    return archive


def raster(url: str) -> xr.Dataset:
    found = open_result(url).raster
    assert isinstance(found, xr.Dataset)
    return found.load()


def done(job: JobSpec, **more: Any) -> RunReport:
    return run(plan(job), **more)


def test_two_runs_and_any_number_of_replicas_leave_the_same_bytes(scene: Archive, tmp_path: Path) -> None:
    done(scene.job(tmp_path / "one.zarr"))
    done(scene.job(tmp_path / "two.zarr", engine={"replicas": 3}))
    same(tmp_path / "one.zarr", tmp_path / "two.zarr")
    assert not (tmp_path / "one.parts").exists()


def test_runs_that_share_a_crew_share_its_processes_and_leave_the_same_bytes(scene: Archive, tmp_path: Path) -> None:
    done(scene.job(tmp_path / "apart.zarr"))
    job = scene.job(tmp_path / "one.zarr")
    with Crew(job.engine) as crew:
        done(job, crew=crew)
        [first] = replicas()
        done(scene.job(tmp_path / "two.zarr"), crew=crew)
        assert replicas() == [first]
        os.kill(first, signal.SIGKILL)
        done(scene.job(tmp_path / "three.zarr"), crew=crew)
        assert first not in replicas()
        with pytest.raises(RunFailed, match="no weights here"):
            done(scene.job(tmp_path / "a.zarr", model="tests.analysts:Unloadable"), crew=crew)
        assert open_result(str(tmp_path / "a.zarr")).state == "error"
        done(scene.job(tmp_path / "four.zarr"), crew=crew)
    for name in ("one", "two", "three", "four"):
        same(tmp_path / "apart.zarr", tmp_path / f"{name}.zarr")


def replicas() -> list[int]:
    """Ids of the processes that host one."""
    return [each.pid for each in psutil.process_iter() if "ray::Replica" in " ".join(each.cmdline())]


def test_every_tile_is_inferred_once(scene: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray's workers are started with the driver's environment of then, so the log's place is written to a file.
    log = tmp_path / "log.txt"
    report = logged(scene.job(tmp_path / "a.zarr", model="tests.analysts:Counting", engine={"replicas": 2}), log)
    lines = [line.split()[0] for line in log.read_text().splitlines()]
    assert len(lines) == report["tiles"] == 6 * 8
    assert max(Counter(lines).values()) == 1


def logged(job: JobSpec, log: Path) -> dict[str, Any]:
    """Run a job in a process of its own whose workers know where to log; returns its report."""
    script = (
        "import sys, json, dataclasses; from pipeline import JobSpec, plan, run\n"
        "spec = JobSpec.from_dict(json.loads(sys.argv[1])); print(json.dumps(dataclasses.asdict(run(plan(spec)))))"
    )
    document = job.model_dump_json(by_alias=True, exclude_none=True)
    env = os.environ | {LOG: str(log), "PYTHONPATH": str(REPO)}
    ended = subprocess.run(
        [sys.executable, "-c", script, document], env=env, cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


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
    job = marked.job(out, model=f"tests.analysts:{model}", engine={"replicas": 2, "max_failed_fraction": 0.5})
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


def lonlat_of(archive: Archive, row: float, col: float) -> tuple[float, float]:
    import pyproj

    to_lonlat = pyproj.Transformer.from_crs(archive.epsg, "OGC:CRS84", always_xy=True)
    lon, lat = to_lonlat.transform(archive.west + 10 * col, archive.north - 10 * row)
    return lon, lat


def test_a_replica_that_hangs_is_replaced_and_its_tile_quarantined(marked: Archive, tmp_path: Path) -> None:
    job = marked.job(tmp_path / "a.zarr", model="tests.analysts:Hanging", engine={"max_failed_fraction": 0.5})
    with Crew(job.engine, limit_s=5) as crew:
        report = done(job, crew=crew)
    assert report.failed_tiles == 1
    assert "process died" in report.failures[0]


def test_too_many_failures_stop_the_job_and_keep_what_is_finished(marked: Archive, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    with pytest.raises(RunFailed, match="more than engine.max_failed_fraction 0.0 allows.*too much for me"):
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


def job_file(folder: Path, job: JobSpec) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", "run", str(path)], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_commits(out: Path, count: int, process: subprocess.Popen[str]) -> int:
    """Wait until some, but not all blocks are committed."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        try:
            states = zarr.open_array(out / "blocks" / "state", mode="r")[...]
        except (FileNotFoundError, KeyError, ValueError):
            states = np.zeros(1)
        if int(np.asarray(states).sum()) >= count:
            return int(np.asarray(states).sum())
        time.sleep(0.05)
    raise AssertionError(f"no commits in time: {process.communicate()}")


def kill_all(process: subprocess.Popen[str]) -> None:
    """kill -9 the driver; what Ray has started for it must not go on writing."""
    driver = psutil.Process(process.pid)
    children = driver.children(recursive=True)
    driver.kill()
    process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bytes(scene: Archive, tmp_path: Path) -> None:
    small = {"grid": {"tile_px": 256, "halo_px": 64, "block_px": 256}, "model": "tests.analysts:Slow"}
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
    small = {"grid": {"tile_px": 256, "halo_px": 64, "block_px": 256}, "model": "tests.analysts:Slow"}
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


def test_a_replica_that_is_killed_is_replaced_and_the_bytes_are_the_same(scene: Archive, tmp_path: Path) -> None:
    small = {"grid": {"tile_px": 256, "halo_px": 64, "block_px": 256}, "model": "tests.analysts:Slow"}
    done(scene.job(tmp_path / "alone.zarr", **small))
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done >= 2 and not killed:
            replicas = [
                p for p in psutil.process_iter(["cmdline"]) if "ray::Replica" in " ".join(p.info["cmdline"] or [])
            ]
            os.kill(replicas[0].pid, signal.SIGKILL)
            killed.append(replicas[0].pid)

    out = tmp_path / "killed.zarr"
    report = done(scene.job(out, engine={"replicas": 2}, **small), on_progress=kill_one)
    assert killed
    assert report.failed_tiles == 0
    same(tmp_path / "alone.zarr", out)


def test_running_again_changes_nothing_and_another_plan_is_refused(scene: Archive, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    done(scene.job(out))
    before = contents(out)
    again = done(scene.job(out))
    assert (again.tiles, again.blocks_before, again.blocks) == (0, again.blocks, again.blocks)
    with pytest.raises(OutputError, match="result of another plan.*differs in tasks.*--overwrite"):
        done(scene.job(out, tasks={"find": ["other"]}))
    assert contents(out) == before
    done(scene.job(out, tasks={"find": ["other"]}), overwrite=True)
    assert open_result(str(out)).attrs["job"]["tasks"]["find"] == ["other"]


def test_a_run_goes_on_with_its_frozen_items_when_the_catalog_has_changed(scene: Archive, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"

    def stop(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done == 0:
            raise KeyboardInterrupt

    with pytest.raises(RunFailed, match="interrupted"):
        done(scene.job(out), on_progress=stop)
    scene.add("late", targets(6)[:300, :300], col=900, nodata=None)
    scene.save()
    with pytest.raises(OutputError, match=r"items \(1 then, 2 now; .*source.catalog to .*a.items.parquet"):
        done(scene.job(out))
    report = done(scene.job(out, source={"catalog": str(tmp_path / "a.items.parquet")}))
    assert report.blocks == 4
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
    scratch = Scratch(str(out))

    def steal(progress: Progress) -> None:
        if progress.stage == "infer" and progress.done == 0:
            scratch.put(
                "run", "holder.json", json.dumps({"token": "thief", "host": "elsewhere", "beat": time.time()}).encode()
            )

    with pytest.raises(Exception, match="another run holds the output now"):
        done(
            scene.job(out, grid={"tile_px": 256, "halo_px": 64, "block_px": 128}, model="tests.analysts:Slow"),
            on_progress=steal,
        )
    assert state_of(open_result(str(out))).blocks < 42


def test_a_lease_of_the_dead_is_taken_over(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path / "a.zarr"))
    with Lease(scratch):
        record = json.loads(scratch.get("run", "holder.json"))
        with pytest.raises(OutputBusy), Lease(scratch):
            pass
    scratch.put("run", "holder.json", json.dumps(record | {"pid": 2**22 - 1}).encode())
    with Lease(scratch):
        pass
    scratch.put("run", "holder.json", json.dumps(record | {"host": "elsewhere", "beat": time.time() - 1000}).encode())
    with Lease(scratch):
        pass
    scratch.put("run", "holder.json", json.dumps(record | {"host": "elsewhere", "beat": time.time()}).encode())
    with pytest.raises(OutputBusy, match="elsewhere"), Lease(scratch):
        pass


@pytest.mark.slow
def test_a_disk_that_is_full_is_said_and_loses_nothing(scene: Archive, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    path = job_file(tmp_path, scene.job(place / "a.zarr"))
    command = f"mount -t tmpfs -o size=600k tmpfs {place} && {sys.executable} -m workflows.cli run {path}"
    probe = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    ended = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True,
        text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "No space left on device" in ended.stderr
    assert "make room and run again" in ended.stderr
    assert "Traceback" not in ended.stderr


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
