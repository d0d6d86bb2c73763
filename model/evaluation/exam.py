"""An exam: what a model is asked of annotated images, and what it answered beside what is true, as plain records.

Deterministic. A model that is asked blind gets hidden images and the same questions: what it then knows, it knows from
the words and from the prompts' places alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.earthgptx import EarthGPTX
from model.evaluation.measures import Detection, box_iou, iou
from model.focus import refer
from model.prompt import VisualPrompt
from model.pyramid import choose, find
from model.region import Box
from model.tasks import Asked, Found, Referred
from model.training.lessons import (
    MANY,
    NUMBERS,
    SCENE,
    caption,
    count_word,
    how_many,
    is_there,
    locates,
    pictured,
    plural,
    pointed,
    scene,
)
from model.training.record import Record, Region
from model.training.samples import Locate
from model.vision import padded

KINDS = ("point", "box", "free")
MOST_REGIONS = 40
"""Of one image, that are pointed at."""
MOST_PHRASES = 4
"""Of one image and of one sort, that are asked."""
GREY = 115

Find = Callable[[NDArray[np.uint8], Record, Sequence[str]], list[tuple[str, Box, float]]]
"""Word, box and score of all objects of an image."""


@dataclass(frozen=True, slots=True)
class Answers:
    """All that was answered, by task; each answer a plain record that JSON holds."""

    found: list[Detection] = field(default_factory=list)
    there: list[Detection] = field(default_factory=list)
    regions: list[dict[str, Any]] = field(default_factory=list)
    located: list[dict[str, Any]] = field(default_factory=list)
    ground: list[dict[str, Any]] = field(default_factory=list)
    scenes: list[dict[str, Any]] = field(default_factory=list)
    described: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)

    def raw(self) -> Iterator[dict[str, Any]]:
        """Every answer with its task."""
        for task in ("regions", "located", "ground", "scenes", "described", "questions"):
            yield from ({"task": task, **each} for each in getattr(self, task))
        for task, each in (*(("found", d) for d in self.found), *(("there", d) for d in self.there)):
            box = [round(edge, 1) for edge in (each.box.x0, each.box.y0, each.box.x1, each.box.y1)]
            yield {"task": task, "image": each.image, "label": each.label, "box": box, "score": round(each.score, 4)}


def hidden(record: Record) -> Record:
    """The same image with nothing to see in it; all that is known of it stays."""
    return replace(record, pixels=np.full_like(record.pixels, GREY))


def examine(
    model: EarthGPTX, records: Sequence[Record], words: Sequence[str],
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> Answers:  # fmt: skip
    """Ask everything that the images are good for.

    Args:
        model: to ask.
        records: annotated images.
        words: that its objects are called.
        on_image: told the images done and to do.
    """
    answers = Answers()
    for number, record in enumerate(records):
        _examine(model, number, record, words, answers)
        on_image(number + 1, len(records))
    return answers


def detect(
    records: Sequence[Record], words: Sequence[str], find: Find, on_image: Callable[[int, int], None] = lambda *_: None
) -> Answers:
    """Ask for all objects and nothing else: of images too large to be seen at once, or of a detector that only finds.

    Args:
        records: annotated images.
        words: that its objects are called.
        find: finds them.
        on_image: told the images done and to do.
    """
    answers = Answers()
    for number, record in enumerate(records):
        answers.there.extend(_there(number, record, words))
        answers.found.extend(Detection(number, *each) for each in find(record.pixels, record, words))
        on_image(number + 1, len(records))
    return answers


def _there(number: int, record: Record, words: Sequence[str]) -> Iterator[Detection]:
    for region in record.regions:
        if not region.whole:
            yield from (Detection(number, label, region.mask.box) for label in region.labels if label in words)


def _examine(model: EarthGPTX, number: int, record: Record, words: Sequence[str], answers: Answers) -> None:
    rng = np.random.default_rng([number, 77])
    about = {"image": number, "file": record.image, "source": record.source, "modality": record.modality}
    single = [region for region in record.regions if not region.whole]
    answers.there.extend(_there(number, record, words))
    look = _Look(model, record)
    asked = look.asked(())
    known = [word for word in words if word in record.complete]
    for word, one in zip(known, look.find(asked, known), strict=True):
        inside = one.scores[: record.pixels.shape[1], : record.pixels.shape[2]] >= 128
        truth = record.ground(word)
        if truth is not None:
            shared, either = int((inside & truth).sum()), int((inside | truth).sum())
            answers.ground.append({**about, "word": word, "shared": shared, "either": either})
        for instance in one.instances:
            if instance.box is not None and _answerable(instance.box, record):
                answers.found.append(Detection(number, word, instance.box, instance.score))
    if record.regions and record.regions[0].whole and len(record.regions) == 1 and len(words) > 2:
        shares = look.choose(asked, SCENE, words)
        answers.scenes.append({**about, "truth": record.regions[0].label, "said": max(shares, key=lambda w: shares[w])})
    _ask_regions(look, single[:MOST_REGIONS], words, rng, about, answers)
    _ask_phrases(asked, record, single, rng, about, answers)
    if record.source == "rendered":
        _ask_words(asked, record, about, answers)


class _Look:
    """One image, looked at once for all that is asked of it."""

    def __init__(self, model: EarthGPTX, record: Record) -> None:
        self._model, self.record = model, record
        self._pixels = torch.from_numpy(padded(record.pixels, model.config.token_px))[None]
        with torch.inference_mode():
            self._features = model.encoders(self._pixels.to(model.device))

    def refer(self, prompts: Sequence[VisualPrompt], names: Sequence[str]) -> list[Referred]:
        metres = [self.record.metres_per_pixel]
        return refer(self.asked(prompts), self._pixels, [self.record.modality], [prompts], names, metres)[0]

    def find(self, asked: Asked, phrases: Sequence[str]) -> list[Found]:
        metres = [self.record.metres_per_pixel]
        return find(asked, self._pixels, [self.record.modality], [phrases], metres)[0]

    def choose(self, asked: Asked, question: str, names: Sequence[str]) -> dict[str, float]:
        metres = [self.record.metres_per_pixel]
        return choose(asked, self._pixels, [self.record.modality], question, names, metres)[0]

    def asked(self, prompts: Sequence[VisualPrompt]) -> Asked:
        return Asked(
            self._model, self._pixels, [self.record.modality], [list(prompts)], metres=[self.record.metres_per_pixel],
            features=self._features,
        )  # fmt: skip


def _ask_regions(
    look: _Look, regions: Sequence[Region], words: Sequence[str], rng: np.random.Generator, about: dict[str, Any],
    answers: Answers,
) -> None:  # fmt: skip
    """Each region pointed at in three ways, in turns of their own: no prompt sees the others of its region."""
    if not regions:
        return
    for kind in KINDS:
        prompts = [
            VisualPrompt(id=str(at), place=pointed(region.mask, rng, kind) if kind != "box" else region.mask.box)
            for at, region in enumerate(regions)
        ]
        named = look.refer(prompts, words) if len(words) > 1 else None
        free = look.refer(prompts, ()) if kind == "box" or named is None else named
        for region, chosen, said in zip(regions, named or free, free, strict=True):
            answers.regions.append({
                **about, "kind": kind, "truth": region.label, "said": chosen.label,
                "sure": chosen.labels.get(chosen.label, said.seen.score) if chosen.labels else said.seen.score,
                "free": said.label, "caption": said.caption if kind == "box" else None,
                "true_caption": caption(region, look.record), "made": not region.caption,
                "iou": iou(said.seen.mask, region.mask) if region.outlined else None,
            })  # fmt: skip


def _ask_phrases(
    asked: Asked, record: Record, single: Sequence[Region], rng: np.random.Generator, about: dict[str, Any], answers: Answers
) -> None:  # fmt: skip
    """Phrases of both sorts: by place, size and what is nearest; by looks and what it is by."""
    drawn = [("placed", each) for each in locates(record, single, rng, MOST_PHRASES)]
    drawn += [("pictured", each) for each in pictured(record, single, rng, MOST_PHRASES)]
    lessons = [(kind, each) for kind, each in drawn if isinstance(each, Locate) and each.mask is not None]
    if not lessons:
        return
    answered = asked.locate([[lesson.phrase for _, lesson in lessons]])[0]
    for (kind, lesson), said in zip(lessons, answered, strict=True):
        assert lesson.mask is not None
        answers.located.append({
            **about, "kind": kind, "phrase": lesson.phrase, "box_iou": box_iou(said.seen.box, lesson.mask.box),
            "said_box_iou": box_iou(said.box, lesson.mask.box),
            "mask_iou": iou(said.seen.mask, lesson.mask) if lesson.outlined else None,
        })  # fmt: skip


def _ask_words(asked: Asked, record: Record, about: dict[str, Any], answers: Answers) -> None:
    """The scene's caption, counts, and yes or no; of images of which everything is known."""
    truth = sorted({region.label for region in record.regions})
    names = sorted(record.complete)
    said = asked.describe(grounded=False)[0].caption
    named = [name for name in names if name in said or plural(name) in said]
    expected = " ".join(text for text, _ in scene(record))
    told = [name for name in names if name in expected or plural(name) in expected]
    answers.described.append({**about, "said": said, "truth": expected, "named": named, "there": told})
    counts = {name: sum(r.label == name and not r.whole for r in record.regions) for name in truth}
    asked_now = [(how_many(name), count_word(count), "count") for name, count in counts.items() if count]
    there, absent = truth[:2], [name for name in names if name not in truth][:2]
    asked_now += [(is_there(name), "yes", "yes/no") for name in there]
    asked_now += [(is_there(name), "no", "yes/no") for name in absent]
    for (question, right, kind), (answer, _) in zip(
        asked_now, asked.answer([(0, question, ()) for question, _, _ in asked_now]), strict=True
    ):
        answers.questions.append({**about, "question": question, "truth": right, "said": answer, "kind": kind})


def within_one(said: str, truth: str) -> bool:
    """Whether a count is right but for one."""
    numbers = {name: at for at, name in enumerate(NUMBERS)} | {MANY: len(NUMBERS)}
    return said in numbers and abs(numbers[said] - numbers[truth]) <= 1


def _answerable(box: Box, record: Record) -> bool:
    """Whether a box lies in the image, on ground of which something is known."""
    height, width = record.pixels.shape[1:]
    row, col = int(box.centre.y), int(box.centre.x)
    if not (row < height and col < width):
        return False
    return record.ignored is None or not record.ignored[row, col]
