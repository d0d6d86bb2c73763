"""How good CFAR is: F1 at IoU 0.3 on the sample archive (SAR ships, infrared hot targets) and on
real SAR chips.

One to one matching, the surest first. On the sample, truth that the edge of the imagery cuts is
left out, and so are the detections that lie on it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from scipy import ndimage

from benchmarks.report import arguments, report
from earthgptx import JobSpec, open_result, plan, run
from earthgptx.catalogs.geoparquet import thaw
from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analysis.cfar import RING_PX, Cfar
from earthgptx.pipeline.job.spec import items_beside
from earthgptx.workflows.sample import DATES, make_sample

IOU = 0.3
HRSID = Path(os.environ.get("EARTHGPTX_DATA", "../shared/data")) / "hrsid-mini"


def sample_f1(folder: Path, sensor: str, phrase: str) -> float:
    spec = JobSpec.from_dict(
        {
            "name": sensor,
            "source": {
                "catalog": "sample/catalog.json",
                "collections": [f"sample-{sensor}"],
                "aoi": {"bbox": [5, 42, 7, 44]},
            },
            "tasks": {"find": [phrase]},
            "output": f"{sensor}.zarr",
            "engine": {"replicas": 2},
        },
        folder=folder,
    )
    run(plan(spec), overwrite=True)
    result = open_result(spec.output)
    truth = gpd.read_parquet(folder / "sample" / "truth.parquet")
    truth = truth[truth["class"] == "ship"] if phrase == "ship" else truth[truth["hot"]]
    items = thaw(items_beside(spec.output))
    hits = wrong = missed = 0
    for moment in DATES:
        seen = shapely.union_all(
            [shapely.geometry.shape(item.geometry) for item in items if item.datetime == moment]
        )
        here = truth[truth["time"] == moment]
        whole = here[here.within(seen.buffer(-5e-5))].geometry.to_numpy()
        cut = here[here.intersects(seen) & ~here.within(seen.buffer(-5e-5))].geometry.to_numpy()
        day = moment.replace(hour=0, minute=0)
        found = (
            result.objects[result.objects["slice"] == day]
            .sort_values("score", ascending=False)
            .geometry.to_numpy()
        )
        found = np.array(
            [shape for shape in found if not shapely.intersects(shape, cut).any()], object
        )
        h, w, m = match_polygons(found, whole)
        hits, wrong, missed = hits + h, wrong + w, missed + m
    print(f"sample {sensor}: {hits} hits, {wrong} wrong, {missed} missed")
    return 2 * hits / max(2 * hits + wrong + missed, 1)


def match_polygons(found: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    used: set[int] = set()
    tree = shapely.STRtree(truth)
    for shape in found:
        near = [at for at in tree.query(shape).tolist() if at not in used]
        overlaps = [
            shapely.intersection(shape, truth[at]).area / shapely.union(shape, truth[at]).area
            for at in near
        ]
        if overlaps and max(overlaps) >= IOU:
            used.add(near[int(np.argmax(overlaps))])
    return len(used), len(found) - len(used), len(truth) - len(used)


def hrsid_f1() -> float:
    hits = wrong = missed = 0
    for name in (HRSID / "test.txt").read_text().split():
        stem = Path(name).stem
        h, w, m = _chip(HRSID / "images" / f"{stem}.jpg", HRSID / "masks" / f"{stem}.png")
        hits, wrong, missed = hits + h, wrong + w, missed + m
    print(f"hrsid-mini: {hits} hits, {wrong} wrong, {missed} missed")
    return 2 * hits / (2 * hits + wrong + missed)


def _chip(image: Path, mask: Path) -> tuple[int, int, int]:
    with rasterio.open(image) as raster:
        bands = raster.read()
    with rasterio.open(mask) as raster:
        truth, count = ndimage.label(raster.read().max(axis=0) > 0, structure=np.ones((3, 3)))
    pixels = np.broadcast_to(bands[:1], (3, *bands.shape[1:])) if len(bands) < 3 else bands[:3]
    pad = ((0, 0), (RING_PX, RING_PX), (RING_PX, RING_PX))
    valid = np.pad(np.ones(pixels.shape[1:], bool), pad[1:])
    tile = TileInput(
        pixels=np.pad(pixels, pad),
        valid=valid,
        wanted=valid,
        modality="sar",
        metres_per_pixel=1.0,
        phrases=("ship",),
        prompts=(),
        names=(),
        describe=False,
    )
    traits = Cfar.traits()
    [answer] = Cfar.load().analyse([tile])
    kept = [
        g
        for g in answer.groundings
        if g.score >= traits.min_score and traits.min_area_px <= g.mask.area <= traits.max_area_px
    ]
    truth, right = np.pad(truth, pad[1:]), 0
    used: set[int] = set()
    sizes = np.bincount(truth.ravel(), minlength=count + 1)
    for grounding in sorted(kept, key=lambda g: -g.score):
        inside = grounding.mask.window(0, 0, *truth.shape)
        shared = np.bincount(truth[inside], minlength=count + 1)
        iou = shared / (sizes + inside.sum() - shared)
        iou[[0, *used]] = 0
        if iou.max() >= IOU:
            used.add(int(iou.argmax()))
            right += 1
    return right, len(kept) - right, count - right


def main() -> None:
    args = arguments(__doc__)
    figures: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sample(folder / "sample", scale=1 if args.quick else 2, seed=7)
        figures["sample_sar_f1"] = sample_f1(folder, "sar", "ship")
        figures["sample_infrared_f1"] = sample_f1(folder, "infrared", "hot target")
    figures["hrsid_f1"] = hrsid_f1() if HRSID.exists() else f"skipped: {HRSID} is not there"
    report("quality of CFAR, F1 at IoU 0.3", figures, args.json)


if __name__ == "__main__":
    main()
