"""Writes a commented job file and the archive that it needs, for `earthgptx init`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from string import Template

import numpy as np
import pystac
import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform_geom

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.sample import make_sample

PREVIEW_PX = 512
"""Longer side of the reduced image from which the range of values is estimated, pixels."""
PERCENTILES = (2, 98)
"""Percentiles of the values that become 0 and 255, for images that are not 8 bit."""
COLLECTION = "drone"
TEMPLATES = Path(__file__).parent / "job_templates"


def write_job(
    job: Path,
    origin: str,
    *,
    image: Path | None = None,
    on_scene: Callable[[int, int], None] = lambda *_: None,
) -> list[Path]:
    """Writes a job file and, in the same folder, the archive that it needs.

    Args:
        job: path of the job file, which must not exist.
        origin: `sample`, `stac-api` or `drone`.
        image: georeferenced GeoTIFF; required for `drone`, not allowed otherwise.
        on_scene: called with the numbers of rendered and of all scenes of the sample archive.

    Returns:
        Paths written, the job file last.

    Raises:
        JobError: the file exists or cannot be written, or the image is missing, cannot be used, or
            is given for another origin.
    """
    if job.exists():
        raise JobError(f"{job} exists already; choose another name, or remove it first")
    if (origin == "drone") != (image is not None):
        raise JobError("--from drone goes with --image FILE.tif, and --image with --from drone")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", job.stem).strip("._-")[:100] or "job"
    written: list[Path] = []
    try:
        job.absolute().parent.mkdir(parents=True, exist_ok=True)
        if image is not None:
            text, catalog = _drone_job(name, job, image)
            written.append(catalog)
        else:
            text = _template(origin).substitute(name=name)
        if origin == "sample":
            folder = job.parent / "sample"
            if not (folder / "truth.parquet").exists():
                written.append(make_sample(folder, on_scene=on_scene))
        job.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"{error.filename or job} cannot be written: {error.strerror}") from error
    return [*written, job]


def _template(origin: str) -> Template:
    """The commented job file of an origin, with `${...}` where it varies."""
    return Template((TEMPLATES / f"{origin}.yaml").read_text(encoding="utf-8"))


def _drone_job(name: str, job: Path, image: Path) -> tuple[str, Path]:
    """Writes the catalog of an image; returns the text of a job over it, and the catalog's path."""
    try:
        with rasterio.open(image, driver="GTiff") as raster:
            if raster.crs is None:
                raise JobError(f"{image} has no CRS; give an image that is georeferenced")
            item = _item(image, raster)
            bands = _bands(raster)
    except RasterioError as error:
        raise JobError(f"{image} cannot be read as a GeoTIFF: {error}") from error
    catalog = pystac.Catalog(f"{name}-catalog", f"Made from {image.name} by earthgptx init")
    extent = pystac.Extent(
        pystac.SpatialExtent([item.bbox or []]), pystac.TemporalExtent([[item.datetime, None]])
    )
    collection = pystac.Collection(COLLECTION, "One image", extent)
    collection.add_item(item)
    catalog.add_child(collection)
    folder = job.absolute().parent / f"{name}-catalog"
    catalog.normalize_hrefs(str(folder))
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    bbox = ", ".join(f"{edge:.6f}" for edge in item.bbox or ())
    text = _template("drone").substitute(
        name=name,
        image=image.name,
        collection=COLLECTION,
        folder=json.dumps(str(image.absolute().parent)),
        bbox=bbox,
        bands=bands,
    )
    return text, folder / "catalog.json"


def _item(image: Path, raster: DatasetReader) -> pystac.Item:
    """Returns the STAC Item of an image.

    Its time is the file's modification time, since headers seldom hold one.
    """
    corners = shapely.geometry.mapping(shapely.box(*raster.bounds))
    footprint = shapely.geometry.shape(transform_geom(raster.crs, "OGC:CRS84", corners))
    moment = datetime.fromtimestamp(image.stat().st_mtime, UTC).replace(microsecond=0)
    bbox = list(footprint.bounds)
    item = pystac.Item(image.stem, shapely.geometry.mapping(footprint), bbox, moment, {})
    code = raster.crs.to_epsg()
    fields = {
        "proj:code" if code else "proj:wkt2": f"EPSG:{code}" if code else raster.crs.to_wkt(),
        "proj:shape": list(raster.shape),
        "proj:transform": list(raster.transform)[:6],
    }
    asset = pystac.Asset(
        str(image.absolute()),
        media_type=pystac.MediaType.GEOTIFF,
        roles=["data"],
        extra_fields=fields,
    )
    item.add_asset("image", asset)
    return item


def _bands(raster: DatasetReader) -> str:
    """Returns the lines of the profile: three bands, or the first one three times, with ranges."""
    indexes = [1, 2, 3] if raster.count >= 3 else [1, 1, 1]
    low, high = (0.0, 255.0) if raster.dtypes[0] == "uint8" else _range(raster, indexes)
    lines = (
        f"        - {{asset: image, index: {index}, low: {low:g}, high: {high:g}}}"
        for index in indexes
    )
    return "\n".join(lines)


def _range(raster: DatasetReader, indexes: list[int]) -> tuple[float, float]:
    """Returns `PERCENTILES` of the valid values of a reduced image."""
    step = max(max(raster.shape) / PREVIEW_PX, 1)
    shape = (len(indexes), *(max(int(side / step), 1) for side in raster.shape))
    values = raster.read(indexes, out_shape=shape, masked=True).compressed()
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))
