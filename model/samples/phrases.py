"""Phrases that fit exactly one object of an image, as lessons. Torch-free.

They name its place, size, nearest object, appearance, or what it lies beside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.samples.sample import Lesson, Locate

MARKS = ("harbour", "road", "runway", "water")
"""Words for landmarks in phrases such as `the ship by the harbour`."""

ABSENT = (
    "ship",
    "aircraft",
    "storage tank",
    "building",
    "runway",
    "harbour",
    "car",
    "person",
    "bicycle",
    "solar panel",
)
"""Words for negative lessons, used where an image is known to have no such object."""


def locates(
    record: Record, single: Sequence[Region], rng: np.random.Generator, most: int
) -> list[Lesson]:
    """Makes lessons from phrases by place, size or nearest object, and from those of the source.

    Sometimes adds one phrase for an object that is absent.

    Args:
        record: annotated image.
        single: regions of the record that are single objects.
        rng: random generator.
        most: largest number of lessons, without the absent one.
    """
    groups = by_label(single)
    found: list[Lesson] = []
    for name, regions in sorted(groups.items()):
        found += [_located(text, region, regions) for text, region in _unique(name, regions)]
    found += _near(groups)
    found += [Locate(r.phrase, r.mask, outlined=r.outlined) for r in record.regions if r.phrase]
    found = [found[at] for at in some_indices(rng, len(found), most)]
    absent = [name for name in ABSENT if name in record.complete and name not in groups]
    if absent and rng.random() < 0.3:
        found.append(Locate(f"the {absent[int(rng.integers(len(absent)))]}", None))
    return found


def pictured(
    record: Record, single: Sequence[Region], rng: np.random.Generator, most: int
) -> list[Lesson]:
    """Makes lessons from phrases by appearance, or by the landmark that an object lies beside.

    Args:
        record: annotated image.
        single: regions of the record that are single objects.
        rng: random generator.
        most: largest number of lessons.
    """
    groups = by_label(single)
    found = _looking(groups) + _beside(groups, record)
    return [found[at] for at in some_indices(rng, len(found), most)]


def by_label(regions: Sequence[Region]) -> dict[str, list[Region]]:
    """Groups regions by their most specific word."""
    groups: dict[str, list[Region]] = defaultdict(list)
    for region in regions:
        groups[region.label].append(region)
    return groups


def _located(text: str, region: Region, regions: Sequence[Region]) -> Locate:
    others = tuple(other.mask for other in regions if other is not region)
    return Locate(text, region.mask, outlined=region.outlined, among=others)


def _unique(name: str, regions: Sequence[Region]) -> list[tuple[str, Region]]:
    """Returns phrases by place, size and number; omits those where two objects are nearly equal."""
    if len(regions) == 1:
        return [(f"the {name}", regions[0]), (f"the only {name}", regions[0])]
    found: list[tuple[str, Region]] = []
    sizes = sorted(regions, key=lambda region: region.mask.area)
    if sizes[-1].mask.area > 1.3 * sizes[-2].mask.area:
        found.append((f"the largest {name}", sizes[-1]))
    if sizes[0].mask.area * 1.3 < sizes[1].mask.area:
        found.append((f"the smallest {name}", sizes[0]))
    for axis, first, last in (("x", "leftmost", "rightmost"), ("y", "topmost", "lowest")):
        ordered = sorted(regions, key=lambda region: getattr(region.mask.centre, axis))
        places = [getattr(region.mask.centre, axis) for region in ordered]
        if places[1] - places[0] > 6:
            found.append((f"the {first} {name}", ordered[0]))
        if places[-1] - places[-2] > 6:
            found.append((f"the {last} {name}", ordered[-1]))
        if axis == "x" and 3 <= len(regions) <= 6 and min(np.diff(places)) > 6:
            found.append((f"the second {name} from the left", ordered[1]))
            found.append((f"the second {name} from the right", ordered[-2]))
    return found


def _near(groups: dict[str, list[Region]]) -> list[Lesson]:
    """Makes `the ship nearest to the harbour`, if one is clearly nearest to the only harbour."""
    found: list[Lesson] = []
    for name, regions in sorted(groups.items()):
        for other, [mark, *more] in sorted(groups.items()):
            if other == name or more or not 2 <= len(regions) <= 12:
                continue
            ordered = sorted(regions, key=lambda region: _apart(region.mask, mark.mask))
            if _apart(ordered[1].mask, mark.mask) > 1.3 * _apart(ordered[0].mask, mark.mask) + 4:
                found.append(_located(f"the {name} nearest to the {other}", ordered[0], regions))
    return found


def _looking(groups: dict[str, list[Region]]) -> list[Lesson]:
    """Makes `the white ship`, if exactly one object has this appearance in its caption."""
    found: list[Lesson] = []
    for name, regions in sorted(groups.items()):
        for looks, alike in sorted(_looks(regions).items()):
            if looks != name and len(alike) == 1:
                found.append(_located(f"the {looks}", alike[0], regions))
    return found


def _looks(regions: Sequence[Region]) -> dict[str, list[Region]]:
    """Groups regions by the start of their captions: `a white ship, 90 m long` by `white ship`."""
    groups: dict[str, list[Region]] = defaultdict(list)
    for region in regions:
        head = region.caption.split(",")[0]
        article, _, looks = head.partition(" ")
        if article in ("a", "an") and looks:
            groups[looks].append(region)
    return groups


def _beside(groups: dict[str, list[Region]], record: Record) -> list[Lesson]:
    """Makes `the white ship by the harbour`, if one lies beside it and the others clearly not."""
    there = by_label(record.regions)
    found: list[Lesson] = []
    for mark in MARKS:
        if mark not in there:
            continue
        masks = [region.mask for region in there[mark]]
        away = ndimage.distance_transform_edt(
            ~union_of(masks, record).window(0, 0, *record.pixels.shape[1:])
        )
        for name, regions in sorted(groups.items()):
            if name == mark:
                continue
            for looks, alike in sorted({name: regions, **_looks(regions)}.items()):
                gaps = [_least(away, region.mask) for region in alike]
                near = [
                    at
                    for at, (gap, r) in enumerate(zip(gaps, alike, strict=True))
                    if gap <= _reach(r.mask)
                ]
                if len(alike) > 1 and len(near) == 1:
                    [at] = near
                    if all(gap > 2 * gaps[at] + 4 for other, gap in enumerate(gaps) if other != at):
                        found.append(_located(f"the {looks} by the {mark}", alike[at], regions))
    return found


def _least(values: NDArray[np.float64], mask: Mask) -> float:
    """Returns the lowest of the values (H, W) inside a mask."""
    window = values[mask.y0 : mask.y0 + mask.height, mask.x0 : mask.x0 + mask.width]
    return float(window[mask.to_array()].min())


def _reach(mask: Mask) -> float:
    """Returns the largest gap to a landmark in pixels: half the longer side, at least 3."""
    return max(max(mask.height, mask.width) / 2, 3.0)


def some_indices(rng: np.random.Generator, count: int, most: int) -> list[int]:
    """Draws at most `most` of the indices below `count` without repetition, sorted."""
    return sorted(rng.choice(count, min(count, most), replace=False).tolist()) if count else []


def _apart(one: Mask, other: Mask) -> float:
    """Returns the distance of two masks' centres in pixels."""
    return float(np.hypot(one.centre.x - other.centre.x, one.centre.y - other.centre.y))


def union_of(masks: Sequence[Mask], record: Record) -> Mask:
    """Returns the union of at least one mask of a record."""
    height, width = record.pixels.shape[1:]
    union = np.zeros((height, width), bool)
    for mask in masks:
        union |= mask.window(0, 0, height, width)
    return Mask.from_array(union)
