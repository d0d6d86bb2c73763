"""Makes a sample, with its visual prompts and lessons, from a record. Torch-free.

Texts that the source lacks (positions, counts) come from geometry alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.prompt import Place, VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point, Scribble
from earthgptx.model.samples.phrases import (
    ABSENT,
    by_label,
    locates,
    pictured,
    some_indices,
    union_of,
)
from earthgptx.model.samples.sample import Answer, Describe, Find, Lesson, Refer, Sample
from earthgptx.model.samples.wording import (
    count_word,
    counted,
    how_many,
    is_there,
    number_word,
    with_article,
)

MOST_PROMPTS = 6
UNPROMPTED_PART = 0.3
"""Fraction of images without prompts, whatever they show. The others have a number of prompts that
says nothing of their objects: where there are too few, prompts point anywhere. Otherwise a model
learns that prompts mean objects, and finds nothing where nobody points at anything."""
PROMPTS = (2, 8)
"""Least and largest number of prompts of the other images."""
MOST_PHRASES = 3
MOST_LOCATED = 5
MOST_PICTURED = 2
MOST_COUNTED = 2
MOST_ABSENT = 2
"""Most words for absent objects that an image is searched for. Most tiles of a job have none of the
objects it names."""


def sample_from_record(record: Record, rng: np.random.Generator) -> Sample:
    """Makes a sample with randomly chosen lessons of every kind that the record supports."""
    single = [region for region in record.regions if not region.stuff]
    wanted = 0 if rng.random() < UNPROMPTED_PART else int(rng.integers(PROMPTS[0], PROMPTS[1] + 1))
    most = min(wanted, MOST_PROMPTS)
    chosen = [record.regions[at] for at in some_indices(rng, len(record.regions), most)]
    prompts = tuple(
        VisualPrompt(id=str(number), place=prompt_place(region.mask, rng))
        for number, region in enumerate(chosen)
    )
    lessons: list[Lesson] = [
        Refer(
            prompt.id,
            region.label,
            caption(region, record),
            region.mask,
            outlined=region.outlined,
            made=not region.caption,
        )
        for prompt, region in zip(prompts, chosen, strict=True)
    ]
    lessons += _finds(record, rng)
    lessons += locates(record, single, rng, MOST_LOCATED)
    lessons += pictured(record, single, rng, MOST_PICTURED)
    lessons.append(
        Describe(scene(record), outlined=all(region.outlined for region in record.regions))
    )
    lessons += _questions(record, prompts, chosen, rng)
    return Sample(
        pixels=record.pixels,
        modality=record.modality,
        metres_per_pixel=record.metres_per_pixel,
        prompts=(*prompts, *_idle_prompts(record, wanted - len(chosen), rng)),
        lessons=tuple(lessons),
        ignored=record.ignored,
        word_masks=_word_masks(record),
    )


def _idle_prompts(record: Record, count: int, rng: np.random.Generator) -> list[VisualPrompt]:
    """Draws prompts of all kinds on ellipses anywhere in the image; no lesson is about them."""
    height, width = record.pixels.shape[1:]
    made = []
    for number in range(count):
        longest = max(min(height, width) / 2, 5.0)
        sides = np.exp(rng.uniform(np.log(4.0), np.log(longest), 2))
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        rows, cols = np.ogrid[:height, :width]
        inside = ((rows + 0.5 - y) / sides[0]) ** 2 + ((cols + 0.5 - x) / sides[1]) ** 2 <= 0.25
        inside[int(y), int(x)] = True
        place = prompt_place(Mask.from_array(inside), rng)
        made.append(VisualPrompt(id=f"idle-{number}", place=place))
    return made


def prompt_place(mask: Mask, rng: np.random.Generator, kind: str | None = None) -> Place:
    """Draws the place of a visual prompt: a point inside, a jittered box, a scribble or the mask.

    Args:
        mask: mask to point at.
        rng: random generator.
        kind: "point", "box", or "free" for a scribble or the mask; None for any.
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
    """Returns the source's caption, or one from position and number of objects of its class."""
    if region.caption:
        return region.caption
    if region.stuff:
        return f"{region.label} in the {_where_in_image(region.mask, record)}"
    alike = sum(other.label == region.label for other in record.regions) - 1
    company = (
        "alone"
        if not alike
        else f"with {number_word(alike)} more around"
        if alike <= 10
        else "among many"
    )
    return f"{with_article(region.label)} in the {_where_in_image(region.mask, record)}, {company}"


