"""What is asked of a model, in its users' words: find, locate, refer, describe, answer; for batches of images of all
sensors.
"""

# B images, K phrases, M queries, Y X pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.config import Budget
from model.earthgptx import Around, Branch, EarthGPTX, Encoded
from model.generate import Said, Trie, decode, likelihoods, read, remember
from model.language import Slots
from model.outline import outlined
from model.perception import CANDIDATES, LOW, STRIDE, Judged, Perceived, features_at, local_maxima, top_peaks
from model.prompt import VisualPrompt
from model.region import Box, Mask, Point
from model.tokens import LOCATIONS
from model.vision import Features

MOST_INSTANCES = 256
"""Peaks of one phrase in one image that become instances, the surest first."""
SAME = 0.5
"""IoU of two boxes of a phrase from which they are one object's."""
NOWHERE = (float("nan"),) * 4
"""A box that a prompt did not draw."""
PEAK = 0.05
"""Height of the heat map from which a peak is looked at again."""
SURE = 0.1
"""Least score of an instance, where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One object, or the ground of one phrase."""

    mask: Mask | None
    """None where there is nothing: see `presence`."""
    score: float
    """0..1: presence times the mask's own quality; of several, the geometric mean of the height of its peak and of the
    worth of its box, whatever the presence: one small ship in a wide sea is seen where it lies, and not from afar."""
    presence: float
    """0..1, that there is anything."""
    box: Box | None = None
    """As it was judged from the instance's middle, continuous edges; None for the ground of a phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What fits one phrase in one image."""

    scores: NDArray[np.uint8]
    """(Y, X) uint8, 255 is sure."""
    presence: float
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The one object that a phrase speaks of."""

    box: Box
    """Said in four location tokens."""
    seen: Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Referred:
    """What a prompt points at."""

    prompt_id: str
    label: str
    labels: dict[str, float]
    """How sure of each given name, 1 together; empty where none were given."""
    caption: str
    cut: bool
    """Whether the caption hit its budget."""
    seen: Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """A prompt's object in words, where it is known what it is."""

    caption: str
    cut: bool
    """Whether the caption hit its budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A scene in words."""

    caption: str
    cut: bool
    phrases: tuple[tuple[str, Instance], ...]
    """Words of the caption that have a mask."""


