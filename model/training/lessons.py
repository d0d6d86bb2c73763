"""What is asked of an annotated image and what the answers are: made from its objects, their places and neighbours.

Words that no source gave (where it lies, how many there are) come from geometry alone. Torch-free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.prompt import Place, VisualPrompt
from model.region import Box, Mask, Point, Scribble
from model.training.record import Record, Region
from model.training.samples import Answer, Describe, Find, Lesson, Locate, Refer, Sample

SCENE = "what kind of scene is this?"
MOST_PROMPTS = 6
MOST_PHRASES = 3
MOST_LOCATED = 5
MOST_PICTURED = 2
MOST_COUNTED = 2
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MANY = "more than ten"
PLURALS = {
    "aircraft": "aircraft",
    "person": "people",
    "lorry": "lorries",
    "water": "water",
    "flood water": "flood water",
}
MARKS = ("harbour", "road", "runway", "water")
"""What other things are said to lie by."""
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
"""Asked for where an image is known to have none."""


def taught(record: Record, rng: np.random.Generator) -> Sample:
    """A lesson of every kind that the image is good for, chosen by chance."""
    single = [region for region in record.regions if not region.whole]
    chosen = [record.regions[at] for at in _some(rng, len(record.regions), MOST_PROMPTS)]
    prompts = tuple(
        VisualPrompt(id=str(number), place=pointed(region.mask, rng)) for number, region in enumerate(chosen)
    )
    lessons: list[Lesson] = [
        Refer(
            prompt.id, region.label, caption(region, record), region.mask, outlined=region.outlined,
            made=not region.caption,
        )
        for prompt, region in zip(prompts, chosen, strict=True)
    ]  # fmt: skip
    lessons += _finds(record, rng)
    lessons += locates(record, single, rng, MOST_LOCATED)
    lessons += pictured(record, single, rng, MOST_PICTURED)
    lessons.append(Describe(scene(record), outlined=all(region.outlined for region in record.regions)))
    lessons += _questions(record, prompts, chosen, rng)
    return Sample(
        pixels=record.pixels, modality=record.modality, metres_per_pixel=record.metres_per_pixel, prompts=prompts,
        lessons=tuple(lessons), ignored=record.ignored, ground=_ground(record),
    )  # fmt: skip


def pointed(mask: Mask, rng: np.random.Generator, kind: str | None = None) -> Place:
    """A point inside, a box a little off, a stroke or the mask itself.

    Args:
        mask: to point at.
        rng: chance.
        kind: point, box or free; None for any.
    """
    kind = kind or str(rng.choice(["point", "box", "free"]))
    rows, cols = np.nonzero(mask.to_array())
    if kind == "box":
        box = mask.box
        slack = 0.06 * np.array([mask.width, mask.height, mask.width, mask.height]) + 0.3
        x0, y0, x1, y1 = np.array([box.x0, box.y0, box.x1, box.y1]) + rng.uniform(-1, 1, 4) * slack
        return Box(max(x0, 0), max(y0, 0), max(x1, x0 + 1), max(y1, y0 + 1))
    if kind == "point":
        at = int(rng.integers(len(rows)))
        return Point(mask.x0 + cols[at] + 0.5, mask.y0 + rows[at] + 0.5)
    if len(rows) < 12 or rng.random() < 0.5:
        return mask
    ends = rng.integers(0, len(rows), 3)
    points = tuple(Point(mask.x0 + cols[at] + 0.5, mask.y0 + rows[at] + 0.5) for at in ends)
    return Scribble(points, max(min(mask.width, mask.height) / 6, 1.5))


def caption(region: Region, record: Record) -> str:
    """The source's words, or what geometry says."""
    if region.caption:
        return region.caption
    if region.whole:
        return f"{region.label} in the {_where(region.mask, record)}"
    alike = sum(other.label == region.label for other in record.regions) - 1
    company = "alone" if not alike else f"with {_number(alike)} more around" if alike <= 10 else "among many"
    return f"{_a(region.label)} in the {_where(region.mask, record)}, {company}"


