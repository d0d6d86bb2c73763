"""Cuts a range of time into chunks, for runs that go through it one after the other. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dateutil.relativedelta import relativedelta

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import duration, parse_interval
from earthgptx.pipeline.errors import JobError

MOST = 10_000
"""Chunks of a range."""


def chunks(first: str, last: str, length: str, *, newest_first: bool) -> list[str]:
    """Returns intervals as a job file writes them; they follow one another without a gap.

    Each begins a whole number of lengths after the first, and ends a microsecond before the next.

    Args:
        first: start of the range: a time, day, month or year.
        last: its end, which is part of it.
        length: ISO 8601 duration of a chunk.
        newest_first: whether the last chunk comes first.

    Raises:
        JobError: the range or the length cannot be read, or there are more than `MOST` chunks.
    """
    try:
        start, end = parse_interval(f"{first}/{last}")
        step = duration(length)
    except CatalogError as error:
        raise JobError(str(error)) from error
    if start is None or end is None:
        raise JobError("a range that is filled back needs a start and an end; give both")
    found: list[str] = []
    begins = start
    while begins <= end:
        if len(found) == MOST:
            raise JobError(f"{first}/{last} has more than {MOST:,} chunks of {length}; take longer")
        following = start + _times(step, len(found) + 1)
        if following <= begins:
            raise JobError(f"'{length}' is no length of a chunk; write P1M for a month")
        found.append(f"{_text(begins)}/{_text(min(following - timedelta(microseconds=1), end))}")
        begins = following
    return found[::-1] if newest_first else found


def unfinished_first(intervals: list[str], left: list[tuple[datetime, datetime]]) -> list[str]:
    """Returns intervals with those first that meet what earlier runs have left unfinished.

    Args:
        intervals: intervals as of `chunks`.
        left: start and end of what is unfinished.
    """

    def meets(text: str) -> bool:
        start, end = parse_interval(text)
        return any(not (start and to < start) and not (end and at > end) for at, to in left)

    return sorted(intervals, key=lambda text: not meets(text))


def _times(step: relativedelta, count: int) -> relativedelta:
    # From the start each time: a month after the 31st is the 28th, and a month after that the 31st.
    return step * count


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
