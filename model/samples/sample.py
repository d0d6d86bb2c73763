"""Samples: images with the lessons that a model is trained on. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import Modality


@dataclass(frozen=True, slots=True)
class Find:
    """Lesson to find all objects that fit a phrase; no masks teach that there is none."""

    phrase: str
    masks: tuple[Mask, ...]
    apart: bool = True
    """Whether the masks are single objects; if False, they are ground of one kind."""
    outlined: bool = True
    """Whether all masks follow outlines; if False, at least one is a box."""


@dataclass(frozen=True, slots=True)
class Locate:
    """Lesson to locate the only object that fits a phrase."""

    phrase: str
    mask: Mask | None
    """None teaches that no object fits."""
    outlined: bool = True
    among: tuple[Mask, ...] = ()
    """Other objects of the same kind, where known; the phrase does not fit them."""


@dataclass(frozen=True, slots=True)
class Refer:
    """Lesson to name, describe and outline the region that a visual prompt points at."""

    prompt_id: str
    label: str
    caption: str
    mask: Mask
    outlined: bool = True
    made: bool = False
    """Whether the caption comes from a template and geometry and not from the source."""


@dataclass(frozen=True, slots=True)
class Describe:
    """Lesson to describe the scene; pieces that have a mask are grounded."""

    pieces: tuple[tuple[str, Mask | None], ...]
    outlined: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """Lesson to answer a question about the image or about visual prompts."""

    question: str
    answer: str
    prompt_ids: tuple[str, ...] = ()
    """Ids of the visual prompts in question; empty for the whole image."""
    told: bool = False
    """Whether question and answer come from the source, and not from geometry."""


Lesson = Find | Locate | Refer | Describe | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its lessons, which share one encoding of the image."""

    pixels: NDArray[np.uint8]
    """(3, H, W) uint8."""
    modality: Modality
    prompts: tuple[VisualPrompt, ...]
    lessons: tuple[Lesson, ...]
    metres_per_pixel: float | None = None
    """None where unknown."""
    ignored: NDArray[np.bool_] | None = None
    """(H, W) bool. True where nothing is known, so no mask is taught there; None if nowhere."""
    around: tuple[NDArray[np.uint8], tuple[VisualPrompt, ...]] | None = None
    """Wider view that contains the image, (3, h, w) uint8, and the prompts in it; None for none."""
    word_masks: tuple[Find, ...] = ()
    """One entry per known word, without masks if absent; trains the features directly."""
