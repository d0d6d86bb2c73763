"""EarthGPT-X for whoever hosts models of tiles: tiles and prompts in, groundings and scores out.

Torch is loaded with the model and not before: who plans a job only needs the traits.
"""

# K phrases, Y X pixels of a tile

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.answer import Grounding
from model.config import SCALES
from model.folder import digest, find_folder, read_config
from model.prompt import VisualPrompt
from model.region import Mask
from model.tile import AnalystTraits, TileInput, TileOutput

if TYPE_CHECKING:
    from torch import Tensor

    from model.earthgptx import EarthGPTX
    from model.tasks import Asked, Captioned, Described, Found, Referred
    from model.vision import Features

SHIPPED = Path(__file__).parent / "shipped"
"""Weights that come with the package, by scale."""
CODE = "10"
"""Version of all code that shapes an answer; part of the digest."""
MIN_SCORE = 0.35
"""Under which an object is not kept, and so not described."""
CONTEXT_PX = 16
"""A cell of the encoders: what lies nearer to a tile's border is seen without its surroundings."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model by its folder or hub id; or a scale: the weights that ship with it, else random ones, to try the way."""

    place: str

    def traits(self) -> AnalystTraits:
        """What a host has to know; weights are not loaded.

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
            name=name, digest=f"{found}-{CODE}", context_px=CONTEXT_PX, tiles_per_batch=4, same_object_overlap=0.3,
            min_score=MIN_SCORE, min_area_px=4, max_area_px=10**7,
        )  # fmt: skip

    def load(self) -> EarthGPTXAnalyst:
        """Ready to analyse, on a GPU where there is one."""
        import torch

        from model.memory import keep_memory
        from model.weights import from_pretrained, untrained

        keep_memory()
        model = untrained(self.place) if self._is_random else from_pretrained(self._folder)
        if torch.cuda.is_available():
            return EarthGPTXAnalyst(model.to("cuda", torch.bfloat16))
        # One thread and two differ in the last digits: as many replicas as there are cores, one thread each.
        torch.set_num_threads(1)
        return EarthGPTXAnalyst(model)

    @property
    def _folder(self) -> str:
        """The folder of the weights that ship under a scale's name; else what was given."""
        shipped = SHIPPED / self.place
        return str(shipped) if self.place in SCALES and shipped.is_dir() else self.place

    @property
    def _is_random(self) -> bool:
        return self._folder in SCALES


def source(place: str) -> Weights:
    """A model by its folder, hub id or scale.

    Raises:
        ModelError: there is no such model.
    """
    found = Weights(place)
    found.traits()
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """Images that the encoders have looked at."""

    pixels: Tensor
    modalities: list[str]
    metres: list[float | None]
    features: Features

    def of(self, images: Sequence[int]) -> _Seen:
        """Some of them, by their numbers."""
        modalities, metres = [self.modalities[one] for one in images], [self.metres[one] for one in images]
        return _Seen(self.pixels[images], modalities, metres, self.features.of(images))

    def asked(self, model: EarthGPTX, prompts: Sequence[Sequence[VisualPrompt]] = ()) -> Asked:
        """Ready to be asked, with prompts of each."""
        from model.tasks import Asked

        return Asked(model, self.pixels, self.modalities, prompts, metres=self.metres, features=self.features)


