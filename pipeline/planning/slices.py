"""Groups Items into time slices, which are mosaicked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

import pystac

from earthgptx.catalogs.search import start_of
from earthgptx.pipeline.job.spec import Slicing


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """Items that are mosaicked into one scene."""

    start: datetime
    items: tuple[int, ...]
    """Indices into the plan's Items, in mosaic order."""


def time_slices(items: list[pystac.Item], slicing: Slicing) -> tuple[TimeSlice, ...]:
    """Groups Items into slices, in the order of time.

    Args:
        items: Items of the plan, sorted by time.
        slicing: one slice per Item, day or month (UTC), or one for all.
    """
    moments = [start_of(item).astimezone(UTC) for item in items]
    groups: dict[str, list[int]] = defaultdict(list)
    for position, (item, moment) in enumerate(zip(items, moments, strict=True)):
        groups[_name(slicing, item, moment)].append(position)
    return tuple(
        TimeSlice(_start(slicing, min(moments[at] for at in members)), tuple(members))
        for _, members in sorted(groups.items())
    )


def _name(slicing: Slicing, item: pystac.Item, moment: datetime) -> str:
    names = {
        "item": f"{moment.isoformat()} {item.id}",
        "day": f"{moment:%Y-%m-%d}",
        "month": f"{moment:%Y-%m}",
        "all": "all",
    }
    return names[slicing]


def _start(slicing: Slicing, first: datetime) -> datetime:
    """Returns the start of a slice whose earliest Item was taken at `first`."""
    if slicing in ("item", "all"):
        return first
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if slicing == "day" else midnight.replace(day=1)
