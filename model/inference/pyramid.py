"""Searches phrases and classifies scenes in an image and in a copy of half the size.

In the halved image, large objects are seen as a whole. The image pyramid has two levels; only large
objects are taken from the upper one (as in Singh and Davis 2018).
"""

# B images, Y X pixels

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from earthgptx.model.inference.answers import Found, Instance
from earthgptx.model.inference.session import LEAST_SCORE, Session
from earthgptx.model.inference.suppression import distinct
from earthgptx.model.interface.region import Box, Mask
from earthgptx.model.network.earthgptx import EarthGPTX

LARGE_PX = 64
"""Longer side from which an object of the halved image is taken too, in whole-image pixels."""
HALVED_PART = 0.25
"""Weight of the halved image in the scores of the ground."""
Value = TypeVar("Value", np.bool_, np.uint8)


def find(
    session: Session,
    pixels: Tensor,
    modalities: Sequence[str],
    phrases: Sequence[Sequence[str]],
    metres: Sequence[float | None] = (),
    least: float = LEAST_SCORE,
) -> list[list[Found]]:
    """Returns everything that fits the phrases of each image, searched on both levels.

    Args:
        session: session on the images.
        pixels: (B, 3, rows, cols) uint8, the same images.
        modalities: modality of each image.
        phrases: phrases of each image.
        metres: metres per pixel of each image; None if unknown.
        least: lowest score of an instance that is kept, 0..1.
    """
    whole = session.find(phrases, least)
    if not any(phrases):
        return whole
    small = _upper(session.model, pixels, modalities, metres)
    height, width = pixels.shape[-2:]
    return [
        [_joined(one, other, height, width) for one, other in zip(fine, coarse, strict=True)]
        for fine, coarse in zip(whole, small.find(phrases, least), strict=True)
    ]


def choose(
    session: Session,
    pixels: Tensor,
    modalities: Sequence[str],
    question: str,
    names: Sequence[str],
    metres: Sequence[float | None] = (),
) -> list[dict[str, float]]:
    """Returns the probability of each name as the answer to a question, one dict per image.

    The probabilities are the geometric means over both levels, scaled so that they sum to 1.

    Args:
        session: session on the images.
        pixels: (B, 3, rows, cols) uint8, the same images.
        modalities: modality of each image.
        question: question about the whole image.
        names: possible answers.
        metres: metres per pixel of each image; None if unknown.
    """
    fine = session.choose(question, names)
    coarse = _upper(session.model, pixels, modalities, metres).choose(question, names)
    likely = [
        {name: math.sqrt(one[name] * other[name]) for name in names}
        for one, other in zip(fine, coarse, strict=True)
    ]
    return [{name: share / sum(each.values()) for name, share in each.items()} for each in likely]


def _upper(
    model: EarthGPTX, pixels: Tensor, modalities: Sequence[str], metres: Sequence[float | None]
) -> Session:
    scales = [value and 2 * value for value in metres]
    return Session(model, _halved(pixels, model.config.token_px), modalities, metres=scales)


def _halved(pixels: Tensor, step: int) -> Tensor:
    """Halves images, and pads them with black at the bottom and right to multiples of `step`."""
    half = functional.avg_pool2d(pixels.float(), 2).round().to(torch.uint8)
    rows, cols = half.shape[-2:]
    return functional.pad(half, (0, -cols % step, 0, -rows % step))


def _joined(fine: Found, coarse: Found, height: int, width: int) -> Found:
    """Merges the results of both levels in pixels of the whole image.

    Of duplicates, the one with the highest score is kept.
    """
    scores = (1 - HALVED_PART) * fine.scores + HALVED_PART * _doubled(coarse.scores)[
        :height, :width
    ]
    large = [_enlarged(each, height, width) for each in coarse.instances]
    every = sorted(
        [*fine.instances, *(each for each in large if each is not None)],
        key=lambda each: -each.score,
    )
    boxes = [each.box for each in every if each.box is not None]
    return replace(
        fine,
        scores=scores.round().astype(np.uint8),
        instances=tuple(every[at] for at in distinct(boxes)),
    )


def _enlarged(instance: Instance, height: int, width: int) -> Instance | None:
    """Scales a large object of the halved image to pixels of the whole image.

    Returns None if the object is small or lies outside the whole image.
    """
    assert instance.box is not None
    assert instance.mask is not None
    x0, y0, x1, y1 = (2 * edge for edge in astuple(instance.box))
    x1, y1 = min(x1, width), min(y1, height)
    if x0 >= width or y0 >= height or max(x1 - x0, y1 - y0) < LARGE_PX:
        return None
    mask = instance.mask
    inside = Mask.from_array(_doubled(mask.to_array()), y0=2 * mask.y0, x0=2 * mask.x0).window(
        0, 0, height, width
    )
    if not inside.any():
        return None
    return replace(instance, box=Box(x0, y0, x1, y1), mask=Mask.from_array(inside))


def _doubled(values: NDArray[Value]) -> NDArray[Value]:
    return values.repeat(2, axis=0).repeat(2, axis=1)
