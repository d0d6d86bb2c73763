"""A georeferenced raster and outlines over it, cut into annotated chips in COCO's form: what training reads."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.windows import Window, bounds

from model.errors import DataError


def cut_chips(
    raster: str, labels: str, folder: Path, *, word: str, px: int = 512, column: str = "", split: str = "train"
) -> tuple[int, int]:
    """Write `images/` and `SPLIT.json`; chips that hold no data are left out, those without objects are kept.

    Args:
        raster: three bands or one, 8 bit; anything that rasterio opens.
        labels: polygons; anything that geopandas opens, in any CRS.
        folder: created where it is missing.
        word: what the objects are called, where no column says it.
        px: side of a chip; those at the raster's end are black beyond it.
        column: of the labels, that says what an object is called; empty for `word`.
        split: name of the JSON file.

    Returns:
        Chips and objects written.

    Raises:
        DataError: one of the two cannot be read, or they do not meet.
    """
    try:
        frame = gpd.read_file(labels)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{labels} cannot be read as a vector file: {error}") from error
    if column and column not in frame:
        raise DataError(f"{labels} has no column '{column}'; it has {', '.join(map(str, frame.columns))}")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    document: dict[str, list[dict[str, object]]] = {"images": [], "annotations": [], "categories": []}
    try:
        with rasterio.open(raster) as source:
            if source.dtypes[0] != "uint8" or source.crs is None:
                raise DataError(
                    f"{raster} is {source.dtypes[0]}{'' if source.crs else ' without a CRS'}; give 8 bit pixels with a place"
                )
            frame = frame.to_crs(source.crs)
            names = frame[column].astype(str).tolist() if column else [word] * len(frame)
            words = sorted(set(names))
            document["categories"] = [{"id": at, "name": name} for at, name in enumerate(words, start=1)]
            to_pixels = ~source.transform
            affine = [to_pixels.a, to_pixels.b, to_pixels.d, to_pixels.e, to_pixels.c, to_pixels.f]
            tree = shapely.STRtree(frame.geometry.values)
            for row in range(0, source.height, px):
                for col in range(0, source.width, px):
                    window = Window(col, row, px, px)
                    bands = [1, 2, 3] if source.count >= 3 else [1, 1, 1]
                    pixels = source.read(bands, window=window, boundless=True, fill_value=0)
                    if not pixels.any():
                        continue
                    number, name = len(document["images"]), f"{Path(raster).stem}-{row}-{col}.png"
                    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(folder / "images" / name)
                    document["images"].append({"id": number, "file_name": name, "width": px, "height": px})
                    for at in tree.query(shapely.box(*bounds(window, source.transform))):
                        shape = shapely.affinity.affine_transform(frame.geometry.iloc[at], affine)
                        inside = shapely.intersection(shape, shapely.box(col, row, col + px, row + px))
                        _annotate(document, inside, number, words.index(names[at]) + 1, (col, row))
    except RasterioError as error:
        raise DataError(f"{raster} cannot be read: {error}") from error
    if not document["annotations"]:
        raise DataError(f"no object of {labels} lies on {raster}; check both CRS")
    (folder / f"{split}.json").write_text(json.dumps(document))
    return len(document["images"]), len(document["annotations"])


def _annotate(
    document: dict[str, list[dict[str, object]]], shape: shapely.Geometry, image: int, category: int, corner: tuple[int, int]
) -> None:  # fmt: skip
    polygons = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area >= 1]
    if not polygons:
        return
    moved = [np.array(part.exterior.coords)[:-1] - corner for part in polygons]
    points = np.concatenate(moved)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    document["annotations"].append({
        "id": len(document["annotations"]) + 1, "image_id": image, "category_id": category, "iscrowd": 0,
        "bbox": [round(float(v), 2) for v in (x0, y0, x1 - x0, y1 - y0)], "area": round(sum(p.area for p in polygons), 2),
        "segmentation": [ring.round(2).ravel().tolist() for ring in moved],
    })  # fmt: skip
