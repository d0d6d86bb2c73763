"""Exports a result for other programs: COGs, objects, a QGIS project, a STAC Collection."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pyproj
from pyogrio.errors import DataSourceError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from earthgptx.catalogs.exported import ExportedFile, ExportedSlice, write_collection
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.job.lonlat import bbox
from earthgptx.pipeline.results.cogs import Raster, RowNumbers, classes_of, write_cogs
from earthgptx.pipeline.results.find import labels
from earthgptx.pipeline.results.object_table import OBJECTS
from earthgptx.pipeline.results.qgis import project
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.vectors import MEDIA_TYPES, Format, write_objects
from earthgptx.pipeline.storage.blobs import plain

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
QGIS_READS = (Format.FLATGEOBUF, Format.GEOJSON)
"""Formats of which the project shows one, the fastest first."""
DESCRIPTIONS = {
    "label": "phrase that a pixel belongs to",
    "score": "score of the best phrase, 1 to 255 for 0 to 1",
    "status": "whether a pixel has an answer, and if not, why",
    "object": "row of the object in the files of objects, counted from 1",
}


def local_folder(text: str) -> Path:
    """Returns a folder on a disk.

    Raises:
        JobError: it is empty, or an address of another kind.
    """
    if not text or "://" in text:
        raise JobError(f"'{text}' is no folder on a disk; export to one and copy it from there")
    return Path(text).absolute()


def export(
    result: Result, folder: Path, *, stack: bool = False, formats: Sequence[Format] = ()
) -> list[Path]:
    """Writes a finished result into a new folder, or nothing.

    No GIS keeps 63-bit object ids: the layer `object` holds the column `row` of the files of
    objects, which have the ids.

    Args:
        result: a finished result.
        folder: folder that does not exist, or is empty.
        stack: whether a COG holds all time slices of a layer as bands; otherwise one is written
            for each slice.
        formats: formats of the objects; empty for FlatGeobuf and CSV.

    Returns:
        Paths of the written files.

    Raises:
        OutputError: the folder cannot be written, is not empty, or lies in the result; or no slice
            is finished.
    """
    folder = folder.absolute()
    if not len(result.slices_in_time):
        raise OutputError(f"{result.url} has no time slice to export")
    if "://" not in result.url and folder.is_relative_to(Path(plain(result.url)).absolute()):
        raise OutputError(f"{folder} lies in the result itself; name a folder beside it")
    # With a name of its own: nobody else's folder is touched.
    unfinished = folder.parent / f".{folder.name}-{uuid4().hex[:12]}"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} is not an empty folder; name a new one")
        unfinished.mkdir(parents=True)
        written = _write_all(result, unfinished, stack=stack, formats=formats)
        if folder.exists():
            for path in sorted(unfinished.iterdir()):
                path.rename(folder / path.name)
        else:
            unfinished.rename(folder)
    except (OSError, RasterioError, CPLE_BaseError, DataSourceError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputError(f"{folder} cannot be written: {reason}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [folder / path.relative_to(unfinished) for path in written]


def _write_all(
    result: Result, folder: Path, *, stack: bool, formats: Sequence[Format]
) -> list[Path]:
    """Writes all files into an empty folder."""
    table = find_objects([result])
    rows = RowNumbers(table["object_id"].to_numpy())
    rasters = list(write_cogs(result, folder, rows, stack=stack))
    kinds = tuple(dict.fromkeys(formats)) or (Format.FLATGEOBUF, Format.CSV)
    vectors = list(write_objects(table, folder, kinds))
    shown = [folder / f"objects.{kind}" for kind in QGIS_READS if kind in kinds]
    named = labels([result.files_of(result.time_slices, OBJECTS)])
    document = project(result, rasters, next(iter(shown), None), named)
    (folder / "project.qgs").write_bytes(document)
    documents = _collect(result, folder, rasters, vectors)
    written = [path for each in rasters for path in (each.path, each.coloured) if path]
    return [*written, *vectors, folder / "project.qgs", *documents]


def _collect(
    result: Result, folder: Path, rasters: Sequence[Raster], vectors: Sequence[Path]
) -> list[Path]:
    """Writes the STAC documents."""
    by_slice: dict[str, list[ExportedFile]] = defaultdict(list)
    for raster in rasters:
        file = _raster_file(result, raster)
        for name in raster.slices:
            by_slice[name].append(file)
    slices = [
        ExportedSlice(
            id=row.name.replace(":", ""),
            start=row.start,
            end=row.end,
            files=by_slice[row.name],
            properties={"title": row.name, "earthgptx:objects": row.objects},
        )
        for row in result.slices_in_time
    ]
    files = [
        ExportedFile(
            name=path.name,
            key=f"objects-{path.suffix[1:]}",
            media_type=MEDIA_TYPES[Format(path.suffix[1:])],
            description="objects of all time slices",
        )
        for path in vectors
    ]
    qgis = ExportedFile(
        name="project.qgs",
        key="qgis",
        media_type="application/xml",
        description="QGIS project over these files",
        roles=("visual",),
    )
    vrts = [
        ExportedFile(
            name=raster.coloured.name,
            key=f"{raster.layer}-{raster.zone}-coloured".replace("--", "-"),
            media_type="application/xml",
            description=f"{DESCRIPTIONS[raster.layer]}, with colours",
            roles=("visual",),
        )
        for raster in rasters
        if raster.coloured is not None
    ]
    job = result.attrs["job"]
    tasks = [task for task in ("refer", "describe", "ask") if job["tasks"][task]]
    asked = ", ".join(job["tasks"]["find"]) or ", ".join(tasks)
    return write_collection(
        folder,
        id=job["name"],
        description=f"Result of the job {job['name']}: {asked}",
        ground=result.ground,
        bbox=bbox(result.ground),
        slices=slices,
        files=[*files, *vrts, qgis],
    )


def _raster_file(result: Result, raster: Raster) -> ExportedFile:
    crs = pyproj.CRS.from_wkt(raster.crs)
    code = crs.to_epsg()
    return ExportedFile(
        name=raster.path.name,
        key=f"{raster.layer}-{raster.zone}".strip("-"),
        media_type=COG,
        description=DESCRIPTIONS[raster.layer],
        bands=raster.slices,
        crs=f"EPSG:{code}" if code else None,
        wkt=crs.to_wkt(),
        shape=raster.shape,
        transform=tuple(raster.transform)[:6],
        classes=classes_of(result, raster.layer) or None,
        data_type="uint32" if raster.layer == "object" else "uint8",
    )
