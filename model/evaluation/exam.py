"""Asks a model questions about annotated images and records its answers with the truth.

Takes records, returns plain JSON-compatible answers per task. Deterministic. With hidden images,
the same questions measure what a model infers from words and prompt positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgptx.model.datasets.record import SCENE_QUESTION, Record, Region
from earthgptx.model.evaluation.metrics import Detection, box_iou, iou
from earthgptx.model.inference.answers import Found, Referred
from earthgptx.model.inference.pyramid import choose, find
from earthgptx.model.inference.session import Session
from earthgptx.model.inference.zoom import refer
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.vision import padded
from earthgptx.model.samples.phrases import locates, pictured
from earthgptx.model.samples.questions import caption, prompt_place, scene
from earthgptx.model.samples.sample import Locate
from earthgptx.model.samples.wording import MANY, NUMBERS, count_word, how_many, is_there, plural

KINDS = ("point", "box", "free")
MOST_REGIONS = 40
"""Most regions per image that get visual prompts."""
MOST_PHRASES = 4
"""Most phrases per image and kind (`placed`, `pictured`)."""
GREY = 115
"""Value of every pixel of a hidden image."""

Find = Callable[[NDArray[np.uint8], Record, Sequence[str]], list[tuple[str, Box, float]]]
"""Takes pixels, record and words; returns word, box and score of each object in the image."""


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers by task, as detections or JSON-compatible dictionaries."""

    found: list[Detection] = field(default_factory=list)
    """Objects that the model detected."""
    there: list[Detection] = field(default_factory=list)
    """Annotated objects."""
    regions: list[dict[str, Any]] = field(default_factory=list)
    located: list[dict[str, Any]] = field(default_factory=list)
    ground: list[dict[str, Any]] = field(default_factory=list)
    scenes: list[dict[str, Any]] = field(default_factory=list)
    described: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)

    def raw(self) -> Iterator[dict[str, Any]]:
        """Yields every answer as a dictionary with its task."""
        for task in (
            "regions",
            "located",
            "ground",
            "scenes",
            "described",
            "questions",
            "choices",
        ):
            yield from ({"task": task, **each} for each in getattr(self, task))
        for task, each in (
            *(("found", d) for d in self.found),
            *(("there", d) for d in self.there),
        ):
            box = [round(edge, 1) for edge in (each.box.x0, each.box.y0, each.box.x1, each.box.y1)]
            yield {
                "task": task,
                "image": each.image,
                "label": each.label,
                "box": box,
                "score": round(each.score, 4),
            }


def hidden(record: Record) -> Record:
    """Returns a copy with uniformly grey pixels; annotations and metadata stay."""
    return replace(record, pixels=np.full_like(record.pixels, GREY))