def scene(record: Record) -> tuple[tuple[str, Mask | None], ...]:
    """The scene's words; what is named carries its mask."""
    if record.scene:
        return ((record.scene, None),)
    groups = _by_label(record.regions)
    pieces: list[tuple[str, Mask | None]] = [(f"{_a(record.modality)} scene with", None)]
    if not groups:
        return (*pieces, ("nothing of note", None))
    ranked = sorted(groups, key=lambda name: (-sum(r.mask.area for r in groups[name]), name))[:5]
    for at, name in enumerate(ranked):
        if at:
            pieces.append(("and" if at == len(ranked) - 1 else ",", None))
        regions = groups[name]
        words = name if regions[0].whole else counted(name, len(regions))
        pieces.append((words, _union([region.mask for region in regions], record)))
    return tuple(pieces)


def counted(name: str, count: int) -> str:
    """`three ships`, `many ships`."""
    if count == 1:
        return _a(name)
    return f"{_number(count) if count <= 10 else 'many'} {plural(name)}"


def how_many(name: str) -> str:
    """The question for a count."""
    return f"how many {plural(name)} are there?"


def is_there(name: str) -> str:
    """The question that is answered by yes or no."""
    return f"is there {_a(name)}?"


def count_word(count: int) -> str:
    """The answer to `how_many`."""
    return NUMBERS[count] if count < len(NUMBERS) else MANY


def plural(name: str) -> str:
    """More than one of a thing."""
    return PLURALS.get(name, f"{name}s")


def _finds(record: Record, rng: np.random.Generator) -> list[Lesson]:
    lessons: list[Lesson] = []
    names = sorted({label for region in record.regions for label in region.labels})
    for at in _some(rng, len(names), MOST_PHRASES):
        there = [region for region in record.regions if names[at] in region.labels]
        lessons.append(
            Find(
                names[at],
                tuple(r.mask for r in there),
                apart=not there[0].whole,
                outlined=all(r.outlined for r in there),
            )
        )
    absent = [name for name in ABSENT if name in record.complete and name not in names]
    lessons += [Find(absent[at], ()) for at in _some(rng, len(absent), 1)]
    return lessons


def _ground(record: Record) -> tuple[Find, ...]:
    names = sorted(record.complete | {label for region in record.regions for label in region.labels})
    found = []
    for name in names:
        there = [region for region in record.regions if name in region.labels]
        found.append(Find(name, tuple(r.mask for r in there), outlined=all(r.outlined for r in there)))
    return tuple(found)


def locates(record: Record, single: Sequence[Region], rng: np.random.Generator, most: int) -> list[Lesson]:
    """Phrases that only one object fits, by its place, its size or what is nearest; and those of the source."""
    groups = _by_label(single)
    found: list[Lesson] = []
    for name, regions in sorted(groups.items()):
        found += [_located(text, region, regions) for text, region in _unique(name, regions)]
    found += _near(groups)
    found += [Locate(r.phrase, r.mask, outlined=r.outlined) for r in record.regions if r.phrase]
    found = [found[at] for at in _some(rng, len(found), most)]
    absent = [name for name in ABSENT if name in record.complete and name not in groups]
    if absent and rng.random() < 0.3:
        found.append(Locate(f"the {absent[int(rng.integers(len(absent)))]}", None))
    return found


def pictured(record: Record, single: Sequence[Region], rng: np.random.Generator, most: int) -> list[Lesson]:
    """Phrases that only one object fits, by its looks or what it is by."""
    groups = _by_label(single)
    found = _looking(groups) + _beside(groups, record)
    return [found[at] for at in _some(rng, len(found), most)]


def _by_label(regions: Sequence[Region]) -> dict[str, list[Region]]:
    groups: dict[str, list[Region]] = defaultdict(list)
    for region in regions:
        groups[region.label].append(region)
    return groups


def _located(text: str, region: Region, regions: Sequence[Region]) -> Locate:
    others = tuple(other.mask for other in regions if other is not region)
    return Locate(text, region.mask, outlined=region.outlined, among=others)


def _unique(name: str, regions: Sequence[Region]) -> list[tuple[str, Region]]:
    """Phrases by place, size and number; where two are nearly alike in that, none is said."""
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
    """`the ship nearest to the harbour`, where one is clearly nearest."""
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
    """`the white ship`, where its source says so of one alone."""
    found: list[Lesson] = []
    for name, regions in sorted(groups.items()):
        for looks, alike in sorted(_looks(regions).items()):
            if looks != name and len(alike) == 1:
                found.append(_located(f"the {looks}", alike[0], regions))
    return found


