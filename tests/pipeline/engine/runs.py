"""What the tests of the engine share: running jobs, here and in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import xarray as xr

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.report import RunReport
from tests import PATH, REPO
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
    env = os.environ | {LOG: str(log), "PYTHONPATH": PATH}
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
