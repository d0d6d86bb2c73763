"""Ships in three real harbours that nobody trained on, by a whole job: F1 at IoU 0.3.

The job is `examples/ports.yaml`, Sentinel-2 at 10 m, with the threshold of scores that ships. The
truth are the outlines of sen2ships' list `test`; matching is one to one, the surest first. With
`--out`, a picture of each port: found green, missed yellow, wrong red.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import shapely
from matplotlib.figure import Figure
from pycocotools import mask as coco
from rasterio.warp import transform_geom

from benchmarks.report import parser, report
from earthgptx import JobSpec, open_result, plan, run

REPO = Path(__file__).parents[1]
SHIPS = Path(os.environ.get("EARTHGPTX_DATA", REPO / "../shared/data")).absolute() / "sen2ships"
IOU = 0.3
PORTS = ("busan", "cartagena", "hedland")
MARGIN_PX = 6
"""Distance of a drawn box from its ship."""
FOUND, MISSED, WRONG = "#06d6a0", "#ffd166", "#ef476f"


def truth(port: str) -> list[shapely.Geometry]:
    """Outlines of the ships of a port, lon/lat."""
    document = json.loads((SHIPS / "test.json").read_text())
    [image] = [each for each in document["images"] if each["file_name"] == f"{port}.tif"]
    outlines = []
    with rasterio.open(SHIPS / "images" / image["file_name"]) as file:
        for each in document["annotations"]:
            if each["image_id"] != image["id"]:
                continue
            runs = coco.frPyObjects(each["segmentation"], image["height"], image["width"])
            inside = coco.decode(runs).astype(np.uint8)
            pieces = rasterio.features.shapes(inside, inside > 0, transform=file.transform)
            parts = [transform_geom(file.crs, "OGC:CRS84", piece) for piece, _ in pieces]
            outlines.append(shapely.union_all([shapely.geometry.shape(part) for part in parts]))
    return outlines


def matched(found: list[shapely.Geometry], there: list[shapely.Geometry]) -> dict[int, int]:
    """Ship by detection; detections come the surest first."""
    pairs: dict[int, int] = {}
    for at, shape in enumerate(found):
        fits = [
            0.0
            if number in pairs.values()
            else shape.intersection(ship).area / shape.union(ship).area
            for number, ship in enumerate(there)
        ]
        if fits and max(fits) >= IOU:
            pairs[at] = int(np.argmax(fits))
    return pairs


def draw(
    port: str,
    found: list[shapely.Geometry],
    there: list[shapely.Geometry],
    pairs: dict[int, int],
    png: Path,
) -> None:
    """Draws a port with what was found, missed, and found wrongly."""
    missed = [each for at, each in enumerate(there) if at not in pairs.values()]
    with rasterio.open(SHIPS / "images" / f"{port}.tif") as file:
        pixels, inverse, crs = np.moveaxis(file.read(), 0, -1), ~file.transform, file.crs
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.clip(pixels * 1.6, 0, 255).astype(np.uint8))
    axes.axis("off")
    groups = (
        (MISSED, missed),
        (WRONG, [each for at, each in enumerate(found) if at not in pairs]),
        (FOUND, [found[at] for at in pairs]),
    )
    for colour, shapes in groups:
        for shape in shapes:
            west, south, east, north = shape.bounds
            corners = transform_geom(
                "OGC:CRS84", crs, shapely.geometry.mapping(shapely.box(west, south, east, north))
            )
            points = np.array([inverse @ each for each in corners["coordinates"][0]])
            x0, y0 = points.min(axis=0) - MARGIN_PX
            x1, y1 = points.max(axis=0) + MARGIN_PX
            axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, lw=1.2)
    axes.set_title(
        f"{port}: {len(pairs)} of {len(there)} ships found, {len(found) - len(pairs)} wrong",
        fontsize=9,
    )
    figure.savefig(png)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="nano", help="model that the job uses")
    arguments.add_argument("--out", type=Path, help="folder for the result and the pictures")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.out or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        figures = measured(args.model, folder, pictures=args.out is not None)
    report("ships in three harbours", figures, args.json)


def measured(model: str, folder: Path, *, pictures: bool) -> dict[str, Any]:
    """Runs the job, leaves its result in the folder and returns the figures."""
    document = JobSpec.from_yaml(REPO / "examples/ports.yaml").model_dump(mode="json")
    document["source"]["catalog"] = str(SHIPS / "stac/catalog.json")
    document["source"]["access"]["folders"] = [str(SHIPS / "images")]
    document |= {"output": str(folder / "ports.zarr"), "model": model}
    spec = JobSpec.model_validate(document)
    run(plan(spec), overwrite=True)
    result = open_result(spec.output)
    figures: dict[str, Any] = {}
    hits = ships = detections = 0
    for port in PORTS:
        there = truth(port)
        with rasterio.open(SHIPS / "images" / f"{port}.tif") as file:
            ground = transform_geom(
                file.crs, "OGC:CRS84", shapely.geometry.mapping(shapely.box(*file.bounds))
            )
        here = result.query(within=shapely.geometry.shape(ground), order="-score")
        found = list(here.geometry)
        pairs = matched(found, there)
        hits, ships, detections = hits + len(pairs), ships + len(there), detections + len(found)
        figures |= {f"{port}_ships": len(there), f"{port}_found": len(pairs)}
        figures[f"{port}_wrong"] = len(found) - len(pairs)
        if pictures:
            draw(port, found, there, pairs, folder / f"{port}.png")
    figures["precision"] = hits / max(detections, 1)
    figures["recall"] = hits / ships
    figures["f1"] = 2 * hits / max(detections + ships, 1)
    return figures


if __name__ == "__main__":
    main()
