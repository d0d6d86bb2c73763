"""The objects of a result as files for GIS programs and tables."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import geopandas as gpd
    import pyarrow as pa


class Format(StrEnum):
    """A format of exported objects."""

    FLATGEOBUF = "fgb"
    GEOPARQUET = "parquet"
    GEOJSON = "geojson"
    CSV = "csv"
    KML = "kml"


MEDIA_TYPES = {
    Format.FLATGEOBUF: "application/vnd.flatgeobuf",
    Format.GEOPARQUET: "application/vnd.apache.parquet",
    Format.GEOJSON: "application/geo+json",
    Format.CSV: "text/csv",
    Format.KML: "application/vnd.google-earth.kml+xml",
}
ROW = "row"
"""Column with the number of an object in the layer `object`, counted from 1."""


def write_objects(table: pa.Table, folder: Path, formats: tuple[Format, ...]) -> Iterator[Path]:
    """Writes objects in each format and yields the files.

    All have the column `row`; some formats have an order of their own.

    Args:
        table: objects, as `query.find_objects` returns them.
        folder: where `objects.fgb` and so on are written.
        formats: the formats.
    """
    import pyarrow as pa

    from earthgptx.pipeline.results.formats import geojson_texts, write_geoparquet
    from earthgptx.pipeline.results.object_table import to_frame

    table = table.add_column(0, ROW, pa.array(range(1, len(table) + 1), pa.int64()))
    frame = to_frame(table)
    for each in formats:
        path = folder / f"objects.{each}"
        if each == Format.GEOJSON:
            with path.open("w", encoding="utf-8") as file:
                file.writelines(geojson_texts(table))
        elif each == Format.GEOPARQUET:
            write_geoparquet(frame, path)
        elif each == Format.CSV:
            _with_places(frame).to_csv(path, index=False)
        else:
            _write_by_gdal(frame, path, each)
        yield path


def printable(text: str) -> str:
    """Returns a text without the control characters that XML cannot hold."""
    return "".join(each if each.isprintable() or each in "\t\n" else " " for each in text)


def _with_places(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Returns the table with a point inside each outline in place of the outline."""
    import shapely

    places = shapely.point_on_surface(frame.geometry.values)
    plain = frame.drop(columns="geometry")
    return plain.assign(lon=shapely.get_x(places), lat=shapely.get_y(places))


def _write_by_gdal(frame: gpd.GeoDataFrame, path: Path, kind: Format) -> None:
    import pyogrio

    if kind == Format.KML:
        # Columns by which KML names and describes a place; its own `model` is a model in 3-D.
        names = {"label": "Name", "caption": "description", "model": "model_name"}
        # Readers of KML that keep numbers as doubles would round 63-bit ids.
        frame = frame.astype({"object_id": str, "track_id": str}).rename(columns=names)
        for name in ("Name", "description"):
            frame[name] = frame[name].map(printable)
    pyogrio.write_dataframe(
        frame,
        path,
        driver="LIBKML" if kind == Format.KML else "FlatGeobuf",
        layer="objects",
        geometry_type="MultiPolygon",
        promote_to_multi=True,
    )
    # GDAL's writer of KML says nothing of a full disk.
    if pyogrio.read_info(path, force_feature_count=True)["features"] != len(frame):
        raise OSError(errno.ENOSPC, "the file does not hold what was written to it", str(path))
