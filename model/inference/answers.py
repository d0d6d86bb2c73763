"""Answers of a model as plain values: instances, and one type per task."""

# Y X pixels of an image

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.interface.region import Box, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One object, or all ground that one phrase covers."""

    mask: Mask | None
    """Outline in pixels; None if nothing is outlined, see `presence`."""
    score: float
    """Confidence, 0..1. For the ground of a phrase or a single object: presence times predicted
    mask quality; for a located object, that product times `presence`. For objects found by a
    phrase: the geometric mean of the peak's height and the box's score. Presence does not enter
    there, because a single small ship in a wide sea shows at its peak but not in the image as a
    whole."""
    presence: float
    """Probability that the image shows any such object, 0..1."""
    box: Box | None = None
    """Box predicted from the instance's middle, with continuous edges in pixels; None for the
    ground of a phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that fits one phrase in one image."""

    scores: NDArray[np.uint8]
    """(Y, X) uint8 score per pixel in 1/255."""
    presence: float
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The one object that a phrase refers to."""

    box: Box
    """Box in pixels, decoded from four location tokens."""
    instance: Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Referred:
    """The object that a visual prompt points at."""

    prompt_id: str
    label: str
    labels: dict[str, float]
    """Probability per given name, summing to 1; empty if no names were given."""
    caption: str
    cut: bool
    """True if the caption reached its budget."""
    instance: Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """The caption of a visual prompt's object whose label is given."""

    caption: str
    cut: bool
    """True if the caption reached its budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The reply to a question in words."""

    text: str
    cut: bool
    """True if the reply reached its budget."""
    likelihood: float
    """Probability of exactly these words, and that the reply ends there, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The caption of a whole image."""

    caption: str
    cut: bool
    """True if the caption reached its budget."""
    phrases: tuple[tuple[str, Instance], ...]
    """Phrases of the caption that have a mask, each with its instance."""
