"""Projects geometries from one CRS to another."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyproj
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.job.lonlat import LONLAT, around_pole, cut, unwrapped

_GEOD = pyproj.Geod(ellps="WGS84")
SEGMENTS = 16
"""Lowest number of segments along a geometry's longer side when it is projected."""


def project(shape: BaseGeometry, source: CRS | str, target: CRS) -> BaseGeometry:
    """Projects a geometry to another CRS.

    Long edges are split first, since a straight edge becomes a curve.

    Raises:
        JobError: a part of the geometry cannot be projected to the target CRS.
    """
    move = transformer(source if isinstance(source, str) else source.to_wkt(), target.to_wkt())
    return shapely.make_valid(_projected(shape, move, target.to_string()))


def _projected(shape: BaseGeometry, move: pyproj.Transformer, target: str) -> BaseGeometry:
    # By part: what lies on both sides of the antimeridian is narrower than its bounds.
    west, south, east, north = shapely.bounds(shapely.get_parts(shape)).T
    longest = float(np.min(np.maximum(east - west, north - south))) / SEGMENTS
    dense = shapely.segmentize(shape, longest) if shape.area else shape
    moved = shapely.transform(
        dense, lambda points: np.column_stack(move.transform(points[:, 0], points[:, 1]))
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise JobError(
            f"the AOI or an item's footprint cannot be drawn in {target}; choose another grid.crs"
        )
    return moved


def ground_metres(grid: Grid, window: Window) -> float:
    """Returns the side of a pixel on the ground, in metres, at the centre of a window.

    It is the root of the pixel's width times its height on the WGS84 ellipsoid, with three
    significant digits: in UTM the scale of the projection (0.9996 to 1.001) does not show.

    Raises:
        JobError: the centre has no lon/lat in the grid's CRS.
    """
    row, col = (window.y0 + window.y1) / 2, (window.x0 + window.x1) / 2
    points = [grid.affine @ at for at in ((col, row), (col + 1, row), (col, row + 1))]
    x, y = np.array(points).T
    lon, lat = transformer(grid.crs, LONLAT).transform(x, y)
    if not np.isfinite([lon, lat]).all():
        raise JobError(f"the imagery's ground lies outside {grid.crs}; choose another grid.crs")
    width, height = _GEOD.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])[2]
    return float(f"{(width * height) ** 0.5:.3g}")


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """Returns a transformer of x, y between two CRSs; cached, since making one takes long."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def to_lonlat(shape: BaseGeometry, crs: str) -> BaseGeometry:
    """Projects polygons from a CRS to lon/lat, cut at the antimeridian, and with their pole.

    Raises:
        JobError: a part of the geometry has no lon/lat, or holds both poles.
    """
    parts = shapely.get_parts(shape)
    poles = [_pole_inside(part, crs) for part in parts]
    if any(poles):
        found = [_with_pole(part, crs, at) for part, at in zip(parts, poles, strict=True)]
        return shapely.union_all(found)
    moved = _projected(shape, transformer(crs, LONLAT), LONLAT)
    [continuous] = unwrapped(np.array([moved], object))
    return cut(shapely.make_valid(continuous))


def _pole_inside(polygon: BaseGeometry, crs: str) -> float:
    """Returns the latitude of the pole inside a polygon's outline; 0 for none."""
    if not isinstance(polygon, shapely.Polygon):
        return 0.0
    outline = shapely.Polygon(polygon.exterior)
    move = transformer(LONLAT, crs)
    found = [
        lat
        for lat in (-90.0, 90.0)
        if np.isfinite(at := move.transform(0.0, lat)).all() and outline.contains(shapely.Point(at))
    ]
    if len(found) > 1:
        raise JobError(f"the AOI or an item's footprint in {crs} holds both poles; make it smaller")
    return found[0] if found else 0.0


def _with_pole(polygon: shapely.Polygon, crs: str, pole: float) -> BaseGeometry:
    """Projects one polygon to lon/lat, whose outline may go around a pole, and its holes."""
    if not pole:
        return to_lonlat(polygon, crs)
    outline = _projected(shapely.Polygon(polygon.exterior), transformer(crs, LONLAT), LONLAT)
    whole = around_pole(outline, north=pole > 0)
    holes = [to_lonlat(shapely.Polygon(hole), crs) for hole in polygon.interiors]
    return whole.difference(shapely.union_all(holes)) if holes else whole


def parse_crs(text: str) -> CRS:
    """Parses the CRS of `grid.crs`.

    Raises:
        JobError: the text is not a CRS.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise JobError(
            f"grid.crs '{text}' is no CRS; write auto or, for example, EPSG:32631"
        ) from error
