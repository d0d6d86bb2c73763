"""Content keys: whether what a block saw, or what a slice consists of, is still what it was.

A key of an Item changes when its files, its place, its time or its version do. Those of a block and
of a slice are made of the keys of their Items, in mosaic order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.moments import start_of
from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.planning.blocks import PlacedPrompt
from earthgptx.pipeline.reading.sources import Source


def item_key(item: pystac.Item, source: Source, footprint: BaseGeometry) -> str:
    """Returns the content key of an Item.

    Args:
        item: the Item.
        source: what is read of it.
        footprint: its footprint, lon/lat.
    """
    return digest(
        [
            source.name,
            start_of(item).astimezone(UTC).isoformat(),
            shapely.normalize(footprint).wkb.hex(),
            sorted({redacted(each.href) for each in source.documents}),
            [
                [each.radiometry.scale, each.radiometry.offset, each.radiometry.nodata]
                for each in source.channels
            ],
            # They decide whether a file is taken for its own.
            [
                [*raster.grid.transform[:6], *raster.grid.shape]
                for raster in source.rasters
                if raster.grid
            ],
            _version(item),
        ]
    )


def prompt_key(prompt: PlacedPrompt) -> str:
    """Returns the content key of an object that is a visual prompt."""
    return digest([prompt.id, shapely.to_wkb(prompt.shape, hex=True)])


def digest(parts: object) -> str:
    """Returns 16 hexadecimal digits of a hash of a JSON document."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def joined(keys: Iterable[str]) -> str:
    """Returns the content key of what is made of things with these keys, in this order."""
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]


def _version(item: pystac.Item) -> list[str]:
    """Returns the checksums of an Item's files if all have one, else when it was updated."""
    sums = [asset.extra_fields.get("file:checksum") for _, asset in sorted(item.assets.items())]
    if sums and all(sums):
        return [str(each) for each in sums]
    updated = item.common_metadata.updated
    if updated is None:
        return []
    return [
        (updated if updated.tzinfo else updated.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    ]
