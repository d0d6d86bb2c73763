"""What is read of an Item: its files, and what the Item says of their values and places.

Made once, when a job is planned; what reads imagery sees no Item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pystac

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.profiles import Band, CollectionProfile, Mask
from earthgptx.catalogs.radiometry import Radiometry, radiometry_of
from earthgptx.catalogs.redaction import redacted
from earthgptx.pipeline.errors import SourceError
from earthgptx.pipeline.reading.native import NativeGrid, declared_grid

SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
"""Bytes of a value by the digits at the end of its data type."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file of an Item."""

    item: str
    """Id of the Item."""
    key: str
    """Of the asset."""
    href: str
    """Address; not signed."""

    @property
    def where(self) -> str:
        """Asset, Item and redacted address, for messages."""
        return f"asset {self.key} of item {self.item} ({redacted(self.href)})"


@dataclass(frozen=True, slots=True)
class Raster(Document):
    """A raster of an Item, and what the Item declares of it."""

    bands: int = 0
    """Number of bands; 0 if it is not declared."""
    grid: NativeGrid | None = None
    """The grid of its pixels; None if it is not declared, or not that of the pixels."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What a channel of the model is read from."""

    raster: Raster
    band: Band
    radiometry: Radiometry
    annotation: Document | None
    """Sentinel-1's calibration annotation, if the Item has one."""
    value_bytes: int
    """Bytes of a stored value: as declared, else a guess by the profile."""


@dataclass(frozen=True)
class Source:
    """All that is read of an Item."""

    item: str
    """Id of the Item."""
    collection: str
    profile: CollectionProfile
    channels: tuple[Channel, ...]
    mask: tuple[Raster, Mask] | None
    """The raster that flags unusable pixels, and how; None if the profile has none."""

    @property
    def name(self) -> str:
        """Collection and id."""
        return f"{self.collection}/{self.item}"

    @cached_property
    def rasters(self) -> tuple[Raster, ...]:
        """All rasters; the first channel's is the first."""
        found = [each.raster for each in self.channels]
        if self.mask:
            found.append(self.mask[0])
        return tuple({each.key: each for each in found}.values())

    @property
    def documents(self) -> Iterator[Document]:
        """All files."""
        yield from self.rasters
        yield from {each.annotation: 0 for each in self.channels if each.annotation}

    @cached_property
    def pixel_bytes(self) -> int:
        """Bytes that the bands and the mask take for a pixel."""
        sizes = {(one.raster.key, one.band.index): one.value_bytes for one in self.channels}
        return sum(sizes.values()) + (self.mask is not None)


def source_of(item: pystac.Item, profile: CollectionProfile, opening: Opening) -> Source:
    """Returns what is read of an Item.

    Args:
        item: the Item.
        profile: profile of its collection.
        opening: which of an asset's addresses is opened.

    Raises:
        SourceError: the Item lacks an asset that the profile reads, or declares a grid that no
            image has.
        CRSError: the Item declares an invalid CRS.
    """
    rasters: dict[str, Raster] = {}

    def raster(keys: tuple[str, ...]) -> Raster:
        key = pick_asset(item, keys)
        if key not in rasters:
            asset = item.assets[key]
            grid = None if profile.radar_geometry else declared_grid(item, key)
            rasters[key] = Raster(item.id, key, opening.address(asset), _band_count(asset), grid)
        return rasters[key]

    channels = []
    for band in profile.bands:
        found = raster(band.assets)
        key = next((key for key in band.annotations if key in item.assets), None)
        annotation = Document(item.id, key, opening.address(item.assets[key])) if key else None
        channels.append(
            Channel(
                found,
                band,
                radiometry_of(item, found.key, band, profile),
                annotation,
                _value_bytes(item.assets[found.key], band, profile),
            )
        )
    mask = (raster(profile.mask.assets), profile.mask) if profile.mask else None
    return Source(item.id, item.collection_id or "", profile, tuple(channels), mask)


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


def _band_count(asset: pystac.Asset) -> int:
    """Returns the number of bands that an Item declares for an asset; 0 if it declares none."""
    lists = (asset.extra_fields.get(key) for key in ("raster:bands", "eo:bands", "bands"))
    return max((len(bands) for bands in lists if isinstance(bands, list)), default=0)


def _value_bytes(asset: pystac.Asset, band: Band, profile: CollectionProfile) -> int:
    """Returns the bytes of a value: as declared, else a guess by the profile."""
    for name in ("bands", "raster:bands"):
        listed = asset.extra_fields.get(name)
        if (
            isinstance(listed, list)
            and len(listed) >= band.index
            and isinstance(listed[band.index - 1], dict)
        ):
            digits = re.search(r"(\d+)$", str(listed[band.index - 1].get("data_type", "")))
            if digits and digits[1] in SIZES:
                return SIZES[digits[1]]
    first = profile.bands[0]
    if first.decibels == "power":
        return 4
    return 1 if (first.low, first.high, first.scale) == (0, 255, 1) else 2
