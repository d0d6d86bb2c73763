"""An S3 server that fails on demand, and disks that fill up."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests import PATH, REPO
from tests.chaos.harness import OUTAGE, Case
from tests.chaos.moments import DRIVER, REPLICA
from tests.chaos.servers import Proxy, every, faulty_s3, first, until
from tests.results import alike, contents

chaos = pytest.mark.chaos
Bytes = dict[str, bytes]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before an S3 server."""
    with faulty_s3(monkeypatch) as proxy:
        yield proxy


def on_s3(case: Case) -> None:
    case.job = case.job.model_copy(update={"output": "s3://archive/results/out.zarr"})


def downloaded(folder: Path) -> Bytes:
    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="archive", Prefix="results/")
    for page in pages:
        for found in page.get("Contents", []):
            path = folder / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("archive", found["Key"], str(path))
    assert not list((folder / "results").glob("*.parts")), "scratch is cleared"
    assert (folder / "results" / "out.item.json").exists()
    return contents(folder / "results" / "out.zarr")


@chaos
@pytest.mark.parametrize("fault", ["500", "503", "reset", "reset in the middle", "slow"])
def test_storage_that_fails_for_a_while_is_waited_for(
    s3: Proxy, case: Case, undisturbed: Bytes, tmp_path: Path, fault: str
) -> None:
    on_s3(case)
    process = case.start("infer", "wait")
    case.reached(process)
    s3.fault = first(40, fault)
    case.go()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert s3.faults[fault] == 40
    assert alike(downloaded(tmp_path), undisturbed)


@chaos
@pytest.mark.parametrize("fault", ["500", "503", "reset", "reset in the middle", "lost answer"])
def test_storage_that_fails_now_and_then_is_asked_again(
    s3: Proxy, case: Case, undisturbed: Bytes, tmp_path: Path, fault: str
) -> None:
    """Every seventh request of the whole run, from the lease's first to scratch's last."""
    on_s3(case)
    s3.fault = every(7, fault)
    ended = case.run()
    assert ended.code == 0, ended.said
    assert s3.faults[fault] > 20
    assert alike(downloaded(tmp_path), undisturbed)


@chaos
@pytest.mark.parametrize("moment", [*DRIVER, *REPLICA])
def test_storage_that_is_down_for_a_minute_is_waited_for(
    s3: Proxy, case: Case, undisturbed: Bytes, tmp_path: Path, moment: str
) -> None:
    on_s3(case)
    process = case.start(moment, "wait")
    case.reached(process)
    s3.fault = until(time.monotonic() + 60, "reset")
    case.go()
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert alike(downloaded(tmp_path), undisturbed)


@chaos
def test_storage_that_stays_away_ends_the_run_in_words(
    s3: Proxy, case: Case, undisturbed: Bytes, tmp_path: Path
) -> None:
    on_s3(case)
    process = case.start("infer", "wait")
    case.reached(process)
    s3.fault = lambda _method, _path: "reset"
    case.go()
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 3, said
    assert "Traceback" not in said
    assert "run the same command again" in " ".join(said.split())
    s3.fault = lambda _method, _path: ""
    ended = case.run(EARTHGPTX_LEASE_S="4")
    assert ended.code == 0, ended.said
    assert alike(downloaded(tmp_path), undisturbed)


@chaos
def test_a_bucket_that_does_not_exist_is_said(s3: Proxy, case: Case) -> None:
    case.job = case.job.model_copy(update={"output": "s3://nowhere/out.zarr"})
    ended = case.run()
    assert ended.code == 2, ended.said
    assert ended.in_words, ended.said
    assert "bucket" in ended.said


@chaos
@pytest.mark.parametrize("moment", [*DRIVER, *REPLICA])
def test_a_write_that_finds_no_room_goes_on(case: Case, undisturbed: Bytes, moment: str) -> None:
    """One call fails as on a full disk; a replica does its task again, the driver ends the run."""
    ended = case.run(moment, "raise")
    assert (case.folder / "reached").exists()
    assert ended.code in OUTAGE, ended.said
    assert ended.in_words, ended.said
    if ended.code:
        assert "make room and run the same command again" in " ".join(ended.said.split())
        case.finish()
    assert case.same_as(undisturbed)


FILL = """
mount -t tmpfs -o size={size} tmpfs {place} || exit 77
{python} -m tests.chaos.run_armed run {job}; echo first=$?
mount -o remount,size=64m {place}
{python} -m tests.chaos.run_armed run {job}; echo second=$?
cp -r {place}/. {kept}
"""


@chaos
@pytest.mark.parametrize("size", ["100k", "300k", "500k", "700k", "900k", "1100k"])
def test_a_disk_that_is_full_and_then_has_room(
    case: Case, undisturbed: Bytes, tmp_path: Path, size: str
) -> None:
    place, kept = tmp_path / "small", tmp_path / "kept"
    place.mkdir()
    kept.mkdir()
    case.job = case.job.model_copy(update={"output": str(place / "out.zarr")})
    case.start().kill()  # writes the job file
    script = FILL.format(
        size=size, place=place, python=sys.executable, job=case.folder / "job.yaml", kept=kept
    )
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(place)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    ended = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said, said
    assert "second=0" in said, said
    if "first=0" not in said:
        assert "first=3" in said, said
        assert "make room and run the same command again" in " ".join(said.split())
    assert alike(contents(kept / "out.zarr"), undisturbed)
