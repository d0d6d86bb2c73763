"""Opens a raster asset of an Item safely.

Names the GDAL driver, refuses GDAL's virtual file systems, and raises errors that name the asset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pyproj
import pystac
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Interleaving
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import array_bounds
from rasterio.warp import calculate_default_transform

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.profiles import Band, CollectionProfile
from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.errors import SourceError

MAX_PIXELS = 2**36
"""Largest number of pixels in a file; larger files are refused before they are read."""
MOST_STORED_BYTES = 2**28
"""Largest size of a block of pixels as a file stores them; GDAL decodes a block as a whole."""


def gdal_options() -> dict[str, Any]:
    """Returns GDAL options: retries for busy servers, timeouts, and no listing of sibling files.

    What a server answered is not kept between two openings of a file: GDAL would otherwise repeat
    an error from its memory after the server has recovered.
    """
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_HTTP_MAX_RETRY": 2,
        "GDAL_HTTP_RETRY_DELAY": 1,
        "GDAL_HTTP_TIMEOUT": 60,
        "GDAL_HTTP_CONNECTTIMEOUT": 15,
        "GDAL_HTTP_LOW_SPEED_TIME": 20,
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,
        "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/vsi{each}/" for each in ("curl", "s3", "gs", "az")),
        "GDAL_CACHEMAX": 32 * 2**20,
    }


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


def pick_asset(item: pystac.Item, keys: tuple[str, ...]) -> str:
    """Returns the first of the asset keys that an Item has.

    Raises:
        SourceError: the Item has none of them.
    """
    for key in keys:
        if key in item.assets:
            return key
    raise SourceError(
        f"item {item.id} has no asset {' or '.join(keys)}; "
        f"it has {', '.join(sorted(item.assets))}. "
        "Describe the collection under source.profiles, or leave such items out by source.filter"
    )


def annotation_of(item: pystac.Item, band: Band) -> str | None:
    """Returns the key of the calibration annotation of a band; None if the Item has none."""
    return next((key for key in band.annotations if key in item.assets), None)


def rasters_of(item: pystac.Item, profile: CollectionProfile) -> list[str]:
    """Returns the keys of the rasters that are read of an Item; the first band's is the first.

    Raises:
        SourceError: the Item lacks one.
    """
    keys = [pick_asset(item, band.assets) for band in profile.bands]
    if profile.mask:
        keys.append(pick_asset(item, profile.mask.assets))
    return list(dict.fromkeys(keys))


def assets_of(item: pystac.Item, profile: CollectionProfile) -> list[str]:
    """Returns the keys of all assets that are read of an Item, the rasters first.

    Raises:
        SourceError: the Item lacks a raster.
    """
    annotations = [key for band in profile.bands if (key := annotation_of(item, band))]
    return list(dict.fromkeys([*rasters_of(item, profile), *annotations]))


@contextmanager
def open_asset(
    item: pystac.Item, key: str, opening: Opening, overview_level: int | None = None
) -> Iterator[DatasetReader]:
    """Opens the raster of an asset, or one of its overviews (0 is the finest).

    Raises:
        SourceError: the address is of a refused kind, or the file is missing, damaged, not a
            GeoTIFF or JPEG 2000, too large, or has another number of bands than its Item declares.
    """
    href = opening.address(item.assets[key])
    where = f"asset {key} of item {item.id} ({redacted(href)})"
    try:
        opening.reach.check(href)
        address = opening.signed(href)
    except CatalogError as error:
        down = isinstance(error, CatalogDown)
        raise SourceError(f"{where}: {error}", unreachable=down, passing=down) from error
    # The driver is named because a VRT with the suffix .tif could read any local file.
    driver = "JP2OpenJPEG" if redacted(href).lower().endswith(".jp2") else "GTiff"
    try:
        level = {} if overview_level is None else {"overview_level": overview_level}
        options = gdal_options() | opening.gdal(href)
        with rasterio.Env(**options), rasterio.open(address, driver=driver, **level) as raster:
            _check_size(raster, where)
            declared = _declared_bands(item.assets[key])
            if declared and declared != raster.count:
                raise SourceError(
                    f"{where} has {raster.count} bands, its Item says {declared}; mend the catalog"
                )
            yield raster
    except RasterioError as error:
        raise unreadable(href, where, error, opening) from error


def _check_size(raster: DatasetReader, where: str) -> None:
    """Lets a raster pass whose header asks for no more memory than imagery needs.

    Raises:
        SourceError: it asks for more.
    """
    if raster.width * raster.height > MAX_PIXELS:
        raise SourceError(
            f"{where} claims {raster.height} x {raster.width} px; no file of that size is read"
        )
    together = raster.count if raster.interleaving == Interleaving.pixel else 1
    for (rows, cols), dtype in zip(raster.block_shapes, raster.dtypes, strict=True):
        stored = rows * cols * np.dtype(dtype).itemsize * together
        if stored > MOST_STORED_BYTES:
            raise SourceError(
                f"{where} is stored in pieces of {rows} x {cols} px ({stored / 2**20:,.0f} MiB); "
                f"at most {MOST_STORED_BYTES / 2**20:.0f} MiB are read at once. Store it tiled, "
                "for example as a Cloud Optimized GeoTIFF"
            )


def unreadable(href: str, where: str, error: Exception, opening: Opening) -> SourceError:
    """Returns the error to raise for an asset that GDAL cannot read.

    A file of a server may be read well the next time, whatever GDAL says of it: an answer that
    breaks off looks like a damaged file. Only what the server refuses outright does not pass soon.

    Args:
        href: address of the asset.
        where: asset and Item, for the message.
        error: error of rasterio or of a library above it.
        opening: what the asset was opened with.
    """
    reason = " ".join(str(error.__cause__ or error).split())
    said = " ".join(str(each) for each in (error, error.__cause__))
    remote = urlparse(href).scheme.lower() not in ("", "file")
    refused = any(f"code: {code}" in said for code in (400, 401, 403, 404, 410))
    spoken = any(word in said for word in ("HTTP", "CURL", "curl", "timed out", "onnect"))
    if any(f"code: {code}" in said for code in (401, 403)) or "AccessDenied" in said:
        reason = f"{reason}; {opening.hint(href)}"
    return SourceError(
        f"{where} cannot be read: {reason}",
        unreachable=remote and (refused or spoken),
        passing=remote and not refused,
    )


def native_grid(
    item: pystac.Item, key: str, opening: Opening, *, declared: bool = True
) -> NativeGrid:
    """Returns the grid of an asset, from its Item if that declares it, else from the file's header.

    A raster in radar geometry (with ground control points) gets the grid that GDAL would warp it
    to, in UTM if the points are geographic.

    Raises:
        SourceError: neither gives the grid.
        CRSError: the Item declares an invalid CRS.
    """
    properties = item.properties | item.assets[key].extra_fields
    code = properties.get("proj:code") or properties.get("proj:epsg") or properties.get("proj:wkt2")
    transform, shape = properties.get("proj:transform"), properties.get("proj:shape")
    if declared and code and transform and shape:
        return _declared_grid(item, key, code, transform, shape)
    with open_asset(item, key, opening) as raster:
        return header_grid(raster, item, key)


def _declared_grid(
    item: pystac.Item, key: str, code: Any, transform: Any, shape: Any
) -> NativeGrid:
    """Returns the grid that an Item declares, if it can be one.

    Raises:
        SourceError: numbers are missing, not finite, zero, or larger than any file.
    """
    try:
        affine, (rows, cols) = Affine(*transform[:6]), (int(side) for side in shape)
        sane = np.isfinite(affine[:6]).all() and affine.determinant and rows > 0 and cols > 0
    except (TypeError, ValueError):
        sane = False
    if not sane or rows * cols > MAX_PIXELS:
        raise SourceError(
            f"asset {key} of item {item.id} declares proj:transform {transform} and proj:shape "
            f"{shape}, which no image has; mend the catalog"
        )
    return NativeGrid(_declared_crs(code), affine, (rows, cols))


def _declared_crs(code: Any) -> CRS:
    """Parses the CRS that an Item declares: a code, WKT or PROJJSON.

    GDAL would also take an address, and fetch it.

    Raises:
        CRSError: it is none of them, or unknown.
    """
    if isinstance(code, int):
        return CRS.from_epsg(code)
    if isinstance(code, dict):
        return CRS.from_user_input(pyproj.CRS.from_json_dict(code).to_wkt())
    text = str(code).strip()
    if re.fullmatch(r"\d+", text):
        return CRS.from_epsg(int(text))
    if re.fullmatch(r"(EPSG|ESRI|OGC|IAU_2015):[A-Za-z0-9]+", text, re.IGNORECASE) or re.match(
        r"[A-Z_]+\[", text
    ):
        return CRS.from_user_input(text)
    raise CRSError(f"'{text[:60]}' is no code, WKT or PROJJSON of a CRS")


def header_grid(raster: DatasetReader, item: pystac.Item, key: str) -> NativeGrid:
    """Returns the grid of a raster from its header; see `native_grid`.

    Raises:
        SourceError: the raster has neither a CRS nor ground control points.
    """
    if raster.crs is not None:
        return NativeGrid(raster.crs, raster.transform, raster.shape)
    points, crs = raster.gcps
    if not points or crs is None:
        raise SourceError(
            f"asset {key} of item {item.id} ({redacted(raster.name)}) has neither a CRS nor "
            "ground control points; it cannot be placed on the Earth"
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


def _declared_bands(asset: pystac.Asset) -> int:
    """Returns the number of bands that an Item declares for an asset; 0 if it declares none."""
    lists = (asset.extra_fields.get(key) for key in ("raster:bands", "eo:bands", "bands"))
    return max((len(bands) for bands in lists if isinstance(bands, list)), default=0)