class Asked:
    """A batch of images, encoded; ask as often as you like."""

    def __init__(
        self, model: EarthGPTX, pixels: Tensor, modalities: Sequence[str],
        prompts: Sequence[Sequence[VisualPrompt]] = (), around: Around | None = None,
        metres: Sequence[float | None] = (), features: Features | None = None, budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:  # fmt: skip
        """Look at the images; see `EarthGPTX.encode`."""
        self.model, self._budget = model, budget
        self._prompts = prompts or [() for _ in pixels]
        self._where = [(image, prompt.id) for image, each in enumerate(self._prompts) for prompt in each]
        with torch.inference_mode():
            self._encoded: Encoded = model.encode(pixels, modalities, self._prompts, around, metres, features)
        self._past: Slots = remember(model, self._encoded)

    @torch.inference_mode()
    def find(self, phrases: Sequence[Sequence[str]], least: float = SURE) -> list[list[Found]]:
        """All that fits each phrase, of each image its own phrases; instances with a score of `least` at least."""
        branches = [self.model.find(image, phrase) for image, each in enumerate(phrases) for phrase in each]
        if not branches:
            return [[] for _ in phrases]
        states, _ = read(self.model, self._encoded, self._past, branches)
        mark = self.model.vocabulary.mark
        said = self.model.language.logits(torch.stack([state[-2] for state in states]))
        presence = (said[:, mark("segs")] - said[:, mark("none")]).sigmoid()
        of_image = [branch.image for branch in branches]
        perceived = self._perceive([state[-1] for state in states], of_image)
        dense = self._upsampled(perceived.masks).sigmoid() * presence[:, None, None]
        answers = [
            Found(
                scores=(dense[number] * 255).round().to(torch.uint8).cpu().numpy(), presence=float(presence[number]),
                instances=self._instances(perceived, number, of_image[number], float(presence[number]), least),
            )
            for number in range(len(branches))
        ]  # fmt: skip
        return _split(answers, [len(each) for each in phrases])

    @torch.inference_mode()
    def locate(self, phrases: Sequence[Sequence[str]]) -> list[list[Located]]:
        """The one object that each phrase speaks of, of each image its own phrases."""
        model, mark = self.model, self.model.vocabulary.mark
        branches = [model.locate(image, phrase) for image, each in enumerate(phrases) for phrase in each]
        if not branches:
            return [[] for _ in phrases]
        states, _ = read(model, self._encoded, self._past, branches)
        said = model.language.logits(torch.stack([state[-2] for state in states]))
        presence = (said[:, mark("seg")] - said[:, mark("none")]).sigmoid().tolist()
        images = [branch.image for branch in branches]
        perceived = self._perceive([state[-1] for state in states], images)
        places = self._chosen(states, perceived, images)
        boxes = [Branch(branch.image, (*branch.tokens, mark("box"))) for branch in branches]
        said_boxes = decode(model, self._encoded, self._past, boxes, 4)
        answers = []
        for number, (one, seen) in enumerate(zip(said_boxes, self._seen(perceived, images, places), strict=True)):
            seen = replace(seen, presence=presence[number], score=presence[number] * seen.score)
            answers.append(Located(box=self._box(one.tokens), seen=seen))
        return _split(answers, [len(each) for each in phrases])

    def _chosen(self, phrases: Sequence[Tensor], perceived: Perceived, images: Sequence[int]) -> Tensor:
        """(M, 2) the place of the candidate that each query speaks of."""
        places, heights = top_peaks(perceived.centres.sigmoid(), CANDIDATES)
        present = heights > LOW
        present[:, 0] = True
        pixels = self._encoded.pixels
        scored = self.model.perception.choose(phrases, perceived.queries, images, places, heights, present, pixels)
        return places[torch.arange(len(images), device=places.device), scored.argmax(dim=1)]

    def _box(self, tokens: Sequence[int]) -> Box:
        rows, cols = self._encoded.size
        places = [self.model.vocabulary.place(token) for token in tokens]
        x0, y0, x1, y1 = (place for place in places if place is not None)  # no other token may follow <box>
        half = 0.5 / LOCATIONS  # a box whose edges lie in one bin is as wide as the bin
        return Box((x0 - half) * cols, (y0 - half) * rows, (x1 + half) * cols, (y1 + half) * rows)

    @torch.inference_mode()
    def refer(self, names: Sequence[str] = ()) -> list[list[Referred]]:
        """What each prompt of each image points at; the label is one of the names where names are given."""
        model = self.model
        if not self._where:
            return [[] for _ in self._prompts]
        branches = self._pointing()
        trie = Trie(model.vocabulary, names)
        states, slots = read(model, self._encoded, self._past, branches, len(trie.tokens))
        seen = self._pointed_at(states)
        if names:
            worth = likelihoods(model, states, slots, trie) / model.config.temperature
            shares = worth.softmax(dim=1).cpu().tolist()
            chosen = [names[int(np.argmax(share))] for share in shares]
            branches = [self._labelled(branch, label) for branch, label in zip(branches, chosen, strict=True)]
        marks = () if names else ("sep",)
        said = decode(model, self._encoded, self._past, branches, self._budget.caption, marks=marks)
        answers = []
        for number, (_, name) in enumerate(self._where):
            label, words = (chosen[number], said[number].tokens) if names else self._label_and_words(said[number])
            answers.append(
                Referred(
                    prompt_id=name, label=label, labels=dict(zip(names, shares[number], strict=True)) if names else {},
                    caption=model.vocabulary.decode(words), cut=said[number].cut, seen=seen[number],
                )
            )  # fmt: skip
        return _split(answers, [len(each) for each in self._prompts])

    @torch.inference_mode()
    def outline(self) -> list[list[Instance]]:
        """The object that each prompt of each image points at, without words."""
        if not self._where:
            return [[] for _ in self._prompts]
        states, _ = read(self.model, self._encoded, self._past, self._pointing())
        return _split(self._pointed_at(states), [len(each) for each in self._prompts])

    def _pointing(self) -> list[Branch]:
        """A branch for each prompt."""
        return [self.model.refer(*at) for at in self._where]

    def _pointed_at(self, states: Sequence[Tensor]) -> list[Instance]:
        """What the branch of each prompt sees."""
        images, device = [image for image, _ in self._where], self.model.device
        pointed = [self._encoded.pointed[image][name] for image, name in self._where]
        perceived = self._perceive([state[-1] for state in states], images)
        middles = torch.tensor([each.middle for each in pointed], device=device)
        within = torch.tensor([each.within or NOWHERE for each in pointed], device=device)
        under = torch.stack([each.under for each in pointed])
        middles, under = self._centred(perceived.queries, images, middles, under)
        return self._seen(perceived, images, middles, under, within)

    @torch.inference_mode()
    def caption(self, labels: Sequence[Sequence[str]]) -> list[list[Captioned]]:
        """Each prompt of each image in words, as what its label says it is."""
        known = [label for each in labels for label in each]
        branches = [self._labelled(branch, label) for branch, label in zip(self._pointing(), known, strict=True)]
        said = decode(self.model, self._encoded, self._past, branches, self._budget.caption)
        answers = [Captioned(caption=self.model.vocabulary.decode(one.tokens), cut=one.cut) for one in said]
        return _split(answers, [len(each) for each in self._prompts])

    @torch.inference_mode()
    def describe(self, *, grounded: bool = True) -> list[Described]:
        """Each image in words, with masks for the words that have one where they are wanted (`grounded`)."""
        model = self.model
        branches = [model.describe(image) for image in range(len(self._prompts))]
        said = decode(model, self._encoded, self._past, branches, self._budget.scene, marks=("p", "</p>", "seg"))
        answers = []
        for image, one in enumerate(said):
            phrases, states, start = [], [], 0
            for at, token in enumerate(one.tokens):
                if token == model.vocabulary.mark("p"):
                    start = at
                elif token == model.vocabulary.mark("seg") and grounded:
                    phrases.append(model.vocabulary.decode(one.tokens[start:at]))
                    states.append(one.hidden[at])
            masks: list[Instance] = []
            if states:
                perceived = self._perceive(states, [image] * len(states))
                masks = [self._single(perceived, number) for number in range(len(states))]
            words = model.vocabulary.decode(one.tokens)
            answers.append(Described(caption=words, cut=one.cut, phrases=tuple(zip(phrases, masks, strict=True))))
        return answers

    @torch.inference_mode()
    def answer(self, questions: Sequence[tuple[int, str, Sequence[str]]]) -> list[tuple[str, bool]]:
        """Free text for questions, each (image, question, prompt ids): the answer, and whether its budget cut it."""
        branches = [self.model.ask(image, question, names) for image, question, names in questions]
        said = decode(self.model, self._encoded, self._past, branches, self._budget.answer)
        return [(self.model.vocabulary.decode(one.tokens), one.cut) for one in said]

    @torch.inference_mode()
    def choose(self, question: str, names: Sequence[str]) -> list[dict[str, float]]:
        """How likely each name is as the answer to a question, of each image; 1 together."""
        trie = Trie(self.model.vocabulary, names, end="eos")
        branches = [self.model.ask(image, question) for image in range(len(self._prompts))]
        states, slots = read(self.model, self._encoded, self._past, branches, len(trie.tokens))
        shares = likelihoods(self.model, states, slots, trie).softmax(dim=1).cpu().tolist()
        return [dict(zip(names, share, strict=True)) for share in shares]

    def _labelled(self, branch: Branch, label: str) -> Branch:
        words = self.model.vocabulary
        return Branch(branch.image, (*branch.tokens, *words.encode(label), words.mark("sep")), branch.regions)

    def _label_and_words(self, said: Said) -> tuple[str, list[int]]:
        words, sep = self.model.vocabulary, self.model.vocabulary.mark("sep")
        at = said.tokens.index(sep) if sep in said.tokens else len(said.tokens)
        return words.decode(said.tokens[:at]), said.tokens[at + 1 :]

    def _perceive(self, states: Sequence[Tensor], images: Sequence[int]) -> Perceived:
        model, encoded = self.model, self._encoded
        perceived: Perceived = model.perception(torch.stack(list(states)), images, encoded.pixels, encoded.looked)
        return replace(perceived, masks=perceived.masks + model.config.mask_offset)

    def _upsampled(self, masks: Tensor) -> Tensor:
        return functional.interpolate(masks[:, None], self._encoded.size, mode="bilinear", align_corners=False)[:, 0]

    def _single(self, perceived: Perceived, number: int) -> Instance:
        inside = (self._upsampled(perceived.masks[number : number + 1])[0] > 0).cpu().numpy()
        presence = float(perceived.presence[number].sigmoid())
        quality = float(perceived.quality[number].sigmoid())
        # An empty mask is not silent: it is None, with the presence beside it.
        mask = Mask.from_array(inside) if inside.any() else None
        return Instance(mask=mask, score=presence * quality, presence=presence)

    def _seen(
        self, perceived: Perceived, images: Sequence[int], peaks: Tensor, under: Tensor | None = None,
        within: Tensor | None = None,
    ) -> list[Instance]:  # fmt: skip
        """The one object of each query, at its peak."""
        judged = self.model.perception.judge(perceived.queries, images, peaks, self._encoded.pixels, under)
        seen = []
        for number, (mask, box) in enumerate(self._objects(judged, images, peaks, within)):
            presence, quality = (float(each[number].sigmoid()) for each in (perceived.presence, perceived.quality))
            seen.append(Instance(mask=mask, score=presence * quality, presence=presence, box=box))
        return seen

    def _centred(self, queries: Tensor, images: Sequence[int], places: Tensor, under: Tensor) -> tuple[Tensor, Tensor]:
        """Each point that lies beside the middle of what it shows, there: objects are learned from their middles.

        Other prompts stay, and so does a point a cell away at most: a tiny object's middle is not known better.
        """
        prompts = [prompt for each in self._prompts for prompt in each]
        points = [row for row, prompt in enumerate(prompts) if isinstance(prompt.place, Point)]
        if not points:
            return places, under
        pixels, theirs = self._encoded.pixels, [images[row] for row in points]
        boxes = self.model.perception.judge(queries[points], theirs, places[points], pixels, under[points]).boxes[-1]
        last = torch.tensor(pixels.shape[-2:], device=pixels.device) - 1
        middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).flip(-1).long().clamp(min=0).minimum(last)
        moved = ((middles - places[points]).abs().amax(dim=1) > 1)[:, None]
        rows = torch.tensor(points, device=places.device)
        placed = torch.where(moved, middles, places[points])
        seen = torch.where(moved, features_at(pixels, theirs, middles), under[points])
        return places.index_copy(0, rows, placed), under.index_copy(0, rows, seen)

    def _instances(
        self, perceived: Perceived, number: int, image: int, presence: float, least: float
    ) -> tuple[Instance, ...]:
        heat = perceived.centres[number].sigmoid()
        rows, cols = torch.nonzero(local_maxima(heat[None])[0] & (heat >= PEAK), as_tuple=True)
        if not len(rows):
            return ()
        order = heat[rows, cols].argsort(descending=True, stable=True)[:MOST_INSTANCES]
        places = torch.stack([rows[order], cols[order]], dim=1)
        images, queries = [image] * len(order), perceived.queries[number].expand(len(order), -1)
        judged = self.model.perception.judge(queries, images, places, self._encoded.pixels)
        scores = (heat[places[:, 0], places[:, 1]] * judged.worth.sigmoid()).sqrt()
        order = scores.argsort(descending=True, stable=True)[: int((scores >= least).sum())]
        if not len(order):
            return ()
        objects = self._objects(judged.of(order), images[: len(order)], places[order])
        scored = list(zip(objects, scores[order].tolist(), strict=True))
        return tuple(
            # What is too small to be outlined is where its box is.
            Instance(mask=mask or _filled(box), score=score, presence=presence, box=box)
            for (mask, box), score in (scored[at] for at in apart([box for _, box in objects]))
        )

    def _objects(
        self, judged: Judged, images: Sequence[int], peaks: Tensor, within: Tensor | None = None
    ) -> list[tuple[Mask | None, Box]]:
        """Outline and box of each instance; see `Perception.outline`."""
        scored = self.model.perception.outline(judged, images, self._encoded.pixels, within).cpu().numpy()
        drawn = [False] * len(images) if within is None else (~within.isnan().any(dim=1)).tolist()
        objects = []
        for one, peak, box, given in zip(scored, peaks.tolist(), judged.boxes[-1].tolist(), drawn, strict=True):
            objects.append((outlined(one, (peak[0], peak[1]), drawn=given), self._edges(box)))
        return objects

    def _edges(self, cells: Sequence[float]) -> Box:
        """A box in cells of stride 2 as one in pixels of the image, cut at its border; a pixel wide at least."""
        rows, cols = self._encoded.size
        x0, y0 = (min(max(edge * STRIDE, 0.0), side - 1.0) for edge, side in zip(cells[:2], (cols, rows), strict=True))
        x1, y1 = (min(edge * STRIDE, float(side)) for edge, side in zip(cells[2:], (cols, rows), strict=True))
        return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


def _filled(box: Box) -> Mask:
    y0, x0, y1, x1 = (round(edge) for edge in (box.y0, box.x0, box.y1, box.x1))
    return Mask.from_array(np.ones((max(y1 - y0, 1), max(x1 - x0, 1)), bool), y0=y0, x0=x0)


def apart(boxes: Sequence[Box]) -> list[int]:
    """Which boxes, the surest first, are no surer one's again (greedy non-maximum suppression)."""
    edges = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes]).reshape(-1, 4)
    low = np.maximum(edges[:, None, :2], edges[None, :, :2])
    high = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=-1)
    area = (edges[:, 2:] - edges[:, :2]).prod(axis=-1)
    same = shared / (area[:, None] + area[None] - shared) > SAME
    kept: list[int] = []
    for number in range(len(boxes)):
        if not same[number, kept].any():
            kept.append(number)
    return kept


Answer = TypeVar("Answer")


def _split(answers: Sequence[Answer], counts: Sequence[int]) -> list[list[Answer]]:
    split, start = [], 0
    for count in counts:
        split.append(list(answers[start : start + count]))
        start += count
    return split
