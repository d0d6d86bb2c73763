"""Publishes a result as a STAC Item with its provenance.

Uses the STAC extensions projection, processing, classification and mlm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec
import pystac
import shapely
from shapely.geometry.base import BaseGeometry

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
    """Answer area, lon/lat."""
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
    plan_id: str
    software: dict[str, str]
    sources: tuple[str, ...]
    """Unsigned addresses, or ids, of the source Items."""


def publish(result: Published, href: str, assets: dict[str, tuple[str, str]]) -> pystac.Item:
    """Writes the Item of a result and returns it.

    Args:
        result: content of the Item.
        href: URL that the Item is written to.
        assets: href and media type by asset key; must have `raster`, which gets the classes.
    """
    properties: dict[str, Any] = {
        "start_datetime": _text(result.start),
        "end_datetime": _text(result.end),
        "processing:datetime": _text(datetime.now(UTC)),
        "processing:software": result.software,
        "processing:lineage": f"plan {result.plan_id}",
        "mlm:name": result.model,
        "mlm:architecture": result.model,
        "mlm:framework": "earthgptx",
        "mlm:tasks": list(result.tasks),
        "mlm:model_digest": result.model_digest,
    }
    properties["proj:code"] = (
        result.crs[0] if len(result.crs) == 1 and result.crs[0].startswith("EPSG:") else None
    )
    item = pystac.Item(
        id=result.id,
        geometry=shapely.geometry.mapping(result.geometry),
        bbox=list(result.geometry.bounds),
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
    with fsspec.open(href, "w", encoding="utf-8") as file:
        json.dump(item.to_dict(include_self_link=False, transform_hrefs=False), file, indent=1)
    return item


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
