"""Several nodes and several GPUs. Each in a process of its own, since a process has one Ray."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from earthgptx import JobSpec
from tests import PATH, REPO
from tests.analysts import LOG
from tests.archive import Archive, targets

SMALL = {"tile_px": 256, "halo_px": 64, "block_px": 256}

TWO_GPUS = """
import dataclasses, json, sys
import ray
from earthgptx import JobSpec, plan, run
quiet = {"logging_level": "ERROR", "log_to_driver": False}
ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, **quiet)
print(json.dumps(dataclasses.asdict(run(plan(JobSpec.from_dict(json.loads(sys.argv[1])))))))
"""


def alone(script: str, job: JobSpec, **env: str) -> dict[str, Any]:
    document = job.model_dump_json(by_alias=True, exclude_none=True)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, document],
        env=os.environ | {"PYTHONPATH": PATH} | env,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    # Ray prints of dying nodes on standard output, too.
    [said] = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(said)
    return found


def test_each_replica_has_a_gpu_of_its_own(archive: Archive, tmp_path: Path) -> None:
    archive.add("a", targets(5), nodata=None)
    archive.save()
    log = tmp_path / "log.txt"
    job = archive.job(
        tmp_path / "a.zarr",
        model="tests.analysts:Counting",
        grid=SMALL,
        engine={"replicas": 2, "gpus_per_replica": 1},
    )
    report = alone(TWO_GPUS, job, **{LOG: str(log)})
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == report["tiles"] == 48
    seen = Counter((gpu, process) for _, gpu, process in lines)
    assert {gpu for gpu, _ in seen} == {"0", "1"}
    assert len(seen) == 2
