"""Seams that tiling leaves: changes on borders of tiles and blocks, divided by those inside.

CFAR over SAR targets and speckle, and nano over the sample's made scenes, in each of its three
sensors; of two halos, since what a halo costs in time it should gain in seams. Ratios are those of
`earthgptx inspect`, which come with how sure they are: below five standard errors a ratio is that
of chance.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import arguments, report
from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.results.inspection import Bounds, inspect
from earthgptx.workflows.sample import make_sample
from tests.archive import Archive, targets

FIND = ["ship", "storage tank", "building", "road", "water"]
"""Phrases that nano is asked for: single objects and ground."""
BBOX = [5.94, 42.985, 6.03, 43.01]
SMALL = [5.985, 42.99, 6.01, 43.005]


def ratios(url: str) -> dict[str, float]:
    """Ratios of a result by measure: the largest of its zones."""
    found: dict[str, float] = {}
    for each in inspect(open_result(url), Bounds()):
        if "seams" in each.measure or each.measure in ("duplicates", "cut objects"):
            name = each.measure.replace(" ", "_")
            found[name] = max(found.get(name, 0.0), each.value)
    return found


def cfar(folder: Path, side: int) -> dict[str, float]:
    """Ratios of CFAR over bright targets in speckle."""
    archive = Archive(folder / "archive")
    archive.add("a", targets(1, (side, side), side * side // 6000), nodata=None)
    archive.save()
    grid = {"tile_px": 512, "halo_px": 64, "block_px": 1536}
    run(plan(archive.job(folder / "cfar.zarr", grid=grid)))
    return ratios(str(folder / "cfar.zarr"))


def nano(folder: Path, sensor: str, halo: int, bbox: list[float]) -> dict[str, float]:
    """Ratios of nano over the sample's scenes of one day."""
    job = JobSpec.model_validate(
        {
            "name": sensor,
            "source": {
                "catalog": str(folder / "sample/catalog.json"),
                "collections": [f"sample-{sensor}"],
                "aoi": {"bbox": bbox},
                "time": "2026-01-14",
            },
            "grid": {"resolution": 3, "tile_px": 512, "halo_px": halo, "block_px": 1536},
            "tasks": {"find": FIND, "describe": False, "keep_scores": True},
            "model": "nano",
            "output": str(folder / f"{sensor}-{halo}.zarr"),
        }
    )
    run(plan(job))
    return ratios(job.output)


def main() -> None:
    args = arguments(__doc__)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = cfar(folder, 1024 if args.quick else 4096)
        figures |= {f"cfar_{key}": value for key, value in found.items()}
        make_sample(folder / "sample")
        for sensor in ("sar",) if args.quick else ("optical", "sar", "infrared"):
            for halo in (64,) if args.quick else (64, 128):
                found = nano(folder, sensor, halo, SMALL if args.quick else BBOX)
                figures |= {f"nano_{sensor}_halo_{halo}_{key}": v for key, v in found.items()}
    report("changes on borders, divided by those inside", figures, args.json)


if __name__ == "__main__":
    main()
