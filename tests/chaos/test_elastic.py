"""Replicas and machines that go and come; how long a run stands still, and what it does twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import PATH, REPO
from tests.chaos.harness import Case
from tests.figures import Record
from tests.results import contents

pytestmark = [pytest.mark.chaos, pytest.mark.alone]
Bytes = dict[str, bytes]

SETUP = """
import json, os, random, signal, sys, time, warnings
import psutil, ray
from earthgptx import JobSpec, plan, run
warnings.simplefilter("ignore")
job = JobSpec.from_dict(json.loads(sys.argv[1]))
times, counts = [], []
def note(progress):
    if progress.stage == "infer" and (not counts or progress.done > counts[-1]):
        counts.append(progress.done)
        times.append(time.monotonic())
def replicas():
    "This run's replicas that have loaded their model."
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            title = "".join(each.cmdline()[:1])
        except psutil.Error:
            continue
        if title.startswith("ray::Replica") and not title.endswith((".load", ".hello", "__init__")):
            found.append(each)
    return found
def gap(after):
    "Longest time without a commit from a moment on."
    later = [after] + [t for t in times if t > after]
    return max((b - a for a, b in zip(later, later[1:])), default=0.0)
def say(report, **more):
    facts = {"tiles": report.tiles, "failed": report.failed_tiles, "seconds": report.seconds}
    facts["repeated"] = report.repeated_blocks
    print("FACTS" + json.dumps(facts | more), flush=True)
"""

KILLS = (
    SETUP
    + """
made = plan(job)
kills, wanted, blocks = [], int(sys.argv[2]), len(made.blocks)
dice = random.Random(0)
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
import threading
stop = threading.Event()
def killer():
    while not stop.wait(dice.uniform(0.5, 1.5)):
        alive = replicas()
        if alive and counts and counts[-1] < blocks - 5 and len(kills) < wanted:
            victim = dice.choice(alive)
            try:
                victim.kill()
                kills.append(time.monotonic())
            except psutil.Error:
                pass
thread = threading.Thread(target=killer, daemon=True)
thread.start()
report = run(made, on_progress=note)
stop.set()
say(report, kills=len(kills), blocks=blocks)
"""
)

ONE_KILL = (
    SETUP
    + """
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
killed = []
def on_progress(progress):
    note(progress)
    if progress.stage == "infer" and progress.done >= 8 and not killed:
        replicas()[0].kill()
        killed.append(time.monotonic())
report = run(plan(job), on_progress=on_progress)
say(report, gap=gap(killed[0]))
"""
)

NODES = (
    SETUP
    + """
from ray.cluster_utils import Cluster
what = sys.argv[2]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1) if what != "added" else None
cluster.connect(namespace=None)
changed = []
def on_progress(progress):
    note(progress)
    if progress.stage == "infer" and progress.done >= 6 and not changed:
        changed.append(time.monotonic())
        if what == "added":
            cluster.add_node(num_cpus=1)
        else:
            cluster.remove_node(second, allow_graceful=False)
        if what == "replaced":
            cluster.add_node(num_cpus=1)
report = run(plan(job), on_progress=on_progress)
say(report, gap=gap(changed[0]), processes=len(replicas()))
ray.shutdown()
cluster.shutdown()
"""
)


def facts(script: str, case: Case, *arguments: str, limit_s: float = 300) -> dict[str, Any]:
    document = case.job.model_dump_json(by_alias=True, exclude_none=True)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, document, *arguments],
        env=os.environ | {"PYTHONPATH": PATH},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-3000:]
    [line] = [line for line in ended.stdout.splitlines() if "FACTS" in line]
    found: dict[str, Any] = json.loads(line.partition("FACTS")[2])
    return found


def small(case: Case, core: int = 64, **engine: Any) -> Case:
    """More and smaller blocks: one tile each."""
    halo = min(core, 64)
    grid = {"tile_px": core + 2 * halo, "halo_px": halo, "block_px": core}
    case.change(grid=grid, engine={"replicas": 2} | engine)
    return case


def test_two_hundred_random_kills_in_one_run_change_nothing(
    case: Case, tmp_path: Path, record: Record
) -> None:
    quiet = small(Case.make(tmp_path / "quiet", model="tests.analysts:Slow"), core=56)
    assert quiet.run().code == 0
    disturbed = small(Case.make(tmp_path / "disturbed", model="tests.analysts:Slow"), core=56)
    said = facts(KILLS, disturbed, "200", limit_s=3000)
    record("random_kills_in_one_run", said["kills"])
    record("blocks_of_that_run", said["blocks"])
    record("seconds_of_that_run", round(said["seconds"], 1))
    assert disturbed.same_as(contents(quiet.out))
    assert said["failed"] == 0
    assert said["kills"] == 200


def test_a_run_hardly_stands_still_when_a_replica_dies(case: Case, record: Record) -> None:
    slow = small(Case.make(case.folder / "slow", model="tests.analysts:Slow"), core=128)
    said = facts(ONE_KILL, slow)
    record("seconds_without_progress_after_a_replica_dies", round(said["gap"], 1))
    record("blocks_inferred_again_after_a_death", said["repeated"])
    assert said["repeated"] <= 2


@pytest.mark.parametrize("what", ["replaced", "lost", "added"])
def test_machines_that_go_and_come(
    case: Case, undisturbed: Bytes, record: Record, what: str
) -> None:
    case.change(engine={"replicas": {"min": 1, "max": 2}})
    said = facts(NODES, case, what)
    record(f"seconds_without_progress_node_{what}", round(said["gap"], 1))
    assert said["failed"] == 0
    assert case.same_as(undisturbed)


def test_eight_real_replicas_are_kept_busy(case: Case, record: Record) -> None:
    """The model sleeps: eight replicas share two processors, as they would share a cluster's."""
    many = small(Case.make(case.folder / "many", model="tests.analysts:Sleeping"), replicas=8)
    said = facts(EIGHT, many)
    record("scaling_efficiency_8_real", round(said["efficiency"], 3))


EIGHT = (
    SETUP
    + """
ray.init(num_cpus=8, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
from earthgptx.pipeline.engine.pool import ReplicaPool
made = plan(job)
with ReplicaPool(job.engine) as pool:
    run(made, pool=pool)
    began = time.monotonic()
    report = run(made, overwrite=True, pool=pool, on_progress=note)
ended = times[-1]
say(report, efficiency=report.tiles * SLEEP_S / (8 * (ended - began)))
""".replace("SLEEP_S", "2.0")
)
