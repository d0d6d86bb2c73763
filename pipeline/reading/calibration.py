"""Calibrates Sentinel-1 GRD to sigma0 by the table of its calibration annotation.

sigma0 = DN^2 / A^2, with A from the table `sigmaNought`, which is interpolated linearly between its
lines and pixels (ESA, Sentinel-1 Product Specification, "Level 1 calibration data set"). Thermal
noise is not subtracted. The table lies as the sensor saw the scene, as do the pixels: a coarse
image of A is warped by the same ground control points.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.warp import reproject

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.errors import AddressRefused, CatalogDown, CatalogError
from earthgptx.catalogs.stac_io import FsspecIO
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.job.grid import Grid, Window
from earthgptx.pipeline.reading.assets import open_raster
from earthgptx.pipeline.reading.sources import Document, Raster
from earthgptx.pipeline.reading.warping import CELL_PX, cached_crs, cells

STEP_PX = 32
"""Pixels of the scene per pixel of the coarse image; the tables have a value per 40 pixels."""
MOST_TABLES = 16
"""Tables that a process keeps."""
MOST_VALUES = 10_000_000
"""Values of a table; those of real scenes have some 20,000."""
USUAL = (1.0, 1e5)
"""Values of A that a Sentinel-1 product may have; those of scenes in IW mode are near 600."""

_tables: dict[str, Gains] = {}
_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class Gains:
    """A on a mesh of a scene's lines and pixels."""

    lines: NDArray[np.float64]
    """(L,), increasing."""
    pixels: NDArray[np.float64]
    """(P,), increasing."""
    values: NDArray[np.float64]
    """(L, P)."""
    polarisation: str
    """For example `VV`; empty if the annotation does not say it."""

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether the mesh is that of an image of (rows, columns), within two of its steps."""
        return all(
            len(at) > 1
            and abs(at[0]) <= 2 * np.diff(at).max()
            and abs(at[-1] - (side - 1)) <= 2 * np.diff(at).max()
            for at, side in zip((self.lines, self.pixels), shape, strict=True)
        )

    def at(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float32]:
        """Returns A for rows and columns, (rows, cols); that of the border outside the mesh."""
        by_col = np.array([np.interp(cols, self.pixels, line) for line in self.values])
        where = np.clip(np.interp(rows, self.lines, np.arange(len(self.lines))), 0, None)
        low = np.minimum(where.astype(int), max(len(self.lines) - 2, 0))
        high = np.minimum(low + 1, len(self.lines) - 1)
        share = (where - low)[:, None]
        return ((1 - share) * by_col[low] + share * by_col[high]).astype(np.float32)


def gains_of(document: str) -> Gains:
    """Reads the table of a calibration annotation.

    Vectors may have different pixels; all are interpolated to those of the first.

    Raises:
        ValueError: the document is no calibration annotation.
    """
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise ValueError("it declares a document type")
    try:
        # Entities, by which XML attacks its reader, need a document type.
        root = ET.fromstring(document)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    vectors = root.findall(".//calibrationVector")
    read = [
        (_numbers(each, "line"), _numbers(each, "pixel"), _numbers(each, "sigmaNought"))
        for each in vectors
    ]
    if not read or any(
        len(line) != 1 or len(pixel) < 2 or len(pixel) != len(value) or (np.diff(pixel) <= 0).any()
        for line, pixel, value in read
    ):
        raise ValueError("it has no calibrationVector of line, pixel and sigmaNought")
    if not np.isfinite(np.concatenate([part for each in read for part in each])).all():
        raise ValueError("some of its numbers are none")
    lines, pixels = np.array([line[0] for line, _, _ in read]), read[0][1]
    if len(lines) * len(pixels) > MOST_VALUES:
        raise ValueError(
            f"its table has {len(lines) * len(pixels):,} values, more than any scene's"
        )
    values = np.array([np.interp(pixels, pixel, value) for _, pixel, value in read])
    if (np.diff(lines) <= 0).any():
        raise ValueError("its lines do not increase")
    if values.min() < USUAL[0] or values.max() > USUAL[1]:
        raise ValueError(
            f"its values are {values.min():g} to {values.max():g}, which no product has"
        )
    return Gains(lines, pixels, values, (root.findtext(".//polarisation") or "").strip().upper())


def _numbers(vector: ET.Element, name: str) -> NDArray[np.float64]:
    return np.array((vector.findtext(name) or "").split(), np.float64)


def gain(
    grid: Grid, part: Window, source: Raster, annotation: Document, opening: Opening
) -> NDArray[np.float32]:
    """Returns A on a window of the grid, (h, w); NaN outside the scene.

    Args:
        grid: target grid.
        part: window of the target grid.
        source: the raster that A calibrates.
        annotation: its calibration annotation.
        opening: what is needed to open both.

    Raises:
        SourceError: the annotation cannot be read, or is not that of the asset.
    """
    gains = _read(annotation, opening)
    with open_raster(source, opening) as raster:
        points, crs = raster.gcps
        if not points or raster.crs is not None:
            raise SourceError(
                f"{source.where} does not lie as the sensor saw it (it has no ground control "
                "points), so its calibration annotation cannot be placed; take `calibration` out "
                "of its bands under source.profiles"
            )
        shape = raster.shape
        if not gains.fits(shape) or gains.polarisation not in ("", source.key.upper()):
            raise SourceError(
                f"{annotation.where} is not that of asset {source.key}, which has {shape[0]} lines "
                f"and {shape[1]} columns: its lines are {gains.lines[0]:.0f} to "
                f"{gains.lines[-1]:.0f}, its columns {gains.pixels[0]:.0f} to "
                f"{gains.pixels[-1]:.0f}, its polarisation '{gains.polarisation}'; mend the catalog"
            )
    # One coarse pixel more on every side, so that the scene's border is interpolated too.
    rows, cols = (((np.arange(-1, side // STEP_PX + 2) + 0.5) * STEP_PX - 0.5) for side in shape)
    coarse = gains.at(rows, cols)
    moved = [
        GroundControlPoint(p.row / STEP_PX + 1, p.col / STEP_PX + 1, p.x, p.y, p.z) for p in points
    ]
    result = np.full(part.shape, np.nan, np.float32)
    for cell in (cell for row in cells(part) for cell in row):
        here = cell & part
        result[here.within(part)] = _warped(grid, cell, coarse, moved, crs)[here.within(cell)]
    return result


def _warped(
    grid: Grid,
    cell: Window,
    coarse: NDArray[np.float32],
    points: list[GroundControlPoint],
    crs: rasterio.crs.CRS,
) -> NDArray[np.float32]:
    warped = np.full((CELL_PX, CELL_PX), np.nan, np.float32)
    reproject(
        coarse,
        warped,
        gcps=points,
        src_crs=crs,
        dst_crs=cached_crs(grid.crs),
        dst_transform=grid.geobox(cell).affine,
        dst_nodata=float("nan"),
        resampling=Resampling.bilinear,
    )
    return warped


def _read(annotation: Document, opening: Opening) -> Gains:
    """Returns the table of an annotation; read once per process."""
    address, where = annotation.href, annotation.where
    with _guard:
        known = _tables.get(address)
    if known is not None:
        return known
    try:
        found = gains_of(FsspecIO(opening).read_text_from_href(address))
    except CatalogError as error:
        down = isinstance(error, CatalogDown)
        refused = isinstance(error, AddressRefused)
        raise SourceError(f"{where}: {error}", unreachable=not refused, passing=down) from error
    except ValueError as error:
        raise SourceError(f"{where} cannot be used: {error}") from error
    with _guard:
        while len(_tables) >= MOST_TABLES:
            _tables.pop(next(iter(_tables)))
        _tables[address] = found
    return found
