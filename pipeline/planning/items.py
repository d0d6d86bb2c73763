"""Sets aside the Items of a search that cannot be used, and mends footprints that are odd.

An Item that cannot be used breaks only its own ground: it is left out of the plan and listed with
the reason, as long as a job allows so many (`source.max_failed_items`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import pystac
import shapely
from pyproj.exceptions import ProjError
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.profiles import CollectionProfile
from earthgptx.catalogs.redaction import redact
from earthgptx.catalogs.search import start_of
from earthgptx.pipeline.errors import JobError, Outage, SourceError
from earthgptx.pipeline.job.lonlat import bbox, crosses
from earthgptx.pipeline.job.vectors import LONLAT
from earthgptx.pipeline.planning.projection import to_lonlat, transformer
from earthgptx.pipeline.reading.assets import NativeGrid, assets_of, native_grid

# A catalog may write anything anywhere.
_ODD = (
    CatalogError,
    CRSError,
    JobError,
    ProjError,
    SourceError,
    AttributeError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
)
HEADERS = 8
"""Headers of files that are read at the same time."""
GROUP = 64
"""Items that a thread looks at in turn: handing over each of them would cost more."""
SHOWN = 3
"""Refused Items that an error names."""


@dataclass
class UsableItems:
    """Items of a plan with what is known of each."""

    items: list[pystac.Item] = field(default_factory=list)
    profiles: list[CollectionProfile] = field(default_factory=list)
    natives: list[NativeGrid] = field(default_factory=list)
    """Native grid of each Item's first band."""
    footprints: list[BaseGeometry] = field(default_factory=list)
    """Footprint of each Item, lon/lat, cut at the antimeridian."""
    refused: dict[str, str] = field(default_factory=dict)
    """Reason by id of each Item that cannot be used."""
    mended: list[str] = field(default_factory=list)
    """Ids of the Items whose footprint was replaced by the extent of their asset."""


def usable_items(
    items: Sequence[pystac.Item],
    profiles: Sequence[CollectionProfile],
    aoi: BaseGeometry,
    opening: Opening,
    *,
    allowed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> UsableItems:
    """Returns the Items that can be used.

    Args:
        items: Items of a search. Their geometry may be null.
        profiles: profile of each Item.
        aoi: area of interest, lon/lat; Items with a mended footprint outside it are dropped.
        opening: what is needed to open the imagery.
        allowed: Items that may be refused.
        tell: takes a sentence about the progress, now and then.

    Raises:
        JobError: more Items are refused, or all of them.
        Outage: the header of an asset, which an Item does not declare, cannot be read for now.
    """
    found = UsableItems()
    looked_at = _all(opening, items, profiles)
    for number, (item, profile, seen) in enumerate(zip(items, profiles, looked_at, strict=True)):
        if number % GROUP == 0:
            tell(f"planning: {number:,} of {len(items):,} items looked at")
        if isinstance(seen, str):
            found.refused[item.id] = seen
            if len(found.refused) > allowed:
                break
            continue
        if seen.mended and not seen.footprint.intersects(aoi):
            continue
        lean = _lean(item, seen.keys)
        if seen.mended:
            lean.geometry = shapely.geometry.mapping(seen.footprint)
            lean.bbox = bbox(seen.footprint)
            found.mended.append(item.id)
        found.items.append(lean)
        found.profiles.append(profile)
        found.natives.append(seen.native)
        found.footprints.append(seen.footprint)
    if len(found.refused) > allowed or not found.items:
        raise JobError(_too_many(found.refused, len(items)))
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of an Item that can be used."""

    keys: list[str]
    native: NativeGrid
    footprint: BaseGeometry
    mended: bool
    """Whether the footprint is not the Item's own."""


def _all(
    opening: Opening, items: Sequence[pystac.Item], profiles: Sequence[CollectionProfile]
) -> Iterator[_Seen | str]:
    """Yields what is known of each Item; headers are read in parallel, in groups of Items."""
    size = min(max(len(items) // HEADERS, 1), GROUP)
    ended = Event()
    outages: list[Outage] = []

    def look(start: int) -> list[_Seen | str]:
        group = slice(start, start + size)
        found = []
        for item, profile in zip(items[group], profiles[group], strict=True):
            if ended.is_set():
                break
            try:
                found.append(_look_at(opening, item, profile))
            except Outage as error:
                outages.append(error)
                ended.set()
        return found

    with ThreadPoolExecutor(HEADERS) as pool:
        try:
            for group in pool.map(look, range(0, len(items), size)):
                if outages:
                    raise outages[0]
                yield from group
        finally:
            ended.set()  # also if the user interrupts, or enough Items are refused


def _look_at(opening: Opening, item: pystac.Item, profile: CollectionProfile) -> _Seen | str:
    """Returns what is known of an Item, or why it cannot be used.

    Raises:
        Outage: its header is needed and cannot be read for now.
    """
    try:
        start_of(item)
        keys = assets_of(item, profile)
        for key in keys:
            opening.reach.check(opening.address(item.assets[key]))
        native = native_grid(item, keys[0], opening, declared=not profile.radar_geometry)
        given = _sound_footprint(item)
        if given is not None and _middle(native).intersects(given.envelope):
            return _Seen(keys, native, given, mended=False)
        extent = to_lonlat(shapely.box(*native.bounds), native.crs.to_wkt())
        if given is not None and extent.intersects(given):
            return _Seen(keys, native, given, mended=False)
        return _Seen(keys, native, extent, mended=True)
    except _ODD as error:
        if isinstance(error, SourceError) and error.passing:
            raise Outage(str(error)) from error
        return redact(f"{error}") or type(error).__name__


def _lean(item: pystac.Item, keys: Sequence[str]) -> pystac.Item:
    """Returns an Item with only the assets that are read, and without links but its own.

    Plans are sent to replicas and written beside results.
    """
    lean = pystac.Item(
        item.id,
        item.geometry,
        item.bbox,
        item.datetime,
        item.properties,
        stac_extensions=item.stac_extensions,
        collection=item.collection_id,
        assets={key: item.assets[key] for key in keys},
    )
    own = item.get_self_href()
    if own:
        lean.set_self_href(own)
    return lean


def _sound_footprint(item: pystac.Item) -> BaseGeometry | None:
    """Returns an Item's footprint; None if it is odd, and the extent of the asset should count.

    Odd is what is null, empty, no polygon, not in degrees, or crosses the antimeridian without
    being cut there. One that lies apart from the asset is odd too, as `_look_at` finds.
    """
    try:
        given = shapely.make_valid(shapely.geometry.shape(item.geometry))
        west, south, east, north = given.bounds
        in_degrees = west >= -180 and east <= 180 and south >= -90 and north <= 90
        whole = not crosses(np.array([given], object))[0]
    except (AttributeError, KeyError, TypeError, ValueError, shapely.GEOSException):
        return None
    return given if in_degrees and whole and given.area > 0 else None


def _middle(native: NativeGrid) -> BaseGeometry:
    """Returns the centre of an asset, lon/lat."""
    west, south, east, north = native.bounds
    move = transformer(native.crs.to_wkt(), LONLAT)
    return shapely.Point(*move.transform((west + east) / 2, (south + north) / 2))


def _too_many(refused: Mapping[str, str], count: int) -> str:
    if not refused:
        return f"none of {count} items lies in source.aoi, though their footprints say so"
    reasons = "; ".join(list(refused.values())[:SHOWN])
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    return (
        f"{len(refused)} of {count} items cannot be used, more than source.max_failed_items "
        f"allows, or none is left: {reasons}{more}"
    )
