"""Answers questions about a batch of images, with one method per task.

The images are encoded once; all questions share the prefix of their image. Tasks: find, locate,
refer, segment, caption, describe, answer, choose.
"""

# B images, K phrases, M queries, Y X pixels

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from earthgptx.model.inference.answers import (
    Captioned,
    Described,
    Found,
    Instance,
    Located,
    Referred,
    Replied,
)
from earthgptx.model.inference.generate import (
    Generated,
    Trie,
    decode,
    likelihoods,
    read,
    read_prefix,
)
from earthgptx.model.inference.segmenter import Segmenter
from earthgptx.model.interface.config import Budget
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Around, Branch, Encoded
from earthgptx.model.network.language import Slots
from earthgptx.model.network.tokens import LOCATIONS
from earthgptx.model.network.vision import Features

LEAST_SCORE = 0.1
"""Default for the lowest score of an instance that is kept, 0..1."""


class Session:
    """A batch of encoded images that can be asked any number of questions."""

    def __init__(
        self,
        model: EarthGPTX,
        pixels: Tensor,
        modalities: Sequence[str],
        prompts: Sequence[Sequence[VisualPrompt]] = (),
        around: Around | None = None,
        metres: Sequence[float | None] = (),
        features: Features | None = None,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        """Encodes the images; see `EarthGPTX.encode`."""
        self.model, self._budget = model, budget
        self._prompts = prompts or [() for _ in pixels]
        self._pointers = [
            (image, prompt.id) for image, each in enumerate(self._prompts) for prompt in each
        ]
        with torch.inference_mode():
            self._encoded: Encoded = model.encode(
                pixels, modalities, self._prompts, around, metres, features
            )
        self._past: Slots = read_prefix(model, self._encoded)
        self._segmenter = Segmenter(model, self._encoded)

    @torch.inference_mode()
    def find(
        self, phrases: Sequence[Sequence[str]], least: float = LEAST_SCORE
    ) -> list[list[Found]]:
        """Returns everything that fits the phrases of each image.

        Args:
            phrases: phrases of each image.
            least: lowest score of an instance that is kept, 0..1.
        """
        branches = [
            self.model.find(image, phrase) for image, each in enumerate(phrases) for phrase in each
        ]
        if not branches:
            return [[] for _ in phrases]
        states, _ = read(self.model, self._encoded, self._past, branches)
        presence = self._presence(states, "segs")
        images = [branch.image for branch in branches]
        perceived = self._segmenter.perceive([state[-1] for state in states], images)
        dense = self._segmenter.ground(perceived, images).sigmoid_().mul_(presence[:, None, None])
        scores = dense.mul_(255).round_().to(torch.uint8).cpu().numpy()
        answers = []
        for score, query, heat, image, sure in zip(
            scores,
            perceived.queries,
            self._segmenter.heat(perceived, images),
            images,
            presence.tolist(),
            strict=True,
        ):
            instances = self._segmenter.several(query, heat, image, sure, least)
            answers.append(Found(scores=score, presence=sure, instances=instances))
        return _split(answers, [len(each) for each in phrases])

    @torch.inference_mode()
    def locate(self, phrases: Sequence[Sequence[str]]) -> list[list[Located]]:
        """Returns the one object that each phrase of each image refers to."""
        model = self.model
        branches = [
            model.locate(image, phrase) for image, each in enumerate(phrases) for phrase in each
        ]
        if not branches:
            return [[] for _ in phrases]
        states, _ = read(model, self._encoded, self._past, branches)
        presence = self._presence(states, "seg").tolist()
        images = [branch.image for branch in branches]
        perceived = self._segmenter.perceive([state[-1] for state in states], images)
        places = self._segmenter.chosen_candidates(states, perceived, images)
        mark = model.vocabulary.mark("box")
        boxes = [Branch(branch.image, (*branch.tokens, mark)) for branch in branches]
        said = decode(model, self._encoded, self._past, boxes, 4)
        instances = self._segmenter.single(perceived, images, places)
        answers = []
        for one, instance, sure in zip(said, instances, presence, strict=True):
            instance = replace(instance, presence=sure, score=sure * instance.score)
            answers.append(Located(box=self._said_box(one.tokens), instance=instance))
        return _split(answers, [len(each) for each in phrases])

    @torch.inference_mode()
    def refer(self, names: Sequence[str] = ()) -> list[list[Referred]]:
        """Labels, captions and outlines the object that each prompt of each image points at.

        Args:
            names: possible labels; empty for the model's own words.
        """
        if not self._pointers:
            return [[] for _ in self._prompts]
        model = self.model
        branches = self._pointing()
        trie = Trie(model.vocabulary, names)
        states, slots = read(model, self._encoded, self._past, branches, len(trie.tokens))
        instances = self._segmenter.pointed_at([state[-1] for state in states], self._prompts)
        labels: list[str] = []
        shares: list[dict[str, float]] = [{} for _ in branches]
        if names:
            worth = likelihoods(model, states, slots, trie) / model.config.temperature
            rows = worth.softmax(dim=1).cpu().tolist()
            labels = [names[int(np.argmax(row))] for row in rows]
            shares = [dict(zip(names, row, strict=True)) for row in rows]
            branches = self._labelled(branches, labels)
        marks = () if names else ("sep",)
        said = decode(model, self._encoded, self._past, branches, self._budget.caption, marks=marks)
        answers = []
        for number, (_, prompt_id) in enumerate(self._pointers):
            label, words = (
                (labels[number], said[number].tokens)
                if names
                else self._label_and_words(said[number])
            )
            answers.append(
                Referred(
                    prompt_id=prompt_id,
                    label=label,
                    labels=shares[number],
                    caption=model.vocabulary.decode(words),
                    cut=said[number].cut,
                    instance=instances[number],
                )
            )
        return self._by_image(answers)

    @torch.inference_mode()
    def segment(self) -> list[list[Instance]]:
        """Returns only the outline of the object that each prompt of each image points at."""
        if not self._pointers:
            return [[] for _ in self._prompts]
        states, _ = read(self.model, self._encoded, self._past, self._pointing())
        return self._by_image(
            self._segmenter.pointed_at([state[-1] for state in states], self._prompts)
        )

    @torch.inference_mode()
    def caption(self, labels: Sequence[Sequence[str]]) -> list[list[Captioned]]:
        """Captions the object of each prompt of each image, given its label."""
        branches = self._labelled(self._pointing(), [label for each in labels for label in each])
        said = decode(self.model, self._encoded, self._past, branches, self._budget.caption)
        decoded = self.model.vocabulary.decode
        return self._by_image([Captioned(caption=decoded(one.tokens), cut=one.cut) for one in said])

    @torch.inference_mode()
    def describe(self, *, grounded: bool = True) -> list[Described]:
        """Captions each image.

        Args:
            grounded: whether masks of phrases in the caption are computed.
        """
        model = self.model
        branches = [model.describe(image) for image in range(len(self._prompts))]
        marks = ("p", "</p>", "seg")
        budget = self._budget.scene
        said = decode(model, self._encoded, self._past, branches, budget, marks=marks)
        return [
            Described(
                caption=model.vocabulary.decode(one.tokens),
                cut=one.cut,
                phrases=self._grounded_phrases(image, one) if grounded else (),
            )
            for image, one in enumerate(said)
        ]

    @torch.inference_mode()
    def answer(self, questions: Sequence[tuple[int, str, Sequence[str]]]) -> list[Replied]:
        """Replies to questions in words.

        Args:
            questions: image number, question, and ids of the prompts that it is about.
        """
        branches = [
            self.model.ask(image, question, prompt_ids) for image, question, prompt_ids in questions
        ]
        said = decode(self.model, self._encoded, self._past, branches, self._budget.answer)
        decoded = self.model.vocabulary.decode
        return [
            Replied(text=decoded(one.tokens), cut=one.cut, likelihood=math.exp(one.log_likelihood))
            for one in said
        ]

    @torch.inference_mode()
    def choose(self, question: str, names: Sequence[str]) -> list[dict[str, float]]:
        """Returns per image the probability of each name as the answer; they sum to 1."""
        trie = Trie(self.model.vocabulary, names, end="eos")
        branches = [self.model.ask(image, question) for image in range(len(self._prompts))]
        states, slots = read(self.model, self._encoded, self._past, branches, len(trie.tokens))
        shares = likelihoods(self.model, states, slots, trie).softmax(dim=1).cpu().tolist()
        return [dict(zip(names, share, strict=True)) for share in shares]

    def _presence(self, states: Sequence[Tensor], mark: str) -> Tensor:
        """Returns (M) probability of `mark` against `<none>` as the last token of each branch."""
        words = self.model.vocabulary
        said = self.model.language.logits(torch.stack([state[-2] for state in states]))
        return (said[:, words.mark(mark)] - said[:, words.mark("none")]).sigmoid()

    def _pointing(self) -> list[Branch]:
        """Returns one branch per prompt."""
        return [self.model.refer(*pointer) for pointer in self._pointers]

    def _labelled(self, branches: Sequence[Branch], labels: Sequence[str]) -> list[Branch]:
        """Appends the given labels to branches, as if the model had generated them."""
        words = self.model.vocabulary
        sep = words.mark("sep")
        return [
            Branch(branch.image, (*branch.tokens, *words.encode(label), sep), branch.regions)
            for branch, label in zip(branches, labels, strict=True)
        ]

    def _label_and_words(self, said: Generated) -> tuple[str, list[int]]:
        """Splits an answer in the model's own words into its label and its caption tokens."""
        words, sep = self.model.vocabulary, self.model.vocabulary.mark("sep")
        at = said.tokens.index(sep) if sep in said.tokens else len(said.tokens)
        return words.decode(said.tokens[:at]), said.tokens[at + 1 :]

    def _grounded_phrases(self, image: int, said: Generated) -> tuple[tuple[str, Instance], ...]:
        """Returns the phrases of a description that have a mask, each with its instance."""
        words = self.model.vocabulary
        phrases, states, start = [], [], 0
        for at, token in enumerate(said.tokens):
            if token == words.mark("p"):
                start = at
            elif token == words.mark("seg"):
                phrases.append(words.decode(said.tokens[start:at]))
                states.append(said.hidden[at])
        if not states:
            return ()
        perceived = self._segmenter.perceive(states, [image] * len(states))
        ground = self._segmenter.ground(perceived, [image] * len(states))
        masks = [
            self._segmenter.stuff(perceived, number, covered)
            for number, covered in enumerate(ground)
        ]
        return tuple(zip(phrases, masks, strict=True))

    def _said_box(self, tokens: Sequence[int]) -> Box:
        """Decodes four location tokens to a box in pixels."""
        rows, cols = self._encoded.size
        # Decoding allows only location tokens after <box>.
        places = [self.model.vocabulary.place(token) for token in tokens]
        x0, y0, x1, y1 = (place for place in places if place is not None)
        half = 0.5 / LOCATIONS  # a box with both edges in one bin gets the width of that bin
        return Box((x0 - half) * cols, (y0 - half) * rows, (x1 + half) * cols, (y1 + half) * rows)

    def _by_image(self, answers: Sequence[Answer]) -> list[list[Answer]]:
        """Groups the answers to all prompts by image."""
        return _split(answers, [len(each) for each in self._prompts])


Answer = TypeVar("Answer")


def _split(answers: Sequence[Answer], counts: Sequence[int]) -> list[list[Answer]]:
    """Splits answers into consecutive lists of the given lengths."""
    split, start = [], 0
    for count in counts:
        split.append(list(answers[start : start + count]))
        start += count
    return split
