"""The grid of a raster's own pixels: as its Item declares it, or as its header says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import pystac
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import array_bounds
from rasterio.warp import calculate_default_transform, transform_bounds

from earthgptx.pipeline.errors import SourceError

MAX_PIXELS = 2**36
"""Largest number of pixels in a file; larger files are refused before they are read."""


@dataclass(frozen=True, slots=True)
class NativeGrid:
    """The pixels of an asset: the stored ones, or the best ones to warp it to."""

    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    """(rows, columns)."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the CRS."""
        west, south, east, north = array_bounds(*self.shape, self.transform)
        return west, south, east, north

    def overlap(self, other: NativeGrid) -> float | None:
        """Returns the share of the ground of either grid that both show, by their bounds.

        Returns None where the bounds cannot be compared: across the antimeridian, at a pole, or
        where PROJ knows no way.
        """
        ours, theirs = _sorted(self.bounds), _sorted(other.bounds)
        if other.crs != self.crs:
            try:
                theirs = transform_bounds(other.crs, self.crs, *theirs)
            except (RasterioError, CPLE_BaseError):
                return None
        elif self.crs.is_geographic:
            turns = round((ours[0] - theirs[0]) / 360) * 360
            theirs = (theirs[0] + turns, theirs[1], theirs[2] + turns, theirs[3])
        if not np.isfinite([*ours, *theirs]).all() or theirs != _sorted(theirs):
            return None
        west, south = np.maximum(ours[:2], theirs[:2])
        east, north = np.minimum(ours[2:], theirs[2:])
        both = max(east - west, 0.0) * max(north - south, 0.0)
        area = sum((e - w) * (n - s) for w, s, e, n in (ours, theirs))
        return float(both / (area - both)) if area > both else None


Bounds = tuple[float, float, float, float]


def _sorted(bounds: Bounds) -> Bounds:
    """Returns bounds with west below east and south below north; rows may go north."""
    (west, east), (south, north) = sorted(bounds[::2]), sorted(bounds[1::2])
    return west, south, east, north


def declared_grid(item: pystac.Item, key: str) -> NativeGrid | None:
    """Returns the grid that an Item declares for an asset; None if it declares none.

    Transform and shape count together: those of the asset, else those of the Item.

    Raises:
        SourceError: numbers are missing, not finite, zero, or larger than any file.
        CRSError: the CRS is invalid.
    """
    own = item.assets[key].extra_fields
    code = _code(own) or _code(item.properties)
    for fields in (own, item.properties):
        transform, shape = fields.get("proj:transform"), fields.get("proj:shape")
        if code and transform and shape:
            crs = _crs(code)
            try:
                found = _grid(crs, tuple(transform[:6]), tuple(shape))
            except (TypeError, ValueError):
                found = None
            if found is None:
                raise SourceError(
                    f"asset {key} of item {item.id} declares proj:transform {transform} and "
                    f"proj:shape {shape}, which no image has; mend the catalog"
                )
            return found
    return None


def _code(fields: Mapping[str, Any]) -> Any:
    for name in ("proj:code", "proj:epsg", "proj:wkt2"):
        if fields.get(name):
            return fields[name]
    return None


@lru_cache(maxsize=4096)
def _grid(crs: CRS, transform: tuple[float, ...], shape: tuple[float, ...]) -> NativeGrid | None:
    """Returns a grid; None if no image has it. Cached, since many files lie alike."""
    affine, (rows, cols) = Affine(*transform), (int(side) for side in shape)
    sane = all(map(math.isfinite, transform)) and affine.determinant and rows > 0 and cols > 0
    return NativeGrid(crs, affine, (rows, cols)) if sane and rows * cols <= MAX_PIXELS else None


def _crs(code: Any) -> CRS:
    """Parses the CRS that an Item declares: a code, WKT or PROJJSON.

    GDAL would also take an address, and fetch it.

    Raises:
        CRSError: it is none of them, or unknown.
    """
    if isinstance(code, dict):
        return CRS.from_user_input(pyproj.CRS.from_json_dict(code).to_wkt())
    text = str(code).strip()
    if re.fullmatch(r"\d+", text):
        return _parsed(f"EPSG:{text}")
    if re.fullmatch(r"(EPSG|ESRI|OGC|IAU_2015):[A-Za-z0-9]+", text, re.IGNORECASE) or re.match(
        r"[A-Z_]+\[", text
    ):
        return _parsed(text)
    raise CRSError(f"'{text[:60]}' is no code, WKT or PROJJSON of a CRS")


@lru_cache(maxsize=256)
def _parsed(text: str) -> CRS:
    return CRS.from_user_input(text)


def header_grid(raster: DatasetReader, where: str) -> NativeGrid:
    """Returns the grid of a raster from its header.

    A raster in radar geometry (with ground control points) gets the grid that GDAL would warp it
    to, in UTM if the points are geographic.

    Args:
        raster: open file.
        where: asset and Item, for the message.

    Raises:
        SourceError: the raster has neither a CRS nor ground control points.
    """
    if raster.crs is not None:
        return NativeGrid(raster.crs, raster.transform, raster.shape)
    points, crs = raster.gcps
    if not points or crs is None:
        raise SourceError(
            f"{where} has neither a CRS nor ground control points; it cannot be placed on the Earth"
        )
    west, east = min(p.x for p in points), max(p.x for p in points)
    south, north = min(p.y for p in points), max(p.y for p in points)
    target = (
        CRS.from_epsg(utm_epsg((west + east) / 2, (south + north) / 2))
        if crs.is_geographic
        else crs
    )
    transform, width, height = calculate_default_transform(
        crs, target, raster.width, raster.height, gcps=points
    )
    # The step has two significant digits, and the origin is a multiple of it, so that neighbouring
    # scenes of one orbit share a lattice.
    step = float(f"{transform.a:.2g}")
    west, north = np.floor(transform.c / step) * step, np.ceil(transform.f / step) * step
    east, south = transform @ (width, height)
    snapped = Affine(step, 0, west, 0, -step, north)
    return NativeGrid(
        target, snapped, (int(np.ceil((north - south) / step)), int(np.ceil((east - west) / step)))
    )


def utm_epsg(lon: float, lat: float) -> int:
    """Returns the EPSG code of the UTM zone; polar stereographic beyond 84° N and 80° S."""
    if lat > 84:
        return 3413
    if lat < -80:
        return 3031
    zone = min(int((lon + 180) // 6) + 1, 60)
    return (32600 if lat >= 0 else 32700) + zone
