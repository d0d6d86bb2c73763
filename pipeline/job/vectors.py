"""Reads AOIs and vector files of visual prompts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import LONLAT, bbox_area
from earthgptx.pipeline.job.sections import BboxAoi, WktAoi

if TYPE_CHECKING:
    import geopandas as gpd

SUFFIXES = {
    ".geojson": None,
    ".json": None,
    ".geojsonl": None,
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\0\0\x27\x0a",
    ".parquet": b"PAR1",
    ".geoparquet": b"PAR1",
}
"""First bytes by the suffix of a vector file; None for JSON, which is parsed here.

pyogrio takes no driver by name. GDAL looks into a file for the driver, and a virtual layer, a text
in XML, names any other file, whatever its own name: it has none of these first bytes.
"""
MOST_BYTES = 2**28
"""Bytes of a GeoJSON file that are read."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Visual prompts from a file, lon/lat."""

    shapes: tuple[tuple[str, BaseGeometry], ...]
    """Id and geometry of each prompt."""
    refused: dict[str, str]
    """Reason by id of each prompt that cannot be asked."""
    digest: str
    """SHA-256 of the ids and geometries in `shapes`."""


def read_aoi(aoi: str | BboxAoi | WktAoi) -> BaseGeometry:
    """Returns the AOI as one lon/lat (multi)polygon.

    Args:
        aoi: path or URL of a vector file, bounds, or WKT.

    Raises:
        JobError: the AOI cannot be read, has no area, or is not in lon/lat.
    """
    if isinstance(aoi, BboxAoi):
        return bbox_area(*aoi.bbox)
    if isinstance(aoi, WktAoi):
        try:
            area = shapely.from_wkt(aoi.wkt)
        except shapely.GEOSException as error:
            raise JobError(f"source.aoi.wkt is no WKT: {error}") from error
        where = "source.aoi.wkt"
    else:
        frame = read_vector(aoi, "source.aoi")
        area = shapely.union_all(shapely.make_valid(frame.to_crs(LONLAT).geometry.values))
        where = f"source.aoi {aoi}"
    area = shapely.make_valid(area)
    if area.geom_type == "GeometryCollection":
        area = shapely.union_all(
            [part for part in area.geoms if part.geom_type.endswith("Polygon")]
        )
    if area.is_empty or not area.geom_type.endswith("Polygon"):
        raise JobError(f"{where} holds no area ({area.geom_type}); give polygons in lon/lat")
    west, south, east, north = area.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise JobError(
            f"{where} is not in lon/lat: its bounds are {[round(v, 3) for v in area.bounds]}"
        )
    return area


def read_prompts(path: str, aoi: BaseGeometry) -> PromptFile:
    """Reads prompts from a vector file: points, boxes (rectangles), polygons, or lines as strokes.

    Ids come from the column `id` if none is blank and each is unique, else from the row number.

    Args:
        path: path or URL of the vector file.
        aoi: area of interest, lon/lat.

    Raises:
        JobError: the file cannot be read or has no CRS, or none of its prompts can be asked.
    """
    frame = read_vector(path, "prompts.from")
    ids = [str(value) for value in frame["id"]] if "id" in frame else []
    if len({each for each in ids if each.strip()}) != len(frame):
        ids = [f"row-{number}" for number in range(len(frame))]
    shapes: list[tuple[str, BaseGeometry]] = []
    refused: dict[str, str] = {}
    for name, shape in zip(ids, frame.to_crs(LONLAT).geometry, strict=True):
        if shape is None or shape.is_empty:
            refused[name] = "empty geometry"
        elif (
            not shape.is_valid
            and shapely.make_valid(shape).area == 0
            and shape.geom_type.endswith("Polygon")
        ):
            refused[name] = f"invalid geometry: {shapely.is_valid_reason(shape)}"
        elif not aoi.covers(middle := shapely.make_valid(shape).envelope.centroid):
            refused[name] = (
                f"outside the AOI: its centre is at lon {middle.x:.5f}, lat {middle.y:.5f}"
            )
        else:
            shapes.append((name, shapely.make_valid(shape)))
    if not shapes:
        name, reason = next(iter(refused.items()), ("file", "it is empty"))
        raise JobError(
            f"prompts.from {path}: none of {len(frame)} prompts can be asked; "
            f"the first, {name}: {reason}"
        )
    digest = hashlib.sha256()
    for name, shape in shapes:
        digest.update(name.encode() + b"\0" + shapely.to_wkb(shape))
    return PromptFile(tuple(shapes), refused, digest.hexdigest())


