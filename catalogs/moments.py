"""When an Item was taken."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pystac

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import Interval


def start_of(item: pystac.Item) -> datetime:
    """Returns the acquisition time of an Item, UTC; the start if the Item spans a range.

    Raises:
        CatalogError: the Item has neither datetime nor start_datetime.
    """
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise CatalogError(
            f"item {item.id} has neither datetime nor start_datetime; leave it out of the catalog"
        )
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def span_of(item: pystac.Item) -> tuple[datetime, datetime]:
    """Returns when an Item begins and ends, UTC."""
    first = start_of(item)
    last = item.common_metadata.end_datetime or first
    return first, last if last.tzinfo else last.replace(tzinfo=UTC)


def by_time(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    """Returns Items sorted by time; those of one moment by collection and id."""
    return sorted(items, key=lambda item: (start_of(item), item.collection_id or "", item.id))


def meets(item: pystac.Item, time: Interval) -> bool:
    """Whether an Item shares a moment with a closed interval."""
    start, end = time
    first, last = span_of(item)
    return (end is None or first <= end) and (start is None or last >= start)
