"""Eight small made images of all sensors, with a lesson of every kind each."""

from __future__ import annotations

import numpy as np

from earthgptx.catalogs.profiles import Modality
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask, Point
from earthgptx.model.network.tokens import Vocabulary
from earthgptx.model.samples.sample import Answer, Describe, Find, Locate, Refer, Sample

SIDE = 128
NAMES = ("ship", "tank", "building", "aircraft", "vehicle", "dock", "crane", "barge")
ABSENT = "windmill"
SENSORS: tuple[Modality, ...] = ("optical", "sar", "infrared")


def samples(count: int = 8) -> list[Sample]:
    noise = np.random.default_rng(0)
    return [_sample(number, NAMES[number], noise) for number in range(count)]


def vocabulary() -> Vocabulary:
    corpus = [text for sample in samples() for lesson in sample.lessons for text in _texts(lesson)]
    return Vocabulary.train(corpus, 1100)


def _sample(number: int, name: str, noise: np.random.Generator) -> Sample:
    pixels = noise.integers(10, 60, (3, SIDE, SIDE)).astype(np.uint8)
    masks = []
    for half in (0, 1):
        height, width = (int(side) for side in noise.integers(14, 34, 2))
        y = int(noise.integers(2, SIDE - height - 2))
        x = int(2 + half * 64 + noise.integers(0, 60 - width))
        pixels[:, y : y + height, x : x + width] = noise.integers(150, 250)
        masks.append(Mask.from_array(np.ones((height, width), bool), y0=y, x0=x))
    west, east = masks
    modality = SENSORS[number % 3]
    return Sample(
        pixels=pixels,
        modality=modality,
        prompts=(
            VisualPrompt(id="a", place=Point(west.centre.x, west.centre.y)),
            VisualPrompt(id="b", place=east.box),
        ),
        lessons=(
            Find(name, (west, east)),
            Find(ABSENT, ()),
            Locate(f"the western {name}", west, among=(east,)),
            Locate(f"the eastern {name}", east, among=(west,)),
            Locate(f"the {ABSENT}", None),
            Refer("a", name, f"a bright {name} in the west", west),
            Refer("b", name, f"a {name} {east.width} pixels wide", east),
            Describe(
                ((f"{modality} scene with", None), (f"a {name}", west), ("and another", None))
            ),
            Answer(f"how many {name}s?", "two"),
            Answer("what is this?", f"a {name}", ("a",)),
        ),
    )


def _texts(lesson: object) -> list[str]:
    if isinstance(lesson, Find | Locate):
        return [lesson.phrase]
    if isinstance(lesson, Refer):
        return [lesson.label, lesson.caption]
    if isinstance(lesson, Answer):
        return [lesson.question, lesson.answer]
    assert isinstance(lesson, Describe)
    return [text for text, _ in lesson.pieces]
