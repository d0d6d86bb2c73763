"""The pace of a flow that is run again and again."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.interval import duration
from earthgptx.pipeline.errors import JobError

LEAST_S = 1.0
"""Shortest time from look to look."""
NAP_S = 1.0


def pause_of(text: str) -> float:
    """Returns the seconds of an ISO 8601 duration.

    Raises:
        JobError: the text is none, or shorter than a second.
    """
    now = datetime(2000, 1, 1, tzinfo=UTC)
    try:
        seconds = (now + duration(text) - now).total_seconds()
    except CatalogError as error:
        raise JobError(f"--every: {error}") from error
    if seconds < LEAST_S:
        raise JobError(f"--every {text} is shorter than a second")
    return seconds


def wait(until: float) -> None:
    """Waits until a moment of the monotonic clock, which no change of the date moves."""
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, NAP_S))
