"""Vector files that users bring: AOIs and visual prompts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fsspec
import shapely
from shapely.geometry.base import BaseGeometry

from pipeline.errors import JobError
from pipeline.job import BboxAoi, WktAoi

if TYPE_CHECKING:
    import geopandas as gpd

LONLAT = "OGC:CRS84"


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Visual prompts from a file, lon/lat."""

    shapes: tuple[tuple[str, BaseGeometry], ...]
    """Id and geometry of each prompt."""
    refused: dict[str, str]
    """Id and reason of those that cannot be asked."""
    digest: str
    """Of all of them."""


def read_aoi(aoi: str | BboxAoi | WktAoi) -> BaseGeometry:
    """The AOI as one lon/lat (multi)polygon.

    Raises:
        JobError: it cannot be read, is empty, or is no area.
    """
    if isinstance(aoi, BboxAoi):
        return shapely.box(*aoi.bbox)
    if isinstance(aoi, WktAoi):
        try:
            area = shapely.from_wkt(aoi.wkt)
        except shapely.GEOSException as error:
            raise JobError(f"source.aoi.wkt is no WKT: {error}") from error
        where = "source.aoi.wkt"
    else:
        frame = _read(aoi, "source.aoi")
        area = shapely.union_all(shapely.make_valid(frame.to_crs(LONLAT).geometry.values))
        where = f"source.aoi {aoi}"
    area = shapely.make_valid(area)
    if area.geom_type == "GeometryCollection":
        area = shapely.union_all([part for part in area.geoms if part.geom_type.endswith("Polygon")])
    if area.is_empty or not area.geom_type.endswith("Polygon"):
        raise JobError(f"{where} holds no area ({area.geom_type}); give polygons in lon/lat")
    west, south, east, north = area.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise JobError(f"{where} is not in lon/lat: its bounds are {[round(v, 3) for v in area.bounds]}")
    return area


def read_prompts(path: str, aoi: BaseGeometry) -> PromptFile:
    """Prompts from a vector file: points, boxes (rectangles), polygons, or lines as strokes.

    Ids come from a column `id` where there is one and it is unique, else from the row.

    Raises:
        JobError: the file cannot be read or has no CRS, or no prompt of it lies in the AOI.
    """
    frame = _read(path, "prompts.from")
    ids = [str(value) for value in frame["id"]] if "id" in frame else []
    if len(set(ids)) != len(frame):
        ids = [f"row-{number}" for number in range(len(frame))]
    shapes: list[tuple[str, BaseGeometry]] = []
    refused: dict[str, str] = {}
    for name, shape in zip(ids, frame.to_crs(LONLAT).geometry, strict=True):
        if shape is None or shape.is_empty:
            refused[name] = "empty geometry"
        elif not shape.is_valid and shapely.make_valid(shape).area == 0 and shape.geom_type.endswith("Polygon"):
            refused[name] = f"invalid geometry: {shapely.is_valid_reason(shape)}"
        elif not aoi.covers(middle := shapely.make_valid(shape).envelope.centroid):
            refused[name] = f"outside the AOI: its centre is at lon {middle.x:.5f}, lat {middle.y:.5f}"
        else:
            shapes.append((name, shapely.make_valid(shape)))
    if not shapes:
        name, reason = next(iter(refused.items()), ("file", "it is empty"))
        raise JobError(f"prompts.from {path}: none of {len(frame)} prompts can be asked; the first, {name}: {reason}")
    digest = hashlib.sha256()
    for name, shape in shapes:
        digest.update(name.encode() + b"\0" + shapely.to_wkb(shape))
    return PromptFile(tuple(shapes), refused, digest.hexdigest())


def _read(path: str, where: str) -> gpd.GeoDataFrame:
    import geopandas as gpd

    try:
        if path.endswith((".parquet", ".geoparquet")):
            with fsspec.open(path, "rb") as file:
                frame = gpd.read_parquet(file)
        elif "://" in path:
            with fsspec.open(path, "rb") as file:
                frame = gpd.read_file(file)
        else:
            frame = gpd.read_file(path)
    except Exception as error:  # pyogrio, pyarrow and fsspec raise anything
        reason = " ".join(str(error).split())
        raise JobError(f"{where}: cannot read {path} as a vector file ({reason})") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise JobError(f"{where}: {path} has no geometries")
    if frame.crs is None:
        raise JobError(f"{where}: {path} does not say its CRS; write it again with one (or as GeoJSON in lon/lat)")
    return frame
