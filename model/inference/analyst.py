"""EarthGPT-X behind the Analyst protocol: tiles and prompts in, groundings and scores out.

Imports torch only when the model is loaded, because planning a job needs only the traits.
"""

# K phrases, Y X pixels of a tile

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.answer import Grounding, Reply
from earthgptx.model.interface.config import SCALES
from earthgptx.model.interface.folder import digest, find_folder, read_config
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import AnalystTraits, TileInput, TileOutput
from earthgptx.model.samples.wording import lasting

if TYPE_CHECKING:
    from torch import Tensor

    from earthgptx.model.inference.answers import Captioned, Found, Referred
    from earthgptx.model.inference.session import Session
    from earthgptx.model.network.earthgptx import EarthGPTX
    from earthgptx.model.network.vision import Features

SHIPPED = Path(__file__).parents[1] / "weights"
"""Folder of the weights that ship with the package, one subfolder per scale."""
CODE = "14"
"""Version of all code that affects answers; part of the digest."""
MIN_SCORE = 0.35
"""Lowest score of an object that is kept and captioned, 0..1."""
CONTEXT_PX = 16
"""Side of an encoder cell in pixels; pixels closer to the tile's border lack context."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model that is not loaded yet, named by folder, hub id or scale.

    A scale stands for the weights that ship with the package, or for random weights (to try out the
    pipeline) if none ship.
    """

    place: str

    def traits(self) -> AnalystTraits:
        """Returns what a host needs to know, without loading the weights.

        Raises:
            ModelError: there is no such model.
        """
        if self._is_random:
            name, found = f"earthgptx-{self.place}-untrained", self.place
        else:
            folder = find_folder(self._folder)
            read_config(folder)
            name, found = f"earthgptx-{Path(self.place).name}", digest(folder)
        return AnalystTraits(
            name=name,
            digest=f"{found}-{CODE}",
            context_px=CONTEXT_PX,
            tiles_per_batch=4,
            same_object_overlap=0.3,
            min_score=MIN_SCORE,
            min_area_px=4,
            max_area_px=10**7,
            replies=True,
        )

    def load(self) -> EarthGPTXAnalyst:
        """Loads the model, onto the GPU (as bfloat16) if there is one."""
        import torch

        from earthgptx.model.checkpoint.weights import from_pretrained, untrained
        from earthgptx.model.interface.allocator import tune_allocator

        tune_allocator()
        model = untrained(self.place) if self._is_random else from_pretrained(self._folder)
        if torch.cuda.is_available():
            return EarthGPTXAnalyst(model.to("cuda", torch.bfloat16))
        # Results with one and two threads differ in the last digits. Each replica uses one thread,
        # and there are as many replicas as cores.
        torch.set_num_threads(1)
        return EarthGPTXAnalyst(model)

    @property
    def _folder(self) -> str:
        """The folder of the shipped weights if `place` is a scale that has them; else `place`."""
        shipped = SHIPPED / self.place
        return str(shipped) if self.place in SCALES and shipped.is_dir() else self.place

    @property
    def _is_random(self) -> bool:
        return self._folder in SCALES


def source(place: str) -> Weights:
    """Returns the model that a folder, hub id or scale names, without loading it.

    Raises:
        ModelError: there is no such model.
    """
    found = Weights(place)
    found.traits()
    return found


@dataclass(frozen=True, slots=True)
class _EncodedTiles:
    """Images with their encoder features."""

    pixels: Tensor
    modalities: Sequence[str]
    metres: list[float | None]
    features: Features

    def of(self, images: Sequence[int]) -> _EncodedTiles:
        """Returns the images with the given numbers."""
        modalities = [self.modalities[one] for one in images]
        metres = [self.metres[one] for one in images]
        return _EncodedTiles(self.pixels[images], modalities, metres, self.features.of(images))

    def session(self, model: EarthGPTX, prompts: Sequence[Sequence[VisualPrompt]] = ()) -> Session:
        """Opens a session on the images, with visual prompts per image."""
        from earthgptx.model.inference.session import Session

        return Session(
            model, self.pixels, self.modalities, prompts, metres=self.metres, features=self.features
        )


