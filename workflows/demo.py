"""The demo: render the sample archive, find and describe ships, aircraft and tanks in it with all sensors, draw them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import yaml

from model.tile import Modality
from pipeline import JobSpec, RunReport, open_result, plan, run
from pipeline.crew import Crew
from pipeline.engine import Progress
from pipeline.picture import draw
from workflows.sample import make_sample

AOI = [5.9, 42.96, 6.05, 43.02]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One job of the demo."""

    job: Path
    report: RunReport
    picture: Path


def demo_jobs(folder: Path) -> list[Path]:
    """Write the demo's job files, one a sensor."""
    jobs = []
    for sensor in get_args(Modality):
        job = {
            "name": f"demo-{sensor}",
            "source": {
                "catalog": "sample/catalog.json", "collections": [f"sample-{sensor}"], "aoi": {"bbox": AOI},
                "time": "2026-01-01/2026-03-31",
            },
            "slices": "day",
            "tasks": {"find": ["ship", "aircraft", "storage tank"], "describe": True},
            "model": "nano",
            "output": f"results/{sensor}.zarr",
            "engine": {"replicas": 2},
        }  # fmt: skip
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
    """Make the archive where it is missing, run the jobs, draw their results."""
    shown = []
    jobs = {path: JobSpec.from_yaml(path) for path in demo_jobs(folder)}
    with ThreadPoolExecutor(1) as aside:
        # Ray's start is mostly waiting.
        archive = aside.submit(_make_archive, folder / "sample", on_scene)
        with Crew(next(iter(jobs.values())).engine) as crew:
            archive.result()
            for path, spec in jobs.items():
                report = run(plan(spec), overwrite=True, on_progress=partial(on_progress, spec.name), crew=crew)
                picture = folder / f"{path.stem}.png"
                draw(open_result(report.output), picture)
                shown.append(Shown(job=path, report=report, picture=picture))
    return shown


def _make_archive(folder: Path, on_scene: Callable[[int, int], None]) -> None:
    if not (folder / "truth.parquet").exists():
        make_sample(folder, on_scene=on_scene)
