"""What a model is asked of one tile, and what it answers; and what its host has to know of it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.answer import Grounding
from model.prompt import VisualPrompt

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
    metres_per_pixel: float | None
    phrases: tuple[str, ...]
    """What to find, K phrases; empty for none."""
    prompts: tuple[VisualPrompt, ...]
    """What to refer to, in tile pixels."""
    names: tuple[str, ...]
    """What a prompt may be called; empty for the model's own words."""
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
