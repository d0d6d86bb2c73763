"""Groups Items into time slices, which are mosaicked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

import pystac

from earthgptx.catalogs.moments import start_of
from earthgptx.pipeline.job.sections import Compose, Slicing


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """Items that are mosaicked into one scene."""

    name: str
    """Unlike that of any other slice, and a name of a file: its day, its month, `all`, or the time
    of its Item and a hash of the Item's collection and id."""
    start: datetime
    items: tuple[int, ...]
    """Indices into the plan's Items, in mosaic order."""


def time_slices(
    items: list[pystac.Item], slicing: Slicing, compose: Compose = "first"
) -> tuple[TimeSlice, ...]:
    """Groups Items into slices, in the order of time.

    Args:
        items: Items of the plan, sorted by time.
        slicing: one slice per Item, day or month (UTC), or one for all.
        compose: order of the Items of a slice.
    """
    moments = [start_of(item).astimezone(UTC) for item in items]
    groups: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        groups[slice_name(slicing, item)].append(position)
    return tuple(
        TimeSlice(
            name,
            _start(slicing, min(moments[at] for at in members)),
            _ordered(members, items, compose),
        )
        for name, members in sorted(groups.items())
    )


def _ordered(members: list[int], items: list[pystac.Item], compose: Compose) -> tuple[int, ...]:
    """Returns the Items of a slice in mosaic order; equal ones stay in the order of time."""
    if compose == "latest":
        return tuple(reversed(members))
    if compose == "least_cloud":
        return tuple(sorted(members, key=lambda at: _cloud_cover(items[at])))
    return tuple(members)


def _cloud_cover(item: pystac.Item) -> float:
    """Returns an Item's cloud cover in percent; more than all others if it says none."""
    value = item.properties.get("eo:cloud_cover")
    return float(value) if isinstance(value, int | float) else 101.0


def slice_name(slicing: Slicing, item: pystac.Item) -> str:
    """Returns the name of the slice that an Item belongs to; see `TimeSlice.name`."""
    moment = start_of(item).astimezone(UTC)
    if slicing == "item":
        own = hashlib.sha256(f"{item.collection_id}/{item.id}".encode()).hexdigest()[:8]
        return f"{moment:%Y%m%dT%H%M%S%f}-{own}"
    return {"day": f"{moment:%Y-%m-%d}", "month": f"{moment:%Y-%m}", "all": "all"}[slicing]


def _start(slicing: Slicing, first: datetime) -> datetime:
    """Returns the start of a slice whose earliest Item was taken at `first`."""
    if slicing in ("item", "all"):
        return first
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if slicing == "day" else midnight.replace(day=1)
