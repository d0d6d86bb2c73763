"""What the tests of the engine share: running jobs, here and in processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
import yaml
import zarr

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.run import RunReport
from tests import REPO
from tests.analysts import LOG
from tests.archive import Archive


def raster(url: str) -> xr.Dataset:
    found = open_result(url).raster
    assert isinstance(found, xr.Dataset)
    return found.load()


def done(job: JobSpec, **more: Any) -> RunReport:
    return run(plan(job), **more)


def replicas() -> list[int]:
    """Ids of this Ray's processes that host one."""
    ours = psutil.Process().children(recursive=True)
    return [each.pid for each in ours if "ray::Replica" in " ".join(each.cmdline())]


def logged(job: JobSpec, log: Path) -> dict[str, Any]:
    """Run a job in a process of its own whose workers know where to log; returns its report."""
    script = (
        "import sys, json, dataclasses; from earthgptx import JobSpec, plan, run\n"
        "report = run(plan(JobSpec.from_dict(json.loads(sys.argv[1]))))\n"
        "print(json.dumps(dataclasses.asdict(report)))"
    )
    document = job.model_dump_json(by_alias=True, exclude_none=True)
    env = os.environ | {LOG: str(log), "PYTHONPATH": str(REPO)}
    ended = subprocess.run(
        [sys.executable, "-c", script, document],
        env=env,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def lonlat_of(archive: Archive, row: float, col: float) -> tuple[float, float]:
    import pyproj

    to_lonlat = pyproj.Transformer.from_crs(archive.epsg, "OGC:CRS84", always_xy=True)
    lon, lat = to_lonlat.transform(archive.west + 10 * col, archive.north - 10 * row)
    return lon, lat


def job_file(folder: Path, job: JobSpec) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "earthgptx", "run", str(path)],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_commits(out: Path, count: int, process: subprocess.Popen[str]) -> int:
    """Wait until some, but not all blocks are committed."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        try:
            states = np.asarray(zarr.open_array(out / "blocks" / "state", mode="r")[...])
        except (FileNotFoundError, KeyError, ValueError):
            states = np.zeros(1)
        if int(states.sum()) >= count:
            return int(states.sum())
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
