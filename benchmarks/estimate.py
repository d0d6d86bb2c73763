"""What `plan` says of a job's time and bytes, against what `run` takes.

Three jobs through the command line: the sample archive by `nano`, the same by CFAR, and a made
radar scene of many tiles by CFAR.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.report import arguments, report
from earthgptx.workflows.demo import demo_jobs
from earthgptx.workflows.sample import make_sample
from tests.archive import GREY, Archive


def command(*args: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "earthgptx.workflows.cli", *args],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return found.stdout


def factor(job: Path) -> tuple[float, float]:
    """Planned and real seconds of a job."""
    planned = json.loads(command("plan", str(job), "--json"))
    started = time.perf_counter()
    command("run", str(job), "--overwrite")
    return float(planned["seconds"]), time.perf_counter() - started


def changed(job: Path, name: str, **more: Any) -> Path:
    made = job.with_name(f"{name}.yaml")
    fields = yaml.safe_load(job.read_text()) | {"name": name, "output": f"results/{name}.zarr"}
    made.write_text(yaml.safe_dump(fields | more))
    return made


def large(folder: Path, side: int) -> Path:
    """A job over a radar scene of noise with a ship here and there."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(20, 60, (side, side), np.uint8)
    pixels[::997, ::1009] = 250
    archive = Archive(folder)
    archive.add("a", pixels, nodata=None)
    archive.save()
    profile = {"modality": "sar", "bands": GREY}
    spec = archive.job(
        folder / "large.zarr",
        model="cfar",
        source={"profiles": {"made": profile}},
        engine={"replicas": 2},
        grid={"tile_px": 512, "block_px": 1920},
    )
    path = folder / "large.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True)))
    return path


def main() -> None:
    args = arguments(__doc__)
    figures: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sample(folder / "sample")
        optical, sar, _ = demo_jobs(folder)
        jobs = {
            "cfar": changed(sar, "cfar", model="cfar", tasks={"find": ["ship"]}),
            "many_tiles": large(folder / "large", 4096 if args.quick else 16_384),
        }
        if not args.quick:
            jobs["nano"] = optical
        for name, job in jobs.items():
            planned, real = factor(job)
            figures |= {
                f"{name}_planned_s": planned,
                f"{name}_s": real,
                f"{name}_estimate_ratio": planned / real,
            }
    report("estimates of time", figures, args.json)


if __name__ == "__main__":
    main()
