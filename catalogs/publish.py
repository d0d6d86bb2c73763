"""Publishes a result as a STAC Item with its provenance.

Uses the STAC extensions projection, processing, classification and mlm. Every file carries a mark,
so that only files of this package are ever replaced.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Access, Opening
from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.stac_io import read_json, read_static

PLAIN_TYPE = "application/vnd.zarr; version=3"
VERSIONED_TYPE = "application/vnd.zarr+icechunk"
"""Media types of a result's Zarr store: as it lies, and in an Icechunk repository."""
MARK = "earthgptx"
"""Key in the metadata of a Parquet file, and framework in an Item, that say who wrote it."""
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/mlm/v1.5.0/schema.json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Content of a result's Item."""

    id: str
    geometry: BaseGeometry
    """Ground that the imagery shows, lon/lat, cut at the antimeridian."""
    bbox: tuple[float, ...]
    """West, south, east, north; west exceeds east across the antimeridian."""
    start: datetime
    end: datetime
    crs: tuple[str, ...]
    """CRS of each raster group."""
    phrases: tuple[str, ...]
    """Names of the classes 1, 2, ... of the label layer."""
    model: str
    model_digest: str
    tasks: tuple[str, ...]
    """Task names of the mlm extension."""
    series: str
    software: dict[str, str]
    sources: tuple[str, ...]
    """Unsigned addresses, or ids, of the source Items."""


def result_item(result: Published, assets: dict[str, tuple[str, str]]) -> pystac.Item:
    """Returns the Item of a result.

    Args:
        result: content of the Item.
        assets: href and media type by asset key; must have `raster`, which gets the classes.
    """
    properties: dict[str, Any] = {
        "start_datetime": _text(result.start),
        "end_datetime": _text(result.end),
        "processing:datetime": _text(datetime.now(UTC)),
        "processing:software": result.software,
        "processing:lineage": f"series {result.series}",
        "mlm:name": result.model,
        "mlm:architecture": result.model,
        "mlm:framework": MARK,
        "mlm:tasks": list(result.tasks),
        "mlm:model_digest": result.model_digest,
    }
    properties["proj:code"] = (
        result.crs[0] if len(result.crs) == 1 and result.crs[0].startswith("EPSG:") else None
    )
    item = pystac.Item(
        id=result.id,
        geometry=shapely.geometry.mapping(result.geometry),
        bbox=list(result.bbox),
        datetime=None,
        start_datetime=result.start,
        end_datetime=result.end,
        properties=properties,
        stac_extensions=EXTENSIONS,
    )
    for key, (address, media_type) in assets.items():
        item.add_asset(key, pystac.Asset(address, media_type=media_type, roles=["data"]))
    names = ("none", *result.phrases)
    item.assets["raster"].extra_fields["classification:classes"] = [
        {"value": value, "name": name.replace(" ", "_"), "description": name}
        for value, name in enumerate(names)
    ]
    for source in result.sources:
        item.add_link(pystac.Link("derived_from", source, media_type=pystac.MediaType.GEOJSON))
    return item


def item_bytes(item: pystac.Item) -> bytes:
    """Returns an Item as a JSON document."""
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    return json.dumps(document, indent=1).encode()


def mark_in(file: Any) -> str:
    """Returns the mark in a Parquet file's metadata; empty if it has none.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return ((pq.read_metadata(file).metadata or {}).get(MARK.encode()) or b"").decode()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def marked_parquet(file: io.BytesIO, mark: str = "1") -> bytes:
    """Returns a Parquet file with our mark in its metadata."""
    table = pq.read_table(file)
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), MARK: mark})
    buffer = io.BytesIO()
    pq.write_table(marked, buffer)
    return buffer.getvalue()


def published_results(catalog: str) -> list[tuple[str, bool]]:
    """Returns the addresses of the results whose Items a STAC document holds.

    Each with whether it lies in an Icechunk repository.

    Args:
        catalog: path or URL of a catalog, a collection or an Item; links are followed where they
            may lead.

    Raises:
        CatalogError: it cannot be read, or holds no Item of a result.
    """
    opening = Opening.of(catalog, Access())
    document = read_json(catalog, opening)
    if document["type"] == "Feature":
        items = [pystac.Item.from_dict(document, href=catalog)]
    else:
        items = list(read_static(catalog, opening).get_items(recursive=True))
    ours = [
        item
        for item in items
        if item.properties.get("mlm:framework") == MARK and "raster" in item.assets
    ]
    if not ours:
        raise CatalogError(f"{catalog} holds no Item of a result; name results themselves")
    rasters = [item.assets["raster"] for item in ours]
    return [
        (asset.get_absolute_href() or "", asset.media_type == VERSIONED_TYPE) for asset in rasters
    ]


def is_ours(name: str, file: Any) -> bool | None:
    """Whether a file beside a result carries our mark; None if it is torn.

    Args:
        name: name of the file; ends in .parquet or .json.
        file: its content, as a binary file object that can seek.
    """
    try:
        if name.endswith(".parquet"):
            return bool(mark_in(file))
        return bool(json.load(file)["properties"]["mlm:framework"] == MARK)
    except (KeyError, TypeError):
        return False
    except (ValueError, OSError):
        return None


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
