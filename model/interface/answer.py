"""Grounded answers: named and outlined objects; replies to questions in words. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from earthgptx.model.interface.region import Box, Mask


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says to a question in words."""

    question: str
    text: str
    likelihood: float
    """Probability that the model gives to exactly this text, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """One outlined, named object in a tile."""

    label: str
    """Name of the object: a phrase that was searched, a given name, or the model's own words."""
    score: float
    """Confidence in 0..1."""
    mask: Mask
    """Outline in pixels of the tile."""
    caption: str = ""
    """Description of the object; empty if there is none."""
    prompt_id: str = ""
    """Id of the visual prompt that it answers; empty for an object found by phrase."""
    present: bool = True
    """False for the answer to a visual prompt that marks no such object. It is an answer and no
    object; its mask is the prompt's own pixels."""
    replies: tuple[Reply, ...] = ()
    """Replies to the questions about objects, in their order."""

    @property
    def box(self) -> Box:
        """Bounding box in pixels of the tile."""
        return self.mask.box