def _looks(regions: Sequence[Region]) -> dict[str, list[Region]]:
    """Regions by what their sources' captions call them first: of `a white ship, 90 m long` a white ship."""
    groups: dict[str, list[Region]] = defaultdict(list)
    for region in regions:
        head = region.caption.split(",")[0]
        article, _, looks = head.partition(" ")
        if article in ("a", "an") and looks:
            groups[looks].append(region)
    return groups


def _beside(groups: dict[str, list[Region]], record: Record) -> list[Lesson]:
    """`the white building by the road`, where one alone lies beside it and all others clearly do not."""
    there = _by_label(record.regions)
    found: list[Lesson] = []
    for mark in MARKS:
        if mark not in there:
            continue
        masks = [region.mask for region in there[mark]]
        away = ndimage.distance_transform_edt(~_union(masks, record).window(0, 0, *record.pixels.shape[1:]))
        for name, regions in sorted(groups.items()):
            if name == mark:
                continue
            for looks, alike in sorted({name: regions, **_looks(regions)}.items()):
                gaps = [_least(away, region.mask) for region in alike]
                near = [at for at, (gap, r) in enumerate(zip(gaps, alike, strict=True)) if gap <= _reach(r.mask)]
                if len(alike) > 1 and len(near) == 1:
                    [at] = near
                    if all(gap > 2 * gaps[at] + 4 for other, gap in enumerate(gaps) if other != at):
                        found.append(_located(f"the {looks} by the {mark}", alike[at], regions))
    return found


def _least(values: NDArray[np.float64], mask: Mask) -> float:
    window = values[mask.y0 : mask.y0 + mask.height, mask.x0 : mask.x0 + mask.width]
    return float(window[mask.to_array()].min())


def _reach(mask: Mask) -> float:
    """How far from a thing an object may lie and still be said to be by it, pixels: half its own length, or three."""
    return max(max(mask.height, mask.width) / 2, 3.0)


def _questions(
    record: Record, prompts: Sequence[VisualPrompt], chosen: Sequence[Region], rng: np.random.Generator
) -> list[Lesson]:
    lessons: list[Lesson] = [Answer(*record.asked[at]) for at in _some(rng, len(record.asked), 2)]
    counts: dict[str, int] = defaultdict(int)
    for region in record.regions:
        if not region.whole:
            counts[region.label] += 1
    names = sorted(counts)
    for at in _some(rng, len(names), MOST_COUNTED):
        lessons.append(Answer(how_many(names[at]), count_word(counts[names[at]])))
    there = sorted({region.label for region in record.regions})
    absent = [name for name in ABSENT if name in record.complete and name not in there]
    asked = [(name, "yes") for name in there] + [(name, "no") for name in absent]
    if asked:
        wanted = "yes" if rng.random() < 0.5 else "no"
        asked = [each for each in asked if each[1] == wanted] or asked
        name, answer = asked[int(rng.integers(len(asked)))]
        lessons.append(Answer(is_there(name), answer))
    if prompts and rng.random() < 0.3:
        at = int(rng.integers(len(prompts)))
        lessons.append(Answer("what is this?", _a(chosen[at].label), (prompts[at].id,)))
    return lessons


def _some(rng: np.random.Generator, count: int, most: int) -> list[int]:
    return sorted(rng.choice(count, min(count, most), replace=False).tolist()) if count else []


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _a(name: str) -> str:
    if name in ("water", "flood water"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _where(mask: Mask, record: Record) -> str:
    height, width = record.pixels.shape[1:]
    row = ("upper", "middle", "lower")[min(int(3 * mask.centre.y / height), 2)]
    col = ("left", "centre", "right")[min(int(3 * mask.centre.x / width), 2)]
    return "centre" if (row, col) == ("middle", "centre") else f"{row} {col}"


def _apart(one: Mask, other: Mask) -> float:
    return float(np.hypot(one.centre.x - other.centre.x, one.centre.y - other.centre.y))


def _union(masks: Sequence[Mask], record: Record) -> Mask:
    height, width = record.pixels.shape[1:]
    union = np.zeros((height, width), bool)
    for mask in masks:
        union |= mask.window(0, 0, height, width)
    return Mask.from_array(union)
