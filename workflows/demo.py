"""The demo: renders the sample archive, runs one job per sensor on it, and draws the results.

The jobs find and describe ships, aircraft and storage tanks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import yaml

from earthgptx.model.interface.tile import Modality
from earthgptx.pipeline.engine.plan import plan
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.engine.report import Progress, RunReport
from earthgptx.pipeline.engine.run import run
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.results.picture import draw
from earthgptx.pipeline.results.result import open_result
from earthgptx.workflows.sample import make_sample

AOI = [5.9, 42.96, 6.05, 43.02]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A finished job of the demo: its job file, report and picture."""

    job: Path
    report: RunReport
    picture: Path


def demo_jobs(folder: Path) -> list[Path]:
    """Writes the demo's job files, one per sensor, and returns their paths."""
    jobs = []
    for sensor in get_args(Modality):
        job = {
            "name": f"demo-{sensor}",
            "source": {
                "catalog": "sample/catalog.json",
                "collections": [f"sample-{sensor}"],
                "aoi": {"bbox": AOI},
                "time": "2026-01-01/2026-03-31",
            },
            "slices": "day",
            "tasks": {"find": ["ship", "aircraft", "storage tank"], "describe": True},
            "model": "nano",
            "output": f"results/{sensor}.zarr",
            "engine": {"replicas": 2},
        }
        path = folder / f"{sensor}.yaml"
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        jobs.append(path)
    return jobs


def run_demo(
    folder: Path,
    *,
    on_scene: Callable[[int, int], None] = lambda *_: None,
    on_progress: Callable[[str, Progress], None] = lambda *_: None,
) -> list[Shown]:
    """Renders the archive if it is missing, runs the jobs, and draws their results.

    Args:
        folder: folder of the archive, the job files, the results and the pictures.
        on_scene: called with the numbers of rendered scenes and of all scenes.
        on_progress: called with the name of a job and its progress.
    """
    shown = []
    jobs = {path: JobSpec.from_yaml(path) for path in demo_jobs(folder)}
    with ThreadPoolExecutor(1) as aside:
        # Ray's start is mostly waiting, so the archive is rendered meanwhile.
        archive = aside.submit(_make_archive, folder / "sample", on_scene)
        with ReplicaPool(next(iter(jobs.values())).engine) as pool:
            archive.result()
            for path, spec in jobs.items():
                report = run(
                    plan(spec),
                    overwrite=True,
                    on_progress=partial(on_progress, spec.name),
                    pool=pool,
                )
                picture = folder / f"{path.stem}.png"
                draw(open_result(report.output), picture)
                shown.append(Shown(job=path, report=report, picture=picture))
    return shown


def _make_archive(folder: Path, on_scene: Callable[[int, int], None]) -> None:
    if not (folder / "truth.parquet").exists():
        make_sample(folder, on_scene=on_scene)
