"""Several nodes and several GPUs. Each in a process of its own, since a process has one Ray."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from earthgptx import JobSpec, plan, run
from tests import REPO
from tests.analysts import LOG
from tests.archive import Archive, targets
from tests.results import same

SMALL = {"tile_px": 256, "halo_px": 64, "block_px": 256}

TWO_NODES = """
import json, sys, time
import ray
from ray.cluster_utils import Cluster
from earthgptx import JobSpec, plan, run
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.connect(namespace=None)
homes, lost = set(), []
def on_progress(progress):
    alive = [a["NodeID"] for a in nodes() if a["Alive"] and a["Resources"].get("CPU")]
    homes.update(node for node in alive if not free().get(node, 0))
    if progress.stage == "infer" and progress.done >= 2 and not lost:
        lost.append(second.node_id)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
nodes = ray.nodes
def free():
    resources = ray._private.state.available_resources_per_node()
    return {n: r.get("CPU", 0) for n, r in resources.items()}
report = run(plan(JobSpec.from_dict(json.loads(sys.argv[1]))), on_progress=on_progress)
facts = {"nodes": len(homes), "failed": report.failed_tiles, "tiles": report.tiles}
print(json.dumps({"lost": lost, **facts}))
ray.shutdown()
cluster.shutdown()
"""

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
        env=os.environ | {"PYTHONPATH": str(REPO)} | env,
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


def test_a_node_that_dies_in_the_middle_changes_no_byte(
    archive: Archive, tmp_path: Path, ray_two: None
) -> None:
    archive.add("a", targets(5), nodata=None)
    archive.save()
    more: dict[str, Any] = {"grid": SMALL, "model": "tests.analysts:Slow"}
    run(plan(archive.job(tmp_path / "alone.zarr", **more)))
    said = alone(TWO_NODES, archive.job(tmp_path / "nodes.zarr", engine={"replicas": 2}, **more))
    assert said["nodes"] >= 2, "both nodes had a replica"
    assert said["lost"]
    assert said["failed"] == 0
    same(tmp_path / "alone.zarr", tmp_path / "nodes.zarr")


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
