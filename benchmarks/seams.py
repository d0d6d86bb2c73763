"""Seams that tiling leaves: changes on borders of tiles and blocks, divided by those inside.

CFAR over SAR targets and speckle, and nano over the sample's made scenes, in each of its three
sensors; of two halos, since what a halo costs in time it should gain in seams. Ratios are those of
`earthgptx inspect`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

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
    """Ratios of a result by measure: the mean of its zones."""
    found: dict[str, list[float]] = {}
    for each in inspect(open_result(url), Bounds(holes=None, step=None, drift=None, cut=None)):
        found.setdefault(each.measure.replace(" ", "_"), []).append(each.value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def cfar(folder: Path, side: int) -> dict[str, float]:
    """Ratios of CFAR over bright targets in speckle, and its pixels that depend on the tiling.

    Few lines are borders, so a ratio has some chance in it; the pixels have none.
    """
    archive = Archive(folder / "archive")
    archive.add("a", targets(1, (side, side), side * side // 6000), nodata=None)
    archive.save()
    labels = []
    for tile_px, block_px in ((512, 768), (896, 1536)):
        grid = {"tile_px": tile_px, "halo_px": 64, "block_px": block_px}
        url = folder / f"cfar-{tile_px}.zarr"
        run(plan(archive.job(url, grid=grid)))
        labels.append(open_result(str(url)).raster["label"].values)
    unlike = {"pixels_unlike_in_another_tiling": float(np.count_nonzero(labels[0] != labels[1]))}
    return ratios(str(folder / "cfar-512.zarr")) | unlike


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
        found = cfar(folder, 1536 if args.quick else 3072)
        figures |= {f"cfar_{key}": value for key, value in found.items()}
        make_sample(folder / "sample")
        for sensor in ("sar",) if args.quick else ("optical", "sar", "infrared"):
            for halo in (64,) if args.quick else (64, 128):
                found = nano(folder, sensor, halo, SMALL if args.quick else BBOX)
                figures |= {f"nano_{sensor}_halo_{halo}_{key}": v for key, v in found.items()}
    report("changes on borders, divided by those inside", figures, args.json)


if __name__ == "__main__":
    main()