class EarthGPTXAnalyst:
    """The model, asked about tiles."""

    def __init__(self, model: EarthGPTX) -> None:
        """Host a model."""
        self.model = model

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        """One output per tile, in order.

        What is found does not depend on the prompts: it is looked for first, without any. Where captions are wanted,
        each found object is then a prompt itself, of which it is known what it is. Prompts beyond what the model reads
        together are asked in several turns. Tiles whose sides are not whole tokens are padded at their end.
        """
        import torch

        from model.focus import refer
        from model.pyramid import find
        from model.vision import padded

        model = self.model
        pixels = torch.from_numpy(np.stack([padded(tile.pixels, model.config.token_px) for tile in tiles]))
        with torch.inference_mode():
            features = model.encoders(pixels.to(model.device))
        seen = _Seen(pixels, [tile.modality for tile in tiles], [tile.metres_per_pixel for tile in tiles], features)
        asked = seen.asked(model)
        answers: list[list[Grounding]] = [[] for _ in tiles]
        found = find(asked, pixels, seen.modalities, [tile.phrases for tile in tiles], seen.metres, MIN_SCORE)
        scores = self._kept(found, tiles, answers)
        captions = [""] * len(tiles)
        if any(tile.describe for tile in tiles):
            texts = [_text(described) for described in asked.describe(grounded=False)]
            captions = [text if tile.describe else "" for tile, text in zip(tiles, texts, strict=True)]
        to_say = [_own_prompts(of_tile) if tile.describe else [] for tile, of_tile in zip(tiles, answers, strict=True)]
        for of, prompts in _turns(to_say, model.config.max_prompts):
            into = [answers[number] for number in of]
            labels = [[own[int(p.id)].label for p in each] for each, own in zip(prompts, into, strict=True)]
            said = seen.of(of).asked(model, prompts).caption(labels)
            for each, words, own in zip(prompts, said, into, strict=True):
                for prompt, answer in zip(each, words, strict=True):
                    own[int(prompt.id)] = replace(own[int(prompt.id)], caption=_text(answer))
        for of, prompts in _turns([tile.prompts for tile in tiles], model.config.max_prompts):
            near = seen.of(of)
            referred = refer(
                near.asked(model, prompts), near.pixels, near.modalities, prompts, tiles[0].names, near.metres
            )
            for number, each_said in zip(of, referred, strict=True):
                answers[number] += [_referred(answer, tiles[number]) for answer in each_said]
        return [
            TileOutput(scores=scores[number], groundings=tuple(answers[number]), caption=captions[number])
            for number in range(len(tiles))
        ]

    def _kept(
        self, found: list[list[Found]], tiles: Sequence[TileInput], answers: list[list[Grounding]]
    ) -> list[NDArray[np.uint8]]:
        """Scores (K, Y, X) of each tile; instances go into the answers."""
        scores = []
        for tile, of_tile, into in zip(tiles, found, answers, strict=True):
            height, width = tile.valid.shape
            planes = np.zeros((len(tile.phrases), height, width), np.uint8)
            for number, (phrase, one) in enumerate(zip(tile.phrases, of_tile, strict=True)):
                planes[number] = np.where(tile.asked, one.scores[:height, :width], 0)
                for instance in one.instances:
                    assert instance.mask is not None
                    inside = instance.mask.window(0, 0, height, width) & tile.asked
                    if inside.any() and instance.score >= MIN_SCORE:
                        into.append(Grounding(label=phrase, score=instance.score, mask=Mask.from_array(inside)))
            scores.append(planes)
        return scores


def _turns(
    prompts: Sequence[Sequence[VisualPrompt]], most: int
) -> Iterator[tuple[list[int], list[Sequence[VisualPrompt]]]]:
    """At most so many prompts of each image at a time: the images that have any left, by number, and these prompts."""
    for start in range(0, max(len(each) for each in prompts), most):
        of = [number for number, each in enumerate(prompts) if len(each) > start]
        yield of, [prompts[number][start : start + most] for number in of]


def _own_prompts(found: Sequence[Grounding]) -> list[VisualPrompt]:
    """Found objects as prompts, so that they are described; an id is a number in their order."""
    return [VisualPrompt(id=str(number), place=each.mask) for number, each in enumerate(found)]


def _text(answer: Captioned | Referred | Described) -> str:
    """The caption; one that hit its budget ends in dots."""
    return f"{answer.caption} ..." if answer.cut else answer.caption


def _referred(answer: Referred, tile: TileInput) -> Grounding:
    """An answer to a prompt; where the model sees nothing, the prompt's own ground with its low score."""
    height, width = tile.valid.shape
    seen = answer.seen.mask.window(0, 0, height, width) if answer.seen.mask else np.zeros((height, width), bool)
    if not seen.any():
        prompt: VisualPrompt = next(prompt for prompt in tile.prompts if prompt.id == answer.prompt_id)
        seen = prompt.inside(height, width)
    return Grounding(
        label=answer.label or "nothing", score=answer.seen.score, mask=Mask.from_array(seen), caption=_text(answer),
        prompt_id=answer.prompt_id,
    )  # fmt: skip