class EarthGPTXAnalyst:
    """Answers questions about tiles with a loaded model."""

    def __init__(self, model: EarthGPTX, least: float = MIN_SCORE) -> None:
        """Wraps a loaded model.

        Args:
            model: the model.
            least: lowest score of an object that is kept, 0..1.
        """
        self.model, self._least = model, least

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        """Returns one output per tile, in order.

        Phrases are searched first and without prompts, so the objects found do not depend on the
        prompts. If captions are wanted, each object found then becomes a visual prompt with a known
        label. Questions in words come last: about the tile, and about each object as a visual
        prompt. Prompts that exceed the model's limit per image are split into several turns.
        Tiles whose sides are not multiples of the token size are padded at the bottom and right.
        """
        from earthgptx.model.inference.pyramid import find

        images = self._encoded(tiles)
        session = images.session(self.model)
        phrases = [tile.phrases for tile in tiles]
        found = find(session, images.pixels, images.modalities, phrases, images.metres, self._least)
        answers = [
            _found_objects(tile, each, self._least) for tile, each in zip(tiles, found, strict=True)
        ]
        captions = [""] * len(tiles)
        if any(tile.describe for tile in tiles):
            said = session.describe(grounded=False)
            texts = [_ended(each.caption, cut=each.cut) for each in said]
            for number, tile in enumerate(tiles):
                captions[number] = texts[number] if tile.describe else ""
        self._caption_objects(images, tiles, answers)
        self._answer_prompts(images, tiles, answers)
        self._ask_about_objects(images, tiles, answers)
        replies = _replies(session, [(tile.questions, [()]) for tile in tiles])
        return [
            TileOutput(
                scores=_scores(tile, found[number]),
                groundings=tuple(answers[number]),
                caption=captions[number],
                replies=replies[number][0],
            )
            for number, tile in enumerate(tiles)
        ]

    def _encoded(self, tiles: Sequence[TileInput]) -> _EncodedTiles:
        import torch

        from earthgptx.model.network.vision import padded

        token_px = self.model.config.token_px
        pixels = torch.from_numpy(np.stack([padded(tile.pixels, token_px) for tile in tiles]))
        with torch.inference_mode():
            features = self.model.encoders(pixels.to(self.model.device))
        modalities = [tile.modality for tile in tiles]
        metres = [tile.metres_per_pixel for tile in tiles]
        return _EncodedTiles(pixels, modalities, metres, features)

    def _caption_objects(
        self,
        images: _EncodedTiles,
        tiles: Sequence[TileInput],
        answers: list[list[Grounding]],
    ) -> None:
        """Adds captions to the objects that were found by phrase, where they are wanted."""
        prompts_of = [
            _as_prompts(each) if tile.caption else []
            for tile, each in zip(tiles, answers, strict=True)
        ]
        for numbers, prompts in _turns(prompts_of, self.model.config.max_prompts):
            labels = [
                [answers[number][int(prompt.id)].label for prompt in each]
                for number, each in zip(numbers, prompts, strict=True)
            ]
            said = images.of(numbers).session(self.model, prompts).caption(labels)
            for number, each, words in zip(numbers, prompts, said, strict=True):
                for prompt, answer in zip(each, words, strict=True):
                    at = int(prompt.id)
                    answers[number][at] = replace(answers[number][at], caption=_text(answer))

    def _answer_prompts(
        self,
        images: _EncodedTiles,
        tiles: Sequence[TileInput],
        answers: list[list[Grounding]],
    ) -> None:
        """Appends the answers to all prompts of all tiles."""
        from earthgptx.model.inference.zoom import refer

        for numbers, prompts in _turns(
            [tile.prompts for tile in tiles], self.model.config.max_prompts
        ):
            turn = images.of(numbers)
            session = turn.session(self.model, prompts)
            referred = refer(
                session, turn.pixels, turn.modalities, prompts, tiles[0].names, turn.metres
            )
            for number, each in zip(numbers, referred, strict=True):
                answers[number] += [_referred(answer, tiles[number]) for answer in each]

    def _ask_about_objects(
        self,
        images: _EncodedTiles,
        tiles: Sequence[TileInput],
        answers: list[list[Grounding]],
    ) -> None:
        """Adds the replies to questions about objects to all that are there."""
        there = [
            [at for at, found in enumerate(each) if tile.object_questions and found.present]
            for tile, each in zip(tiles, answers, strict=True)
        ]
        prompts_of = [
            [VisualPrompt(id=str(at), place=answers[number][at].mask) for at in each]
            for number, each in enumerate(there)
        ]
        for numbers, prompts in _turns(prompts_of, self.model.config.max_prompts):
            session = images.of(numbers).session(self.model, prompts)
            about = [
                (tiles[number].object_questions, [(prompt.id,) for prompt in each])
                for number, each in zip(numbers, prompts, strict=True)
            ]
            for number, each, said in zip(numbers, prompts, _replies(session, about), strict=True):
                for prompt, replies in zip(each, said, strict=True):
                    at = int(prompt.id)
                    answers[number][at] = replace(answers[number][at], replies=replies)


