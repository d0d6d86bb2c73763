"""One search for all kinds of catalogs: a STAC API, a static catalog, a stac-geoparquet file.

Takes collections, an AOI, a time range and a filter, and returns pystac Items. Every worker loads
this module, so slow imports are inside the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import cql2
import pystac
import shapely
from requests.exceptions import RequestException
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Access, Opening
from earthgptx.catalogs.api_search import api_items
from earthgptx.catalogs.errors import CatalogDown, CatalogError, NoItems
from earthgptx.catalogs.geoparquet import item_of, thaw
from earthgptx.catalogs.interval import Interval
from earthgptx.catalogs.moments import by_time, meets, span_of, start_of
from earthgptx.catalogs.redaction import redacted
from earthgptx.catalogs.stac_io import read_json, read_static

TOLD = 250
"""Items after which the progress of a search is told."""
MOST_CATALOGS = 100_000
"""Catalogs and collections of a static catalog that are read."""


def search(
    catalog: str,
    *,
    collections: tuple[str, ...],
    aoi: BaseGeometry,
    time: Interval,
    filter: str | None = None,
    opening: Opening | None = None,
    assets: Collection[str] = (),
    warn: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[pystac.Item]:
    """Returns the Items that match the collections, the AOI, the time range and the filter.

    An Item matches the AOI if its footprint intersects it, or if it has none. Items are sorted by
    start time, collection and id, without duplicates. The result does not depend on the kind of
    catalog.

    Args:
        catalog: address of a static catalog, a STAC API, or a stac-geoparquet file.
        collections: collection ids, at least one.
        aoi: area of interest, lon/lat.
        time: closed interval, UTC; None for an open end.
        filter: CQL2 text. Always applied here, and also by servers that announce filtering.
        opening: how the catalog is opened, and where its links may lead; None for its usual way.
        assets: keys of the assets that are needed, where leaving others out saves memory; empty for
            all.
        warn: takes a sentence for each thing that may make the answer incomplete.
        tell: takes a sentence about the progress, now and then.

    Raises:
        CatalogDown: the catalog does not answer completely; no partial result is returned.
        NoItems: no Item matches.
        CatalogError: the filter is not CQL2 text, or the server refuses the search.
    """
    from pystac_client.exceptions import APIError

    expression = parse_filter(filter) if filter else None
    try:
        opening = opening or Opening.of(catalog, Access())
        found: list[pystac.Item] = []
        for item in _candidates(catalog, collections, aoi, time, expression, opening, assets, warn):
            found.append(item)
            if len(found) % TOLD == 0:
                tell(f"searching: {len(found):,} items so far")
    except (RequestException, APIError, OSError) as error:
        perhaps = " (if it goes on, it may not bear source.filter)" if expression else ""
        raise CatalogDown(
            f"catalog {redacted(catalog)} did not answer to the end "
            f"({type(error).__name__}: {error}); nothing was kept, try again later{perhaps}"
        ) from error
    in_collections = _of_collections(found, collections, warn)
    in_time = [item for item in in_collections if meets(item, time)]
    in_aoi = [item for item in in_time if _may_meet(item, aoi)]
    kept = [item for item in in_aoi if expression is None or _passes(item, expression)]
    if not kept:
        if redacted(catalog).endswith(".parquet"):  # to say what is there, all of it
            found = thaw(catalog)
            in_collections = _of_collections(found, collections, warn)
            in_time = [item for item in in_collections if meets(item, time)]
        raise NoItems(_why_nothing(catalog, collections, found, in_collections, in_time, in_aoi))
    unique = {(item.collection_id, item.id): item for item in kept}
    return by_time(unique.values())


def parse_filter(text: str) -> cql2.Expr:
    """Parses and validates a CQL2 text.

    Raises:
        CatalogError: the text is not CQL2.
    """
    try:
        expression = cql2.parse_text(text)
        expression.validate()
    except Exception as error:  # cql2 has no common error type
        first = str(error).strip().splitlines()[0]
        raise CatalogError(
            f"filter '{text}' is no CQL2 text ({first}); for example: eo:cloud_cover < 60"
        ) from error
    return expression


def _candidates(
    catalog: str,
    collections: tuple[str, ...],
    aoi: BaseGeometry,
    time: Interval,
    expression: cql2.Expr | None,
    opening: Opening,
    assets: Collection[str],
    warn: Callable[[str], None],
) -> Iterator[pystac.Item]:
    if redacted(catalog).endswith(".parquet"):
        yield from thaw(catalog, collections=collections, aoi=aoi, time=time, assets=assets)
        return
    document = read_json(catalog, opening)
    if document.get("type") == "Catalog" and "conformsTo" in document:
        for found in api_items(
            catalog,
            collections=collections,
            aoi=aoi,
            interval=time,
            expression=expression,
            opening=opening,
            warn=warn,
        ):
            try:
                yield item_of(found)
            except Exception as error:  # pystac's errors have no common type
                warn(f"item {found.get('id')} is left out, it is no STAC Item: {error!r}")
    else:
        yield from _walk(read_static(catalog, opening), warn, set())


def _walk(
    catalog: pystac.Catalog, warn: Callable[[str], None], seen: set[str]
) -> Iterator[pystac.Item]:
    """Yields the Items of a static catalog and of those below it; says which cannot be read."""
    place = catalog.get_self_href() or str(id(catalog))
    if place in seen:
        return
    seen.add(place)
    if len(seen) > MOST_CATALOGS:
        raise CatalogError(
            f"{redacted(place)} is one of more than {MOST_CATALOGS:,} catalogs below one; name a "
            "catalog further down as source.catalog"
        )
    for link in [*catalog.get_item_links(), *catalog.get_child_links()]:
        try:
            link.resolve_stac_object(root=catalog.get_root())
            found = link.target
            if isinstance(found, pystac.Item):
                found.make_asset_hrefs_absolute()
                yield found
        except Exception as e:  # pystac's errors have no common type
            cause = e.__cause__ or e
            if isinstance(cause, CatalogDown):
                raise cause from e
            warn(f"left out, as it is no STAC document: {link.get_href()} ({cause})")
            continue
        if isinstance(found, pystac.Catalog):
            yield from _walk(found, warn, seen)


def _of_collections(
    found: list[pystac.Item], collections: tuple[str, ...], warn: Callable[[str], None]
) -> list[pystac.Item]:
    return [item for item in found if item.collection_id in collections and _has_time(item, warn)]


def _has_time(item: pystac.Item, warn: Callable[[str], None]) -> bool:
    try:
        span_of(item)
    except (CatalogError, ValueError, TypeError, AttributeError, OverflowError) as error:
        warn(f"left out: item {item.id}: {error}")
        return False
    return True


def _may_meet(item: pystac.Item, aoi: BaseGeometry) -> bool:
    """Whether a footprint intersects the AOI; True if it is null or no geometry in degrees.

    Whoever knows the assets decides about those.
    """
    try:
        footprint = shapely.geometry.shape(item.geometry)
        west, south, east, north = footprint.bounds
        in_degrees = west >= -180 and east <= 180 and south >= -90 and north <= 90
        # One that spans more than half the Earth may cross the antimeridian without being cut.
        sound = in_degrees and not footprint.is_empty and east - west <= 180
        return not sound or bool(shapely.intersects(footprint, aoi))
    except (AttributeError, KeyError, TypeError, ValueError, shapely.GEOSException):
        return True


def _passes(item: pystac.Item, expression: cql2.Expr) -> bool:
    try:
        return bool(
            expression.matches(item.to_dict(include_self_link=False, transform_hrefs=False))
        )
    except Exception:  # cql2 fails if the Item lacks the property; as SQL's NULL, that is not true
        return False


def _why_nothing(
    catalog: str,
    collections: tuple[str, ...],
    found: list[pystac.Item],
    in_collections: list[pystac.Item],
    in_time: list[pystac.Item],
    in_aoi: list[pystac.Item],
) -> str:
    place = redacted(catalog)
    if not found:
        return (
            f"{place} holds no items that match; "
            "check source.aoi, source.time and source.collections"
        )
    if not in_collections:
        there = sorted({item.collection_id or "(none)" for item in found})
        return f"{place} has no collection {', '.join(collections)}; it has {', '.join(there)}"
    if not in_time:
        moments = sorted(start_of(item) for item in in_collections)
        return (
            f"no item of {place} is in source.time; "
            f"they are from {moments[0]:%Y-%m-%d} to {moments[-1]:%Y-%m-%d}"
        )
    if not in_aoi:
        boxes = [item.bbox for item in in_time if item.bbox]
        span = [
            min(b[0] for b in boxes),
            min(b[1] for b in boxes),
            max(b[2] for b in boxes),
            max(b[3] for b in boxes),
        ]
        west, south, east, north = (round(value, 4) for value in span)
        return (
            f"source.aoi lies outside all {len(in_time)} items of {place}; "
            f"together they cover lon {west} to {east}, lat {south} to {north}"
        )
    return f"source.filter leaves none of the {len(in_aoi)} items of {place}; loosen it"
