"""Exports a result for other programs: COGs, objects, a QGIS project, a STAC Collection."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyproj

from earthgptx.catalogs.exported import ExportedFile, ExportedSlice, write_collection
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.job.lonlat import bbox
from earthgptx.pipeline.results.cogs import Raster, RowNumbers, classes_of, write_cogs
from earthgptx.pipeline.results.find import labels
from earthgptx.pipeline.results.object_table import OBJECTS
from earthgptx.pipeline.results.qgis import project
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.vectors import MEDIA_TYPES, Format, write_objects

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
QGIS_READS = (Format.FLATGEOBUF, Format.GEOJSON, Format.KML)
"""Formats that the project may show, the fastest first."""
DESCRIPTIONS = {
    "label": "phrase that a pixel belongs to",
    "score": "score of the best phrase, 1 to 255 for 0 to 1",
    "status": "whether a pixel has an answer, and if not, why",
    "object": "row of the object in the files of objects, counted from 1",
}


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
        OutputError: the folder cannot be created or is not empty, or no slice is finished.
    """
    table = find_objects([result])
    if not len(result.slices_in_time):
        raise OutputError(f"{result.url} has no time slice to export")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} is not an empty folder; name a new one")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        rows = RowNumbers(table["object_id"].to_numpy())
        rasters = list(write_cogs(result, unfinished, rows, stack=stack))
        kinds = tuple(dict.fromkeys(formats)) or (Format.FLATGEOBUF, Format.CSV)
        vectors = list(write_objects(table, unfinished, kinds))
        named = labels([result.files_of(result.time_slices, OBJECTS)])
        shown = [unfinished / f"objects.{kind}" for kind in QGIS_READS if kind in kinds]
        document = project(result, rasters, next(iter(shown), None), named)
        (unfinished / "project.qgs").write_bytes(document)
        documents = _collect(result, unfinished, rasters, vectors)
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    written = [*(each.path for each in rasters), *vectors, unfinished / "project.qgs", *documents]
    return [folder / path.relative_to(unfinished) for path in written]


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
    job = result.attrs["job"]
    asked = ", ".join(job["tasks"]["find"]) or "visual prompts"
    return write_collection(
        folder,
        id=job["name"],
        description=f"Result of the job {job['name']}: {asked}",
        ground=result.ground,
        bbox=bbox(result.ground),
        slices=slices,
        files=[*files, qgis],
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