def examine(
    model: EarthGPTX,
    records: Sequence[Record],
    words: Sequence[str],
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> Answers:
    """Asks every question that the annotations of each image can answer.

    Args:
        model: model to examine.
        records: annotated images.
        words: names of objects to find and to choose from.
        on_image: called after each image with the number of images done and in total.
    """
    answers = Answers()
    for number, record in enumerate(records):
        _examine(model, number, record, words, answers)
        on_image(number + 1, len(records))
    return answers


def detect(
    records: Sequence[Record],
    words: Sequence[str],
    find: Find,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> Answers:
    """Only detects objects, for images larger than one view or for plain detectors.

    Args:
        records: annotated images.
        words: names of objects to find.
        find: detector.
        on_image: called after each image with the number of images done and in total.
    """
    answers = Answers()
    for number, record in enumerate(records):
        answers.there.extend(_there(number, record, words))
        answers.found.extend(
            Detection(number, *each) for each in find(record.pixels, record, words)
        )
        on_image(number + 1, len(records))
    return answers


def _there(number: int, record: Record, words: Sequence[str]) -> Iterator[Detection]:
    for region in record.regions:
        if not region.stuff:
            yield from (
                Detection(number, label, region.mask.box)
                for label in region.labels
                if label in words
            )


def _examine(
    model: EarthGPTX, number: int, record: Record, words: Sequence[str], answers: Answers
) -> None:
    rng = np.random.default_rng([number, 77])
    about = {
        "image": number,
        "file": record.image,
        "source": record.source,
        "modality": record.modality,
    }
    single = [region for region in record.regions if not region.stuff]
    answers.there.extend(_there(number, record, words))
    image = _ExamImage(model, record)
    session = image.session(())
    known = [word for word in words if word in record.complete]
    for word, one in zip(known, image.find(session, known), strict=True):
        inside = one.scores[: record.pixels.shape[1], : record.pixels.shape[2]] >= 128
        truth = record.mask_of(word)
        if truth is not None:
            known_px = True if record.ignored is None else ~record.ignored
            inside, truth = inside & known_px, truth & known_px
            shared, either = int((inside & truth).sum()), int((inside | truth).sum())
            answers.ground.append({**about, "word": word, "shared": shared, "either": either})
        for instance in one.instances:
            if instance.box is not None and _answerable(instance.box, record):
                answers.found.append(Detection(number, word, instance.box, instance.score))
    if record.regions and record.regions[0].stuff and len(record.regions) == 1 and len(words) > 2:
        shares = image.choose(session, SCENE_QUESTION, words)
        answers.scenes.append(
            {
                **about,
                "truth": record.regions[0].label,
                "said": max(shares, key=lambda w: shares[w]),
            }
        )
    _ask_choices(image, session, about, answers)
    _ask_regions(image, single[:MOST_REGIONS], words, rng, about, answers)
    _ask_phrases(session, record, single, rng, about, answers)
    if record.source == "rendered":
        _ask_words(session, record, about, answers)


class _ExamImage:
    """One image, encoded once for all questions about it."""

    def __init__(self, model: EarthGPTX, record: Record) -> None:
        self._model, self.record = model, record
        self._pixels = torch.from_numpy(padded(record.pixels, model.config.token_px))[None]
        with torch.inference_mode():
            self._features = model.encoders(self._pixels.to(model.device))

    def refer(self, prompts: Sequence[VisualPrompt], names: Sequence[str]) -> list[Referred]:
        metres = [self.record.metres_per_pixel]
        return refer(
            self.session(prompts), self._pixels, [self.record.modality], [prompts], names, metres
        )[0]

    def find(self, session: Session, phrases: Sequence[str]) -> list[Found]:
        metres = [self.record.metres_per_pixel]
        return find(session, self._pixels, [self.record.modality], [phrases], metres)[0]

    def choose(self, session: Session, question: str, names: Sequence[str]) -> dict[str, float]:
        metres = [self.record.metres_per_pixel]
        return choose(session, self._pixels, [self.record.modality], question, names, metres)[0]

    def session(self, prompts: Sequence[VisualPrompt]) -> Session:
        return Session(
            self._model,
            self._pixels,
            [self.record.modality],
            [list(prompts)],
            metres=[self.record.metres_per_pixel],
            features=self._features,
        )


def _ask_choices(
    image: _ExamImage, session: Session, about: dict[str, Any], answers: Answers
) -> None:
    """Asks each wording of each question for the likeliest of its options."""
    for choice in image.record.choices:
        for number, wording in enumerate(choice.wordings):
            shares = image.choose(session, wording, choice.options)
            said = max(shares, key=lambda option: shares[option])
            told = {"wording": number, "said": said, "truth": choice.right, "of": choice.task}
            offered = {"question": wording, "options": choice.options}
            answers.choices.append({**about, **offered, **told})


def _ask_regions(
    image: _ExamImage,
    regions: Sequence[Region],
    words: Sequence[str],
    rng: np.random.Generator,
    about: dict[str, Any],
    answers: Answers,
) -> None:
    """Points at each region with a point, a box and a free-form prompt.

    Each kind has its own session, so that the prompts of one region do not influence each other.
    """
    if not regions:
        return
    for kind in KINDS:
        prompts = [
            VisualPrompt(
                id=str(at),
                place=prompt_place(region.mask, rng, kind) if kind != "box" else region.mask.box,
            )
            for at, region in enumerate(regions)
        ]
        named = image.refer(prompts, words) if len(words) > 1 else None
        free = image.refer(prompts, ()) if kind == "box" or named is None else named
        for region, chosen, said in zip(regions, named or free, free, strict=True):
            answers.regions.append(
                {
                    **about,
                    "kind": kind,
                    "truth": region.label,
                    "said": chosen.label,
                    "sure": chosen.labels.get(chosen.label, said.instance.score)
                    if chosen.labels
                    else said.instance.score,
                    "free": said.label,
                    "caption": said.caption if kind == "box" else None,
                    "true_caption": caption(region, image.record),
                    "made": not region.caption,
                    "iou": iou(said.instance.mask, region.mask) if region.outlined else None,
                }
            )


def _ask_phrases(
    session: Session,
    record: Record,
    single: Sequence[Region],
    rng: np.random.Generator,
    about: dict[str, Any],
    answers: Answers,
) -> None:
    """Asks for single objects by three kinds of phrases.

    `placed` phrases give position, size or the nearest object. `pictured` phrases give appearance
    or what the object lies beside; `told` ones are those of the source.
    """
    silent = replace(record, regions=tuple(replace(each, phrase="") for each in record.regions))
    drawn = [("placed", each) for each in locates(silent, single, rng, MOST_PHRASES)]
    drawn += [("pictured", each) for each in pictured(record, single, rng, MOST_PHRASES)]
    drawn += [
        ("told", Locate(region.phrase, region.mask, outlined=region.outlined))
        for region in record.regions
        if region.phrase
    ]
    lessons = [
        (kind, each) for kind, each in drawn if isinstance(each, Locate) and each.mask is not None
    ]
    if not lessons:
        return
    answered = session.locate([[lesson.phrase for _, lesson in lessons]])[0]
    for (kind, lesson), said in zip(lessons, answered, strict=True):
        assert lesson.mask is not None
        answers.located.append(
            {
                **about,
                "kind": kind,
                "phrase": lesson.phrase,
                "box_iou": box_iou(said.instance.box, lesson.mask.box),
                "said_box_iou": box_iou(said.box, lesson.mask.box),
                "mask_iou": iou(said.instance.mask, lesson.mask) if lesson.outlined else None,
                "pixels": _pixels(said.instance.mask, lesson.mask, record),
            }
        )


def _pixels(said: Mask | None, truth: Mask, record: Record) -> tuple[int, int]:
    """Returns how many pixels two masks share, and how many are in either."""
    size = record.pixels.shape[1:]
    there = truth.window(0, 0, *size)
    inside = np.zeros(size, bool) if said is None else said.window(0, 0, *size)
    if record.ignored is not None:
        there, inside = there & ~record.ignored, inside & ~record.ignored
    return int((inside & there).sum()), int((inside | there).sum())


def _ask_words(session: Session, record: Record, about: dict[str, Any], answers: Answers) -> None:
    """Asks for a scene caption, counts and presence (yes or no) in fully annotated images."""
    truth = sorted({region.label for region in record.regions})
    names = sorted(record.complete)
    said = session.describe(grounded=False)[0].caption
    named = [name for name in names if name in said or plural(name) in said]
    expected = " ".join(text for text, _ in scene(record))
    told = [name for name in names if name in expected or plural(name) in expected]
    answers.described.append(
        {**about, "said": said, "truth": expected, "named": named, "there": told}
    )
    counts = {name: sum(r.label == name and not r.stuff for r in record.regions) for name in truth}
    asked_now = [
        (how_many(name), count_word(count), "count") for name, count in counts.items() if count
    ]
    there, absent = truth[:2], [name for name in names if name not in truth][:2]
    asked_now += [(is_there(name), "yes", "yes/no") for name in there]
    asked_now += [(is_there(name), "no", "yes/no") for name in absent]
    for (question, right, kind), reply in zip(
        asked_now, session.answer([(0, question, ()) for question, _, _ in asked_now]), strict=True
    ):
        answers.questions.append(
            {**about, "question": question, "truth": right, "said": reply.text, "kind": kind}
        )


def within_one(said: str, truth: str) -> bool:
    """Whether a count is off by at most one."""
    numbers = {name: at for at, name in enumerate(NUMBERS)} | {MANY: len(NUMBERS)}
    return said in numbers and abs(numbers[said] - numbers[truth]) <= 1


def _answerable(box: Box, record: Record) -> bool:
    """Whether a box is centred inside the image and outside its ignored pixels."""
    height, width = record.pixels.shape[1:]
    row, col = int(box.centre.y), int(box.centre.x)
    if not (row < height and col < width):
        return False
    return record.ignored is None or not record.ignored[row, col]
