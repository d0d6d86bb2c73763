"""Opens a raster asset of an Item safely.

Names the GDAL driver, refuses GDAL's virtual file systems, and raises errors that name the asset.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.catalogs.redaction import redacted
from earthgptx.catalogs.redirects import destination
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.reading.native import MAX_PIXELS, NativeGrid
from earthgptx.pipeline.reading.sources import Raster

MOST_STORED_BYTES = 2**28
"""Largest size of a block of pixels as a file stores them; GDAL decodes a block as a whole."""
LIKE = 0.5
"""Least overlap of a file with the ground that its Item declares. Pixels are placed by the file
alone; this notices a file of another place, whose ground would be a hole."""


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


@contextmanager
def open_raster(
    source: Raster, opening: Opening, overview_level: int | None = None
) -> Iterator[DatasetReader]:
    """Opens a raster, or one of its overviews (0 is the finest).

    Raises:
        SourceError: the address is of a refused kind, or the file is missing, damaged, not a
            GeoTIFF or JPEG 2000, too large, elsewhere than its Item declares, or has another number
            of bands.
    """
    where = source.where
    try:
        opening.reach.check(source.href)
        href = destination(source.href, opening)
        address = opening.signed(href)
    except CatalogError as error:
        down = isinstance(error, CatalogDown)
        raise SourceError(f"{where}: {error}", unreachable=down, passing=down) from error
    # The driver is named because a VRT with the suffix .tif could read any local file.
    driver = "JP2OpenJPEG" if redacted(source.href).lower().endswith(".jp2") else "GTiff"
    try:
        level = {} if overview_level is None else {"overview_level": overview_level}
        options = gdal_options() | opening.gdal(href)
        with rasterio.Env(**options), rasterio.open(address, driver=driver, **level) as raster:
            _check_size(raster, where)
            _check_declared(raster, source)
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


def _check_declared(raster: DatasetReader, source: Raster) -> None:
    """Lets a raster pass that is what its Item says.

    Raises:
        SourceError: it has another number of bands, or lies elsewhere.
    """
    if source.bands and source.bands != raster.count:
        raise SourceError(
            f"{source.where} has {raster.count} bands, its Item says {source.bands}; mend the "
            "catalog"
        )
    if source.grid is None or raster.crs is None:
        return
    found = NativeGrid(raster.crs, raster.transform, raster.shape)
    overlap = source.grid.overlap(found)
    if overlap is not None and overlap < LIKE:
        raise SourceError(
            f"{source.where} lies at {_shown(found)}, its Item says {_shown(source.grid)}; mend "
            "the catalog"
        )


def _shown(grid: NativeGrid) -> str:
    return f"{', '.join(f'{edge:.7g}' for edge in grid.bounds)} in {grid.crs}"


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