def scene(record: Record) -> tuple[tuple[str, Mask | None], ...]:
    """Returns the scene's description in pieces; a piece that names objects has their mask.

    It is the source's description without masks, or names the five words with the largest area.
    """
    if record.scene:
        return ((record.scene, None),)
    groups = by_label(record.regions)
    pieces: list[tuple[str, Mask | None]] = [(f"{with_article(record.modality)} scene with", None)]
    if not groups:
        return (*pieces, ("nothing of note", None))
    ranked = sorted(groups, key=lambda name: (-sum(r.mask.area for r in groups[name]), name))[:5]
    for at, name in enumerate(ranked):
        if at:
            pieces.append(("and" if at == len(ranked) - 1 else ",", None))
        regions = groups[name]
        words = name if regions[0].stuff else counted(name, len(regions))
        pieces.append((words, union_of([region.mask for region in regions], record)))
    return tuple(pieces)


def _finds(record: Record, rng: np.random.Generator) -> list[Lesson]:
    lessons: list[Lesson] = []
    names = sorted({label for region in record.regions for label in region.labels})
    for at in some_indices(rng, len(names), MOST_PHRASES):
        there = [region for region in record.regions if names[at] in region.labels]
        lessons.append(
            Find(
                names[at],
                tuple(r.mask for r in there),
                apart=not there[0].stuff,
                outlined=all(r.outlined for r in there),
            )
        )
    absent = [name for name in ABSENT if name in record.complete and name not in names]
    lessons += [Find(absent[at], ()) for at in some_indices(rng, len(absent), MOST_ABSENT)]
    return lessons


def _word_masks(record: Record) -> tuple[Find, ...]:
    names = sorted(
        record.complete | {label for region in record.regions for label in region.labels}
    )
    found = []
    for name in names:
        there = [region for region in record.regions if name in region.labels]
        found.append(
            Find(name, tuple(r.mask for r in there), outlined=all(r.outlined for r in there))
        )
    return tuple(found)


def _questions(
    record: Record,
    prompts: Sequence[VisualPrompt],
    chosen: Sequence[Region],
    rng: np.random.Generator,
) -> list[Lesson]:
    lessons: list[Lesson] = [
        Answer(question, answer, told=True)
        for question, answer in (
            record.questions[at] for at in some_indices(rng, len(record.questions), 2)
        )
    ]
    counts: dict[str, int] = defaultdict(int)
    for region in record.regions:
        if not region.stuff:
            counts[region.label] += 1
    names = sorted(counts)
    for at in some_indices(rng, len(names), MOST_COUNTED):
        lessons.append(Answer(how_many(names[at]), count_word(counts[names[at]])))
    there = sorted({region.label for region in record.regions})
    absent = [name for name in ABSENT if name in record.complete and name not in there]
    choices = [(name, "yes") for name in there] + [(name, "no") for name in absent]
    if choices:
        wanted = "yes" if rng.random() < 0.5 else "no"
        choices = [each for each in choices if each[1] == wanted] or choices
        name, answer = choices[int(rng.integers(len(choices)))]
        lessons.append(Answer(is_there(name), answer))
    if prompts and rng.random() < 0.3:
        at = int(rng.integers(len(prompts)))
        lessons.append(Answer("what is this?", with_article(chosen[at].label), (prompts[at].id,)))
    return lessons


def _where_in_image(mask: Mask, record: Record) -> str:
    height, width = record.pixels.shape[1:]
    row = ("upper", "middle", "lower")[min(int(3 * mask.centre.y / height), 2)]
    col = ("left", "centre", "right")[min(int(3 * mask.centre.x / width), 2)]
    return "centre" if (row, col) == ("middle", "centre") else f"{row} {col}"
