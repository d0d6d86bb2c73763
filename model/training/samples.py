"""What a model learns from: an image and what is to be said of it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.prompt import VisualPrompt
from model.region import Mask


@dataclass(frozen=True, slots=True)
class Find:
    """Every object that fits a phrase; none of them says that there is none."""

    phrase: str
    masks: tuple[Mask, ...]
    apart: bool = True
    """Whether they are single objects; else they are ground of one kind."""
    outlined: bool = True
    """Whether the masks are outlines; else they are boxes."""


@dataclass(frozen=True, slots=True)
class Locate:
    """The one object that a phrase speaks of; None says that there is none."""

    phrase: str
    mask: Mask | None
    outlined: bool = True
    among: tuple[Mask, ...] = ()
    """The others of its kind, where they are known."""


@dataclass(frozen=True, slots=True)
class Refer:
    """What a prompt of the image points at."""

    prompt_id: str
    label: str
    caption: str
    mask: Mask
    outlined: bool = True
    made: bool = False
    """Whether the caption is made from a template and what lies around, and is no source's."""


@dataclass(frozen=True, slots=True)
class Describe:
    """The scene in words; pieces that have a mask are grounded."""

    pieces: tuple[tuple[str, Mask | None], ...]
    outlined: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, about prompts where they are named, and its answer."""

    question: str
    answer: str
    prompt_ids: tuple[str, ...] = ()


Lesson = Find | Locate | Refer | Describe | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its lessons: the image is encoded once for all of them."""

    pixels: NDArray[np.uint8]
    """(3, H, W) uint8."""
    modality: str
    prompts: tuple[VisualPrompt, ...]
    lessons: tuple[Lesson, ...]
    metres_per_pixel: float | None = None
    """None where it is not known."""
    ignored: NDArray[np.bool_] | None = None
    """(H, W). True where nothing is known: no mask is taught there."""
    around: tuple[NDArray[np.uint8], tuple[VisualPrompt, ...]] | None = None
    """The wider view that the image is a crop of, (3, h, w), and the prompts in it; None for none."""
    ground: tuple[Find, ...] = ()
    """All that is known of the ground, word by word; teaches the features directly."""
