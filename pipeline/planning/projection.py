"""Projects geometries from one CRS to another."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.vectors import LONLAT

SEGMENTS = 16
"""Lowest number of segments along a geometry's longer side when it is projected."""


def project(shape: BaseGeometry, source: CRS | str, target: CRS) -> BaseGeometry:
    """Projects a geometry to another CRS.

    Long edges are split first, since a straight edge becomes a curve.

    Raises:
        JobError: a part of the geometry cannot be projected to the target CRS.
    """
    transformer = pyproj.Transformer.from_crs(
        source if isinstance(source, str) else source.to_wkt(), target.to_wkt(), always_xy=True
    )
    west, south, east, north = shape.bounds
    longest = max(east - west, north - south) / SEGMENTS
    dense = shapely.segmentize(shape, longest) if shape.area else shape
    moved = shapely.transform(
        dense, lambda points: np.column_stack(transformer.transform(points[:, 0], points[:, 1]))
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise JobError(
            f"the AOI or an item's footprint cannot be drawn in {target.to_string()}; "
            "choose another grid.crs"
        )
    return shapely.make_valid(moved)


def to_lonlat(shape: BaseGeometry, crs: str) -> BaseGeometry:
    """Projects a geometry from a CRS to lon/lat."""
    return project(shape, parse_crs(crs), CRS.from_user_input(LONLAT))


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
