"""Input and output of an analyst per tile, and the traits that its host needs. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.answer import Grounding, Reply
from earthgptx.model.interface.prompt import VisualPrompt

Modality = Literal["optical", "sar", "infrared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileInput:
    """Input of an analyst for one tile of H x W pixels."""

    pixels: NDArray[np.uint8]
    """(3, H, W) uint8, normalised by collection and modality; 0 where not valid."""
    valid: NDArray[np.bool_]
    """(H, W) bool, True where pixels have data."""
    wanted: NDArray[np.bool_]
    """(H, W) bool, True where answers are wanted (inside the AOI); the rest is context."""
    modality: Modality
    metres_per_pixel: float | None
    phrases: tuple[str, ...]
    """K phrases to search; may be empty."""
    prompts: tuple[VisualPrompt, ...]
    """Visual prompts to answer, in pixels of the tile."""
    names: tuple[str, ...]
    """Possible labels of a prompt's object; empty for the model's own words."""
    describe: bool
    """Whether a caption of the whole tile is wanted."""
    caption: bool = True
    """Whether captions of the objects that are found by phrase are wanted."""
    questions: tuple[str, ...] = ()
    """Questions in words about the tile."""
    object_questions: tuple[str, ...] = ()
    """Questions in words about each object that is found or referred to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOutput:
    """Output of an analyst for one tile of H x W pixels."""

    scores: NDArray[np.uint8]
    """(K, H, W) uint8, confidence per phrase in 1/255; 128 and above counts as found."""
    groundings: tuple[Grounding, ...]
    """Objects found by phrase, and one answer per prompt."""
    caption: str = ""
    """Caption of the tile; empty if none is wanted."""
    replies: tuple[Reply, ...] = ()
    """Replies to the questions about the tile, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalystTraits:
    """Properties of a model that the engine needs without loading it."""

    name: str
    digest: str
    """Digest that changes whenever answers may change: weights, code, settings."""
    context_px: int
    """Width in pixels of a tile's margin whose answers lack context and are not used; the halo must
    exceed it."""
    tiles_per_batch: int
    same_object_overlap: float
    """Fraction of the smaller of two groundings from neighbouring tiles, measured where both tiles
    see; if they share more, they are one object. 0: any shared pixel."""
    min_score: float
    """Lowest score of an object that is kept, 0..1; applied to the merged object."""
    min_area_px: int
    """Smallest area of an object that is kept, in pixels; applied to the merged object."""
    max_area_px: int
    """Largest area of an object that is kept, in pixels; applied to the merged object."""
    replies: bool = False
    """Whether the model replies to questions in words."""
