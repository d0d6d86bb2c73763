"""Grounded answers: an object that a model found, named and outlined. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from model.region import Box, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """One object in one tile."""

    label: str
    """What it is: a phrase that was asked for, or a word of the model's own."""
    score: float
    """Confidence in 0..1."""
    mask: Mask
    """Its pixels in the tile."""
    caption: str = ""
    """The model's words for it; empty where it has none."""
    prompt_id: str = ""
    """The visual prompt that it answers; empty for an object found by phrase."""

    @property
    def box(self) -> Box:
        """Bounding box in tile pixels."""
        return self.mask.box
