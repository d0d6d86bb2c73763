"""The protocol between the engine and a model, and how a model is found by its name.

The engine knows a model only as an `Analyst`. Reading and writing workers never load torch, and
any other model can stand in: `model: package.module:Class` in a job file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.answer import Grounding
from model.prompt import VisualPrompt
from pipeline.errors import AnalystError, JobError

Modality = Literal["optical", "sar", "infrared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileInput:
    """What an Analyst sees of one tile of H x W pixels."""

    pixels: NDArray[np.uint8]
    """(3, H, W) uint8, normalised by collection and modality; 0 where not valid."""
    valid: NDArray[np.bool_]
    """(H, W) bool. True where the ground was seen."""
    asked: NDArray[np.bool_]
    """(H, W) bool. True where answers are wanted: inside the AOI. The rest is context."""
    modality: Modality
    metres_per_pixel: float
    phrases: tuple[str, ...]
    """What to find, K phrases; empty for none."""
    prompts: tuple[VisualPrompt, ...]
    """What to refer to, in tile pixels."""
    describe: bool
    """Whether a caption of the whole tile is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOutput:
    """What an Analyst says of one tile of H x W pixels."""

    scores: NDArray[np.uint8]
    """(K, H, W) uint8, confidence per phrase in 1/255; 128 and above means yes."""
    groundings: tuple[Grounding, ...]
    """Objects found by phrase, and one answer per prompt."""
    caption: str = ""
    """Words for the tile; empty where none was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalystTraits:
    """What the engine has to know of a model before and without loading it."""

    name: str
    digest: str
    """Changes whenever an answer could: weights, code, settings."""
    context_px: int
    """Pixels at a tile's border whose answers lack context and are not used; the halo must exceed it."""
    tiles_per_batch: int
    same_object_overlap: float
    """Two answers of neighbouring tiles are one object when they share more than this part of the
    smaller one, in the ground that both tiles see. 0: any shared pixel."""
    min_score: float
    """An object under it is not kept; judged on the whole object."""
    min_area_px: int
    max_area_px: int
    """Sizes between which an object is kept; judged on the whole object."""


class Analyst(Protocol):
    """A model that reads tiles. Used by one thread of one process; deterministic."""

    @classmethod
    def traits(cls) -> AnalystTraits:
        """What the engine has to know; must not load weights."""
        ...

    @classmethod
    def load(cls) -> Analyst:
        """Ready to analyse, on this process's GPU where it has one."""
        ...

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        """One output per tile, in order. Must not depend on which tiles share a batch."""
        ...


def find_analyst(name: str) -> type[Analyst]:
    """The Analyst that a job file names: `cfar`, or `package.module:Class`.

    Raises:
        JobError: there is none of that name.
    """
    path = {"cfar": "pipeline.cfar:Cfar"}.get(name, name)
    module, _, attribute = path.partition(":")
    try:
        found: type[Analyst] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise JobError(
            f"model: no analyst '{name}' ({error}); use 'cfar' or the import path 'package.module:Class' of your own"
        ) from error
    return found


def check_output(output: TileOutput, tile: TileInput) -> None:
    """Refuse an answer that does not fit its question.

    Raises:
        AnalystError: scores of another shape or dtype, a mask past the tile, or a prompt left without answer.
    """
    height, width = tile.valid.shape
    expected = (len(tile.phrases), height, width)
    if output.scores.shape != expected or output.scores.dtype != np.uint8:
        raise AnalystError(
            f"the model answered scores {output.scores.dtype} {output.scores.shape}, expected uint8 {expected}; "
            "mend the model's analyse()"
        )
    for grounding in output.groundings:
        box = grounding.box
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            raise AnalystError(f"the model outlined {box}, outside the tile of {height} x {width} px")
        if not 0.0 <= grounding.score <= 1.0:
            raise AnalystError(f"the model gave the score {grounding.score}, expected 0..1")
    silent = {prompt.id for prompt in tile.prompts} - {grounding.prompt_id for grounding in output.groundings}
    if silent:
        raise AnalystError(f"the model gave no answer to the prompts {sorted(silent)[:5]}; every prompt needs one")