def read_vector(path: str, where: str) -> gpd.GeoDataFrame:
    """Reads a vector file with a CRS.

    Args:
        path: path or URL; its suffix says the format.
        where: key of the job file or the like, for messages.

    Raises:
        JobError: it cannot be read, is not what its suffix says, or has no geometries or no CRS.
    """
    import geopandas as gpd

    suffix = PurePath(redacted(path)).suffix.lower()
    if suffix not in SUFFIXES:
        raise JobError(
            f"{where}: {path} has none of the suffixes {', '.join(SUFFIXES)}; convert it"
        )
    start = SUFFIXES[suffix]
    try:
        with fsspec.open(path, "rb") as file:
            if start is None:
                content = file.read(MOST_BYTES + 1)
                if len(content) > MOST_BYTES:
                    raise JobError(
                        f"{where}: {path} is larger than {MOST_BYTES / 2**20:.0f} MiB; "
                        "write it as GeoPackage or GeoParquet"
                    )
                frame = _from_json(content, lines=suffix == ".geojsonl")
            elif file.read(len(start)) != start:
                raise JobError(f"{where}: {path} is not what its suffix {suffix} says")
            elif start == b"PAR1":
                file.seek(0)
                frame = gpd.read_parquet(file)
            elif "://" in path:
                file.seek(0)
                frame = gpd.read_file(file)
            else:
                frame = gpd.read_file(path)
    except JobError:
        raise
    except Exception as error:  # pyogrio, pyarrow and fsspec have no common error type
        reason = " ".join(str(error).split())
        raise JobError(f"{where}: cannot read {path} as a vector file ({reason})") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise JobError(f"{where}: {path} has no geometries")
    if frame.crs is None:
        raise JobError(
            f"{where}: {path} does not say its CRS; "
            "write it again with one (or as GeoJSON in lon/lat)"
        )
    if not np.isfinite(shapely.get_coordinates(frame.geometry.values)).all():
        raise JobError(f"{where}: {path} has coordinates that are no numbers; mend the file")
    return frame


def _from_json(content: bytes, *, lines: bool) -> gpd.GeoDataFrame:
    """Reads GeoJSON, in lon/lat unless the member `crs` of older files says otherwise.

    Raises:
        ValueError: it is no GeoJSON.
    """
    import geopandas as gpd

    if lines:
        documents = [json.loads(line) for line in content.splitlines() if line.strip()]
    else:
        documents = [json.loads(content)]
    features = [each for document in documents for each in _features(document)]
    crs = _declared_crs(documents[0]) if documents else LONLAT
    geometries = [each["geometry"] for each in features]
    shapes = [shapely.geometry.shape(each) if each else None for each in geometries]
    properties = [each["properties"] for each in features]
    return gpd.GeoDataFrame(properties, geometry=shapes, crs=crs)


def _features(document: Any) -> list[dict[str, Any]]:
    """Returns geometry and properties of each feature; the id is a text among the properties."""
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        raise ValueError("it is no GeoJSON: it has no type")
    if document["type"] == "FeatureCollection":
        listed = document.get("features")
        if not isinstance(listed, list):
            raise ValueError("it is no GeoJSON: its features are no list")
        return [found for each in listed for found in _features(each)]
    if document["type"] != "Feature":
        return [{"geometry": document, "properties": {}}]
    given = document.get("properties") or {}
    properties = {name: value for name, value in given.items() if name != "geometry"}
    name = properties.get("id", document.get("id"))
    if name is not None:
        properties["id"] = str(name)
    return [{"geometry": document.get("geometry"), "properties": properties}]


def _declared_crs(document: dict[str, Any]) -> str:
    """Returns the CRS of a document; files before RFC 7946 may declare one."""
    declared = document.get("crs")
    if declared is None:
        return LONLAT
    if isinstance(declared, dict):
        properties = declared.get("properties") or {}
        code = properties.get("code")
        declared = f"EPSG:{code}" if code is not None else properties.get("name")
    if not isinstance(declared, str):
        raise ValueError("its member crs names no CRS; write it again in lon/lat, without crs")
    return declared