def _replies(
    session: Session,
    about: Sequence[tuple[Sequence[str], Sequence[tuple[str, ...]]]],
) -> list[list[tuple[Reply, ...]]]:
    """Asks questions in words.

    Args:
        session: session on images.
        about: of each image the questions, and the prompts that each of them is asked about: ids,
            or nothing for the image as a whole.

    Returns:
        Of each image, for each of these prompts, the replies in the order of the questions.
    """
    asked = [
        (image, question, ids)
        for image, (questions, prompts) in enumerate(about)
        for ids in prompts
        for question in questions
    ]
    said = iter(session.answer(asked) if asked else ())
    return [
        [
            tuple(
                Reply(question, _ended(reply.text, cut=reply.cut), reply.likelihood)
                for question, reply in zip(questions, said, strict=False)  # the next ones stay
            )
            for _ in prompts
        ]
        for questions, prompts in about
    ]


def _scores(tile: TileInput, found: Sequence[Found]) -> NDArray[np.uint8]:
    """Returns the scores per phrase, (K, Y, X) uint8; 0 outside `wanted`."""
    height, width = tile.valid.shape
    planes = np.zeros((len(tile.phrases), height, width), np.uint8)
    for plane, one in zip(planes, found, strict=True):
        plane[:] = np.where(tile.wanted, one.scores[:height, :width], 0)
    return planes


def _found_objects(tile: TileInput, found: Sequence[Found], least: float) -> list[Grounding]:
    """Returns the objects of all phrases, clipped to `wanted`."""
    height, width = tile.valid.shape
    objects = []
    for phrase, one in zip(tile.phrases, found, strict=True):
        for instance in one.instances:
            assert instance.mask is not None
            inside = instance.mask.window(0, 0, height, width) & tile.wanted
            if inside.any() and instance.score >= least:
                mask = Mask.from_array(inside)
                objects.append(Grounding(label=phrase, score=instance.score, mask=mask))
    return objects


def _turns(
    prompts: Sequence[Sequence[VisualPrompt]], most: int
) -> Iterator[tuple[list[int], list[Sequence[VisualPrompt]]]]:
    """Splits prompts into turns of at most `most` per image.

    Yields the numbers of the images that have prompts left, and these prompts.
    """
    for start in range(0, max(len(each) for each in prompts), most):
        numbers = [number for number, each in enumerate(prompts) if len(each) > start]
        yield numbers, [prompts[number][start : start + most] for number in numbers]


def _as_prompts(found: Sequence[Grounding]) -> list[VisualPrompt]:
    """Converts objects to visual prompts whose ids are their positions in `found`."""
    return [VisualPrompt(id=str(number), place=each.mask) for number, each in enumerate(found)]


def _text(answer: Captioned | Referred) -> str:
    """Returns the caption of an object, without what holds in its tile alone."""
    if not answer.cut:
        return lasting(answer.caption)
    # The clause that its budget has cut may be the start of a place.
    whole = lasting(answer.caption.rpartition(", ")[0] or answer.caption)
    return _ended(whole, cut=bool(whole))


def _ended(words: str, *, cut: bool) -> str:
    """Returns words, with dots appended if their budget cut them."""
    return f"{words} ..." if cut else words


def _referred(answer: Referred, tile: TileInput) -> Grounding:
    """Converts an answer to a prompt. One without a label or an outline is no object."""
    height, width = tile.valid.shape
    inside = np.zeros((height, width), bool)
    if answer.instance.mask is not None:
        inside = answer.instance.mask.window(0, 0, height, width)
    present = bool(answer.label and inside.any())
    if not inside.any():
        prompt = next(prompt for prompt in tile.prompts if prompt.id == answer.prompt_id)
        inside = prompt.inside(height, width)
    return Grounding(
        label=answer.label,
        score=answer.instance.score,
        mask=Mask.from_array(inside),
        caption=_text(answer),
        prompt_id=answer.prompt_id,
        present=present,
    )
