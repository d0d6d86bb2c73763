"""The rasters of a result as COGs, for programs that do not read sharded Zarr."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetWriter

from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.results.colours import CLEAR, STATUSES, colours_of, rgba
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.store import STATUS_WORDS

LAYERS = ("label", "score", "status", "object")
"""Layers of a result; 0 is nodata in all of them. Scores are stored as they are, 0 to 255."""
PIXELS = 256
"""Side of the blocks of a COG whose bands are time slices: a block is read with all its bands."""


@dataclass(frozen=True, slots=True)
class Raster:
    """A file that was written."""

    path: Path
    coloured: Path | None
    """A VRT over it that has the colours of its bands; None where the file has them, or none."""
    layer: str
    """One of `LAYERS`."""
    zone: str
    """Name of the zone's group; empty if the result has one CRS."""
    crs: str
    slices: tuple[str, ...]
    """Names of the time slices of its bands."""
    shape: tuple[int, int]
    transform: Affine


class RowNumbers:
    """The rows of a table of objects by object id, counted from 1.

    No GIS keeps 63-bit ids: the layer `object` holds row numbers instead.
    """

    def __init__(self, ids: NDArray[np.int64]) -> None:
        """Sets the ids in the order of the table."""
        self._order = np.argsort(ids)
        self._sorted = ids[self._order].astype(np.uint64)

    def __call__(self, ids: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Returns the rows of ids; 0 for none.

        Raises:
            OutputError: an id has no row.
        """
        rows = np.zeros(ids.shape, np.uint32)
        there = ids > 0
        if not np.isin(ids[there], self._sorted).all():
            raise OutputError(
                "the result's rasters show objects that its table has not; is a run writing it? "
                "try again when it has ended"
            )
        rows[there] = self._order[np.searchsorted(self._sorted, ids[there])] + 1
        return rows


def write_cogs(result: Result, folder: Path, rows: RowNumbers, *, stack: bool) -> Iterator[Raster]:
    """Writes all layers and yields each file.

    Args:
        result: a result with finished time slices.
        folder: where they are written.
        rows: rows of the objects' table.
        stack: whether a file holds all time slices as bands; otherwise a file is written for each.
            TIFF has no colours for several bands: a VRT beside a stack of classes has them.
    """
    names = [row.name for row in result.slices_in_time]
    for zone in result.grids:
        raster = result.layer("raster", zone)
        pieces = [range(len(names))] if stack else [range(at, at + 1) for at in range(len(names))]
        for times in pieces:
            for layer in LAYERS:
                parts = [layer, *([] if stack else [names[times[0]].replace(":", "")]), zone]
                path = folder / f"{'-'.join(filter(None, parts))}.tif"
                _write(result, raster, layer, times, path, rows)
                coloured, classes = None, classes_of(result, layer)
                if stack and classes:
                    coloured = path.with_suffix(".vrt")
                    coloured.write_bytes(_coloured(path, classes))
                yield Raster(
                    path,
                    coloured,
                    layer,
                    zone,
                    raster["spatial_ref"].attrs["crs_wkt"],
                    tuple(names[at] for at in times),
                    (raster.sizes["y"], raster.sizes["x"]),
                    Affine(*raster.attrs["spatial:transform"]),
                )


def _write(
    result: Result,
    raster: xr.Dataset,
    layer: str,
    times: Sequence[int],
    path: Path,
    rows: RowNumbers,
) -> None:
    """Writes time slices of a layer as the bands of a COG, never more than a block at once."""
    height, width = raster.sizes["y"], raster.sizes["x"]
    side = int(result.attrs["job"]["grid"]["block_px"])
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        plain = Path(scratch) / "plain.tif"
        with rasterio.open(
            plain,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=len(times),
            dtype="uint32" if layer == "object" else "uint8",
            crs=raster["spatial_ref"].attrs["crs_wkt"],
            transform=Affine(*raster.attrs["spatial:transform"]),
            nodata=0,
            tiled=True,
            interleave="band",
            compress="lzw",
            bigtiff="if_safer",
        ) as file:
            for band, time in enumerate(times, 1):
                file.set_band_description(band, str(raster["time"].values[time])[:19] + "Z")
                for y0 in range(0, height, side):
                    for x0 in range(0, width, side):
                        window = ((y0, min(y0 + side, height)), (x0, min(x0 + side, width)))
                        pixels = _read(raster, layer, time, window, rows)
                        file.write(pixels, band, window=window)
            _describe(result, layer, file)
        many = {"blocksize": PIXELS} if len(times) > 1 else {}
        rasterio.shutil.copy(
            plain,
            path,
            driver="COG",
            compress="deflate",
            overview_resampling="nearest",
            bigtiff="if_safer",
            **many,
        )


def _read(
    raster: xr.Dataset,
    layer: str,
    time: int,
    window: tuple[tuple[int, int], tuple[int, int]],
    rows: RowNumbers,
) -> NDArray[np.uint8] | NDArray[np.uint32]:
    name = "object_id" if layer == "object" else layer
    y, x = (slice(*each) for each in window)
    pixels = raster[name].isel(time=time, y=y, x=x).values
    if layer == "object":
        return rows(pixels)
    # xarray has divided scores by 255.
    return np.rint(pixels * 255).astype(np.uint8) if layer == "score" else pixels


def _describe(result: Result, layer: str, file: DatasetWriter) -> None:
    """Adds what the values mean, and their colours where TIFF can hold them: with one band."""
    names = classes_of(result, layer)
    file.update_tags(layer=layer, **{f"value_{at}": name for at, (name, _) in names.items()})
    if names and file.count == 1:
        # All of them: GDAL makes those that are not given black.
        clear = dict.fromkeys(range(256), rgba(CLEAR))
        file.write_colormap(1, clear | {at: rgba(colour) for at, (_, colour) in names.items()})


def _coloured(stack: Path, classes: Mapping[int, tuple[str, str]]) -> bytes:
    """Returns a VRT over the bands of a COG that has their colours."""
    with rasterio.open(stack) as file:
        size = {"rasterXSize": str(file.width), "rasterYSize": str(file.height)}
        root = Element("VRTDataset", size)
        SubElement(root, "SRS").text = file.crs.to_wkt()
        SubElement(root, "GeoTransform").text = ", ".join(map(repr, file.transform.to_gdal()))
        for band, name in enumerate(file.descriptions, 1):
            child = SubElement(root, "VRTRasterBand", {"dataType": "Byte", "band": str(band)})
            SubElement(child, "Description").text = name
            SubElement(child, "NoDataValue").text = "0"
            SubElement(child, "ColorInterp").text = "Palette"
            table = SubElement(child, "ColorTable")
            for value in range(max(classes) + 1):
                colour = rgba(classes[value][1] if value in classes else CLEAR)
                entry = {f"c{at}": str(part) for at, part in enumerate(colour, 1)}
                SubElement(table, "Entry", entry)
            source = SubElement(child, "SimpleSource")
            SubElement(source, "SourceFilename", {"relativeToVRT": "1"}).text = stack.name
            SubElement(source, "SourceBand").text = str(band)
    return tostring(root)


def classes_of(result: Result, layer: str) -> dict[int, tuple[str, str]]:
    """Returns name and colour, or `CLEAR`, of each value of a layer of classes; none for others."""
    if layer == "label":
        phrases = result.attrs["job"]["tasks"]["find"]
        named = colours_of(phrases)
        return {at: (name, named[name]) for at, name in enumerate(phrases, 1)}
    if layer == "status":
        return {int(each): (STATUS_WORDS[each], colour) for each, colour in STATUSES.items()}
    return {}
