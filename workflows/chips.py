"""Cuts a georeferenced raster and polygons over it into annotated chips in COCO format.

Training and evaluation read the chips.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window, bounds

from earthgptx.model.interface.errors import DataError
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.vectors import read_vector

DRIVERS = {
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".jp2": "JP2OpenJPEG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
}
"""Driver by a raster's suffix; GDAL would look into the file, which may name any other one."""


def cut_chips(
    raster: str,
    labels: str,
    folder: Path,
    *,
    word: str,
    px: int = 512,
    column: str = "",
    split: str = "train",
) -> tuple[int, int]:
    """Writes `images/` and `SPLIT.json`.

    Chips without data are left out; chips without objects are kept.

    Args:
        raster: 8 bit raster with one band or at least three, a GeoTIFF, JPEG 2000, JPEG or PNG.
        labels: polygons in any CRS, as GeoJSON, GeoPackage, GeoParquet or Shapefile.
        folder: output folder; created if it is missing.
        word: label of all objects; used if `column` is empty.
        px: side of a chip, pixels; chips are black beyond the raster's edge.
        column: column of the labels that holds each object's label; empty for `word`.
        split: name of the JSON file, without suffix.

    Returns:
        Numbers of chips and of objects written.

    Raises:
        DataError: a file cannot be read, the raster is not 8 bit or has no CRS, the column is
            missing, or no object lies on the raster.
    """
    frame = _read_labels(labels, column)
    driver = DRIVERS.get(Path(raster).suffix.lower())
    if driver is None:
        raise DataError(f"{raster} has none of the suffixes {', '.join(DRIVERS)}; convert it")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    try:
        with rasterio.open(raster, driver=driver) as source:
            if source.dtypes[0] != "uint8" or source.crs is None:
                placed = "" if source.crs else " without a CRS"
                raise DataError(
                    f"{raster} is {source.dtypes[0]}{placed}; give 8 bit pixels with a place"
                )
            frame = frame.to_crs(source.crs)
            names = frame[column].astype(str).tolist() if column else [word] * len(frame)
            document = _cut(source, Path(raster).stem, frame, names, folder / "images", px)
    except RasterioError as error:
        raise DataError(f"{raster} cannot be read: {error}") from error
    if not document["annotations"]:
        raise DataError(f"no object of {labels} lies on {raster}; check both CRS")
    (folder / f"{split}.json").write_text(json.dumps(document))
    return len(document["images"]), len(document["annotations"])


def _read_labels(labels: str, column: str) -> gpd.GeoDataFrame:
    try:
        frame = read_vector(labels, "labels")
    except JobError as error:
        raise DataError(str(error)) from error
    if column and column not in frame:
        columns = ", ".join(map(str, frame.columns))
        raise DataError(f"{labels} has no column '{column}'; it has {columns}")
    return frame


def _cut(
    source: DatasetReader,
    stem: str,
    frame: gpd.GeoDataFrame,
    names: list[str],
    folder: Path,
    px: int,
) -> dict[str, list[dict[str, object]]]:
    """Writes the chips of a raster, and returns the COCO document of their objects."""
    words = sorted(set(names))
    document: dict[str, list[dict[str, object]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": at, "name": name} for at, name in enumerate(words, start=1)],
    }
    to_pixels = ~source.transform
    affine = [to_pixels.a, to_pixels.b, to_pixels.d, to_pixels.e, to_pixels.c, to_pixels.f]
    tree = shapely.STRtree(frame.geometry.values)
    bands = [1, 2, 3] if source.count >= 3 else [1, 1, 1]
    for row, col in product(range(0, source.height, px), range(0, source.width, px)):
        window = Window(col, row, px, px)
        pixels = source.read(bands, window=window, boundless=True, fill_value=0)
        if not pixels.any():
            continue
        number, name = len(document["images"]), f"{stem}-{row}-{col}.png"
        Image.fromarray(np.moveaxis(pixels, 0, -1)).save(folder / name)
        document["images"].append({"id": number, "file_name": name, "width": px, "height": px})
        chip = shapely.box(col, row, col + px, row + px)
        for at in tree.query(shapely.box(*bounds(window, source.transform))):
            shape = shapely.affinity.affine_transform(frame.geometry.iloc[at], affine)
            inside = shapely.intersection(shape, chip)
            _annotate(document, inside, number, words.index(names[at]) + 1, (col, row))
    return document


def _annotate(
    document: dict[str, list[dict[str, object]]],
    shape: shapely.Geometry,
    image: int,
    category: int,
    corner: tuple[int, int],
) -> None:
    polygons = [
        part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area >= 1
    ]
    if not polygons:
        return
    moved = [np.array(part.exterior.coords)[:-1] - corner for part in polygons]
    points = np.concatenate(moved)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    document["annotations"].append(
        {
            "id": len(document["annotations"]) + 1,
            "image_id": image,
            "category_id": category,
            "iscrowd": 0,
            "bbox": [round(float(v), 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": round(sum(p.area for p in polygons), 2),
            "segmentation": [ring.round(2).ravel().tolist() for ring in moved],
        }
    )
