"""Sets aside the Items of a search that cannot be used, and mends footprints that are odd.

An Item that cannot be used breaks only its own ground: it is left out of the plan and listed with
the reason, as long as a job allows so many (`source.max_failed_items`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeVar

import numpy as np
import pystac
import shapely
from pyproj.exceptions import ProjError
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.moments import start_of
from earthgptx.catalogs.profiles import CollectionProfile
from earthgptx.catalogs.redaction import redact
from earthgptx.pipeline.errors import JobError, Outage, SourceError
from earthgptx.pipeline.job.lonlat import LONLAT, bbox, crosses
from earthgptx.pipeline.planning.projection import to_lonlat, transformer
from earthgptx.pipeline.reading.assets import open_raster
from earthgptx.pipeline.reading.native import NativeGrid, header_grid
from earthgptx.pipeline.reading.sources import Source, source_of

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
TOLD = 64
"""Items between two sentences about the progress."""
SHOWN = 3
"""Refused Items that an error names."""


Found = TypeVar("Found")


@dataclass
class UsableItems:
    """Items of a plan with what is known of each."""

    items: list[pystac.Item] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    """What is read of each Item."""
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
    least: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> UsableItems:
    """Returns the Items that can be used.

    Args:
        items: Items of a search. Their geometry may be null.
        profiles: profile of each Item.
        aoi: area of interest, lon/lat; Items with a mended footprint outside it are dropped.
        opening: what is needed to open the imagery.
        allowed: Items that may be refused.
        least: Items that have to be left.
        tell: takes a sentence about the progress, now and then.

    Raises:
        JobError: more Items are refused, or all of them.
        Outage: the header of an asset, which an Item does not declare, cannot be read for now.
    """
    found = UsableItems()
    looked_at = _all(opening, items, profiles)
    for number, (item, seen) in enumerate(zip(items, looked_at, strict=True)):
        if number % TOLD == 0:
            tell(f"planning: {number:,} of {len(items):,} items looked at")
        if isinstance(seen, str):
            found.refused[item.id] = seen
            if len(found.refused) > allowed:
                break
            continue
        if seen.mended and not seen.footprint.intersects(aoi):
            continue
        lean = _lean(item, seen.source)
        if seen.mended:
            lean.geometry = shapely.geometry.mapping(seen.footprint)
            lean.bbox = bbox(seen.footprint)
            found.mended.append(item.id)
        found.items.append(lean)
        found.sources.append(seen.source)
        found.natives.append(seen.native)
        found.footprints.append(seen.footprint)
    if len(found.refused) > allowed or len(found.items) < least:
        raise JobError(_too_many(found.refused, len(items)))
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of an Item that can be used."""

    source: Source
    native: NativeGrid
    footprint: BaseGeometry
    mended: bool
    """Whether the footprint is not the Item's own."""


def _all(
    opening: Opening, items: Sequence[pystac.Item], profiles: Sequence[CollectionProfile]
) -> Iterator[_Seen | str]:
    """Yields what is known of each Item, or why it cannot be used.

    Only headers are read in parallel: at the rest, threads would take turns.

    Raises:
        Outage: a header that is needed cannot be read for now.
    """
    sources = [
        _attempt(_source, item, profile, opening)
        for item, profile in zip(items, profiles, strict=True)
    ]
    ended = Event()
    outages: list[Outage] = []

    def header(source: Source) -> NativeGrid | str:
        if ended.is_set():
            return "not looked at"
        try:
            return _attempt(_header, source, opening)
        except Outage as error:
            outages.append(error)
            ended.set()
            return str(error)

    with ThreadPoolExecutor(HEADERS) as pool:
        read = {
            at: pool.submit(header, source)
            for at, source in enumerate(sources)
            if isinstance(source, Source) and source.rasters[0].grid is None
        }
        try:
            for at, (item, source) in enumerate(zip(items, sources, strict=True)):
                native = read[at].result() if at in read else None
                if outages:
                    raise outages[0]
                if isinstance(source, str):
                    yield source
                elif isinstance(native, str):
                    yield native
                else:
                    yield _attempt(_placed, item, source, native or source.rasters[0].grid)
        finally:
            ended.set()  # also if the user interrupts, or enough Items are refused


def _attempt(step: Callable[..., Found], *args: Any) -> Found | str:
    """Returns what a step returns, or why the Item cannot be used.

    Raises:
        Outage: the step fails for what may pass.
    """
    try:
        return step(*args)
    except _ODD as error:
        if isinstance(error, SourceError) and error.passing:
            raise Outage(str(error)) from error
        return redact(f"{error}") or type(error).__name__


def _source(item: pystac.Item, profile: CollectionProfile, opening: Opening) -> Source:
    """Returns what is read of an Item, if the job may open it."""
    start_of(item)
    source = source_of(item, profile, opening)
    for document in source.documents:
        opening.reach.check(document.href)
    return source


def _header(source: Source, opening: Opening) -> NativeGrid:
    """Returns the grid of the first channel's raster by its header."""
    first = source.rasters[0]
    with open_raster(first, opening) as raster:
        return header_grid(raster, first.where)


def _placed(item: pystac.Item, source: Source, native: NativeGrid) -> _Seen:
    """Returns an Item with its footprint: its own, unless it is odd or lies elsewhere."""
    given = _sound_footprint(item)
    if given is not None and _middle(native).intersects(given.envelope):
        return _Seen(source, native, given, mended=False)
    extent = to_lonlat(shapely.box(*native.bounds), native.crs.to_wkt())
    if given is not None and extent.intersects(given):
        return _Seen(source, native, given, mended=False)
    return _Seen(source, native, extent, mended=True)


def _lean(item: pystac.Item, source: Source) -> pystac.Item:
    """Returns an Item with only the assets that are read, and without links but its own.

    It is written beside the result.
    """
    lean = pystac.Item(
        item.id,
        item.geometry,
        item.bbox,
        item.datetime,
        item.properties,
        stac_extensions=item.stac_extensions,
        collection=item.collection_id,
        assets={each.key: item.assets[each.key] for each in source.documents},
    )
    own = item.get_self_href()
    if own:
        lean.set_self_href(own)
    return lean


def _sound_footprint(item: pystac.Item) -> BaseGeometry | None:
    """Returns an Item's footprint; None if it is odd, and the extent of the asset should count.

    Odd is what is null, empty, no polygon, not in degrees, or crosses the antimeridian without
    being cut there. One that lies apart from the asset is odd too, as `_placed` finds.
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
