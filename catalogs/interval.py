"""Intervals of time as a job file and a query write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from earthgptx.catalogs.errors import CatalogError

Interval = tuple[datetime | None, datetime | None]


def parse_interval(text: str) -> Interval:
    """Parses a closed UTC interval.

    Args:
        text: `A/B`, `A/..`, `../B` or `A`; A and B are RFC 3339 times, days, months or years.

    Raises:
        CatalogError: the text is not an interval, or ends before it starts.
    """
    first, slash, last = text.partition("/")
    try:
        start = None if first in ("", "..") else _moment(first)
        end_text = last if slash else first
        end = None if end_text in ("", "..") else _moment_end(end_text)
    except ValueError as error:
        raise CatalogError(f"time '{text}' is no interval; write 2026-01-01/2026-03-31") from error
    if start and end and start > end:
        raise CatalogError(f"time '{text}' ends before it starts; write the earlier date first")
    return start, end


def _moment(text: str) -> datetime:
    if len(text) == 4:
        return datetime(int(text), 1, 1, tzinfo=UTC)
    if len(text) == 7:
        return datetime(int(text[:4]), int(text[5:]), 1, tzinfo=UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment_end(text: str) -> datetime:
    start = _moment(text)
    just_before = timedelta(microseconds=1)
    if len(text) == 4:
        return start.replace(year=start.year + 1) - just_before
    if len(text) == 7:
        return (start + timedelta(days=32)).replace(day=1) - just_before
    return start + timedelta(days=1) - just_before if len(text) == 10 else start
