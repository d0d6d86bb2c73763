"""Analysts of the tests. Those that misbehave are CFAR until they see the mark: a pixel of 201 in
the middle of a tile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from earthgptx.model.interface.answer import Grounding, Reply
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import AnalystTraits, TileInput, TileOutput
from earthgptx.pipeline.analysis.cfar import Cfar

MARK = 201
LOG = "EARTHGPTX_TEST_LOG"


def marked(tile: TileInput) -> bool:
    return bool((tile.pixels[0, 64:-64, 64:-64] == MARK).any())


class Slow(Cfar):
    """Takes its time."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        time.sleep(0.15 * len(tiles))
        return super().analyse(tiles)


class Dawdling(Cfar):
    """Takes another time for each tile, so that blocks end in another order than they began."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        for tile in tiles:
            time.sleep(int(tile.pixels.sum()) % 7 / 50)
        return super().analyse(tiles)


class Counting(Cfar):
    """Notes every tile that it is asked about."""

    @classmethod
    def traits(cls) -> AnalystTraits:
        return replace(Cfar.traits(), tiles_per_batch=3, name="counting")

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        with Path(os.environ[LOG]).open("a") as log:
            for tile in tiles:
                gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
                log.write(f"{hash(tile.pixels.tobytes())} {gpu} {os.getpid()}\n")
        time.sleep(0.05 * len(tiles))  # so that every replica gets some
        return super().analyse(tiles)


class Raising(Cfar):
    """Raises on the mark."""

    @classmethod
    def traits(cls) -> AnalystTraits:
        return replace(Cfar.traits(), tiles_per_batch=4, name="raising")

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        if any(marked(tile) for tile in tiles):
            raise RuntimeError("this tile is too much for me")
        return super().analyse(tiles)


class WrongShape(Cfar):
    """Answers another shape on the mark."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        return [
            replace(answer, scores=np.zeros((1, 7, 7), np.uint8)) if marked(tile) else answer
            for tile, answer in zip(tiles, super().analyse(tiles), strict=True)
        ]


class Silent(Cfar):
    """Forgets an answer on the mark."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        answers = super().analyse(tiles)
        return answers[:-1] if marked(tiles[0]) else answers


class Killing(Cfar):
    """Kills its process on the mark."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        if any(marked(tile) for tile in tiles):
            os._exit(1)
        return super().analyse(tiles)


class Hanging(Cfar):
    """Never comes back from the mark, and takes longer to load than a block may take."""

    @classmethod
    def load(cls) -> Hanging:
        time.sleep(7)
        return cls()

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        if any(marked(tile) for tile in tiles):
            time.sleep(3600)
        return super().analyse(tiles)


class Unloadable(Cfar):
    """Cannot be loaded."""

    @classmethod
    def load(cls) -> Unloadable:
        raise RuntimeError("no weights here")


class Sleeping(Cfar):
    """Takes two seconds for a tile and no processor: a model on a GPU of its own."""

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        answers = super().analyse(tiles)
        time.sleep(len(tiles) * 2.0)
        return answers


class Replying(Cfar):
    """Replies to each question with what it is about: the brightest pixel, or the width in pixels.

    Questions that begin with "fail" have no reply.
    """

    @classmethod
    def traits(cls) -> AnalystTraits:
        return replace(Cfar.traits(), name="replying", replies=True)

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        found = super().analyse(tiles)
        return [
            replace(
                output,
                replies=_said(tile.questions, str(tile.pixels[:, tile.valid].max())),
                groundings=tuple(
                    replace(each, replies=_said(tile.object_questions, f"{each.mask.width} px"))
                    for each in output.groundings
                ),
            )
            for tile, output in zip(tiles, found, strict=True)
        ]


def _said(questions: Sequence[str], text: str) -> tuple[Reply, ...]:
    return tuple(Reply(each, text, 0.25) for each in questions if not each.startswith("fail"))


class Levels(Cfar):
    """Finds what has the phrase's grey level: 150 for the first phrase, 250 for the second."""

    @classmethod
    def traits(cls) -> AnalystTraits:
        return replace(
            Cfar.traits(), name="levels", digest="levels", context_px=1, max_area_px=10**6
        )

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        return [_levels(tile) for tile in tiles]


def _levels(tile: TileInput) -> TileOutput:
    inside = [(tile.pixels[0] == 150 + 100 * at) & tile.wanted for at in range(len(tile.phrases))]
    found = []
    for label, mask in zip(tile.phrases, inside, strict=True):
        pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
        found += [
            Grounding(label=label, score=1.0, mask=Mask.from_array(pieces == number))
            for number in range(1, count + 1)
        ]
    return TileOutput(scores=np.stack(inside).astype(np.uint8) * 255, groundings=tuple(found))
