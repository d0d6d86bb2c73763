"""Intervals of time as a job file and a query write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dateutil.relativedelta import relativedelta

from earthgptx.catalogs.errors import CatalogError

_DURATION = re.compile(
    r"P(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
DAYS = {
    "years": 366.0,
    "months": 31.0,
    "weeks": 7.0,
    "days": 1.0,
    "hours": 1 / 24,
    "minutes": 1 / 1440,
    "seconds": 1 / 86400,
}
"""Longest days of each part of a duration."""
LONGEST_DAYS = 366_000
Interval = tuple[datetime | None, datetime | None]


def parse_interval(text: str, now: datetime | None = None) -> Interval:
    """Parses a closed UTC interval.

    Args:
        text: `A/B`, `A/..`, `../B` or `A`; A and B are RFC 3339 times, days, months or years, or
            lie in the past by an ISO 8601 duration: `-P30D/..`.
        now: what such durations count from; None for the present.

    Raises:
        CatalogError: the text is not an interval, or ends before it starts.
    """
    first, slash, last = text.partition("/")
    try:
        now = now or datetime.now(UTC)
        start = None if first in ("", "..") else _ago(first, now) or _moment(first)
        end_text = last if slash else first
        end = None if end_text in ("", "..") else _ago(end_text, now) or _moment_end(end_text)
        if not slash and _ago(first, now):
            raise ValueError("a duration alone")
    except (ValueError, OverflowError, CatalogError) as error:
        raise CatalogError(
            f"time '{text}' is no interval; "
            "write 2026-01-01/2026-03-31, or -P30D/.. for the last 30 days"
        ) from error
    if start and end and start > end:
        raise CatalogError(f"time '{text}' ends before it starts; write the earlier date first")
    return start, end


def duration(text: str) -> relativedelta:
    """Parses an ISO 8601 duration such as P3D or PT6H.

    Raises:
        CatalogError: the text is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise CatalogError(f"'{text}' is no duration; write P3D for three days, PT6H for six hours")
    numbers = {name: int(number) for name, number in found.groupdict("0").items()}
    days = sum(DAYS[name] * number for name, number in numbers.items())
    if days > LONGEST_DAYS:
        raise CatalogError(f"'{text}' is longer than a thousand years")
    return relativedelta(**numbers)


def _ago(text: str, now: datetime) -> datetime | None:
    """Returns the time before `now` by a duration; None if the text is none."""
    found = _DURATION.fullmatch(text.removeprefix("-"))
    if not text.startswith("-") or found is None or not any(found.groups()):
        return None
    return now - duration(text.removeprefix("-"))


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
