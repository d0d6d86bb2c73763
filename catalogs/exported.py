"""A STAC Collection of an exported result, with an Item for each time slice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """A file of an export."""

    name: str
    """Path from the Collection."""
    key: str
    """Key of the asset."""
    media_type: str
    description: str
    roles: tuple[str, ...] = ("data",)
    bands: tuple[str, ...] = ()
    """Names of the bands of a raster."""
    crs: str | None = None
    """Code of a raster's CRS, such as EPSG:32631; None for one without, and for tables."""
    wkt: str = ""
    """CRS of a raster as WKT2."""
    shape: tuple[int, int] | None = None
    transform: tuple[float, ...] = ()
    classes: Mapping[int, tuple[str, str]] | None = None
    """Name and colour (#rrggbb; empty for none) of each value; None for values that are none."""
    data_type: str = ""
    """Data type of a raster, as in STAC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedSlice:
    """A time slice of an export."""

    id: str
    start: datetime
    end: datetime
    files: Sequence[ExportedFile]
    properties: Mapping[str, Any]


def write_collection(
    folder: Path,
    *,
    id: str,
    description: str,
    ground: BaseGeometry,
    bbox: Sequence[float],
    slices: Sequence[ExportedSlice],
    files: Sequence[ExportedFile],
) -> list[Path]:
    """Writes `collection.json`, and an Item for each slice into `items/`.

    Args:
        folder: folder of the exported files.
        id: id of the Collection.
        description: what it is.
        ground: what the rasters cover, lon/lat, cut at the antimeridian.
        bbox: west, south, east, north of it; west exceeds east across the antimeridian.
        slices: the time slices, with their rasters.
        files: files of all slices together.

    Returns:
        Paths of the written files.
    """
    extent = pystac.Extent(
        pystac.SpatialExtent([list(bbox)]),
        pystac.TemporalExtent(
            [[min(each.start for each in slices), max(each.end for each in slices)]]
        ),
    )
    collection = pystac.Collection(
        id=id, description=description, extent=extent, license="other", href="collection.json"
    )
    for file in files:
        collection.add_asset(file.key, _asset(file, "./"))
    items = []
    for each in slices:
        item = pystac.Item(
            id=each.id,
            geometry=shapely.geometry.mapping(ground),
            bbox=list(bbox),
            datetime=None,
            start_datetime=each.start,
            end_datetime=each.end,
            properties=dict(each.properties),
            stac_extensions=EXTENSIONS,
            collection=id,
        )
        for file in each.files:
            item.add_asset(file.key, _asset(file, "../"))
        items.append(item)
    return _write(folder, collection, items)


def _asset(file: ExportedFile, up: str) -> pystac.Asset:
    more: dict[str, Any] = {}
    if file.shape is not None:
        more = {
            "proj:code": file.crs,
            "proj:shape": list(file.shape),
            "proj:transform": list(file.transform),
            "data_type": file.data_type,
            "nodata": 0,
        }
        if file.crs is None:
            more["proj:wkt2"] = file.wkt
        if len(file.bands) > 1:
            more["bands"] = [{"name": name} for name in file.bands]
    if file.classes is not None:
        more["classification:classes"] = [
            {
                "value": value,
                "name": "".join(c if c.isascii() and c.isalnum() else "_" for c in name) or "_",
                "description": name,
                **({"color_hint": colour.removeprefix("#").upper()} if colour else {}),
            }
            for value, (name, colour) in file.classes.items()
        ]
    return pystac.Asset(
        f"{up}{file.name}",
        media_type=file.media_type,
        description=file.description,
        roles=list(file.roles),
        extra_fields=more,
    )


def _write(folder: Path, collection: pystac.Collection, items: Sequence[pystac.Item]) -> list[Path]:
    """Writes the documents with relative links: the folder may be moved."""
    (folder / "items").mkdir()
    links = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
    written = []
    for item in items:
        path = folder / "items" / f"{item.id}.json"
        document = item.to_dict(include_self_link=False, transform_hrefs=False)
        document["links"] = [
            {"rel": rel, "href": "../collection.json", "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ]
        written.append(_write_json(path, document))
        href = f"./items/{path.name}"
        links.append({"rel": "item", "href": href, "type": "application/geo+json"})
    document = collection.to_dict(include_self_link=False, transform_hrefs=False)
    document["links"] = links
    return [_write_json(folder / "collection.json", document), *written]


def _write_json(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path
