"""Reads AOIs and vector files of visual prompts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fsspec
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.lonlat import cut
from earthgptx.pipeline.job.spec import BboxAoi, WktAoi

if TYPE_CHECKING:
    import geopandas as gpd

LONLAT = "OGC:CRS84"


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
        west, south, east, north = aoi.bbox
        return cut(shapely.box(west, south, east + 360 * (east < west), north))
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

    Ids come from the column `id` if it exists and is unique, else from the row number.

    Args:
        path: path or URL of the vector file.
        aoi: area of interest, lon/lat.

    Raises:
        JobError: the file cannot be read or has no CRS, or none of its prompts can be asked.
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
    return frame
