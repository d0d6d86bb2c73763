"""Phrases and scenes, asked of an image and of the same at half its pixels: there what is large is seen whole.

An image pyramid of two, of whose upper level only large objects are taken (as by Singh and Davis 2018).
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

from model.earthgptx import EarthGPTX
from model.region import Box, Mask
from model.tasks import SURE, Asked, Found, Instance, apart

LARGE_PX = 64
"""Longer side of an object from which it is taken from the halved image too."""
HALVED_PART = 0.25
"""Of the ground's score that is the halved image's."""
Value = TypeVar("Value", np.bool_, np.uint8)


def find(
    asked: Asked, pixels: Tensor, modalities: Sequence[str], phrases: Sequence[Sequence[str]],
    metres: Sequence[float | None] = (), least: float = SURE,
) -> list[list[Found]]:  # fmt: skip
    """All that fits each phrase, of each image its own phrases, on both levels.

    Args:
        asked: the images.
        pixels: the same images, (B, 3, rows, cols) uint8.
        modalities: of each image.
        phrases: of each image.
        metres: along a side of a pixel, of each image; None where it is not known.
        least: score of an instance.
    """
    whole = asked.find(phrases, least)
    if not any(phrases):
        return whole
    small = _upper(asked.model, pixels, modalities, metres)
    height, width = pixels.shape[-2:]
    return [
        [_joined(one, other, height, width) for one, other in zip(fine, coarse, strict=True)]
        for fine, coarse in zip(whole, small.find(phrases, least), strict=True)
    ]


def choose(
    asked: Asked, pixels: Tensor, modalities: Sequence[str], question: str, names: Sequence[str],
    metres: Sequence[float | None] = (),
) -> list[dict[str, float]]:  # fmt: skip
    """How likely each name is as the answer to a question about each image, 1 together: the geometric mean of both levels.

    Args:
        asked: the images.
        pixels: the same images, (B, 3, rows, cols) uint8.
        modalities: of each image.
        question: about all of an image.
        names: that an answer is one of.
        metres: along a side of a pixel, of each image; None where it is not known.
    """
    fine = asked.choose(question, names)
    coarse = _upper(asked.model, pixels, modalities, metres).choose(question, names)
    likely = [
        {name: math.sqrt(one[name] * other[name]) for name in names} for one, other in zip(fine, coarse, strict=True)
    ]
    return [{name: share / sum(each.values()) for name, share in each.items()} for each in likely]


def _upper(model: EarthGPTX, pixels: Tensor, modalities: Sequence[str], metres: Sequence[float | None]) -> Asked:
    scales = [value and 2 * value for value in metres]
    return Asked(model, _halved(pixels, model.config.token_px), modalities, metres=scales)


def _halved(pixels: Tensor, step: int) -> Tensor:
    """Images at half their pixels, black at their end up to whole multiples of `step`."""
    half = functional.avg_pool2d(pixels.float(), 2).round().to(torch.uint8)
    rows, cols = half.shape[-2:]
    return functional.pad(half, (0, -cols % step, 0, -rows % step))


def _joined(fine: Found, coarse: Found, height: int, width: int) -> Found:
    """What was found on both levels, in pixels of the whole image; each object once, as where it is surest."""
    scores = (1 - HALVED_PART) * fine.scores + HALVED_PART * _doubled(coarse.scores)[:height, :width]
    large = [_enlarged(each, height, width) for each in coarse.instances]
    every = sorted([*fine.instances, *(each for each in large if each is not None)], key=lambda each: -each.score)
    boxes = [each.box for each in every if each.box is not None]
    return replace(fine, scores=scores.round().astype(np.uint8), instances=tuple(every[at] for at in apart(boxes)))


def _enlarged(instance: Instance, height: int, width: int) -> Instance | None:
    """A large object of the halved image in pixels of the whole one; None where it is small or lies beyond it."""
    assert instance.box is not None
    assert instance.mask is not None
    x0, y0, x1, y1 = (2 * edge for edge in astuple(instance.box))
    x1, y1 = min(x1, width), min(y1, height)
    if x0 >= width or y0 >= height or max(x1 - x0, y1 - y0) < LARGE_PX:
        return None
    mask = instance.mask
    inside = Mask.from_array(_doubled(mask.to_array()), y0=2 * mask.y0, x0=2 * mask.x0).window(0, 0, height, width)
    if not inside.any():
        return None
    return replace(instance, box=Box(x0, y0, x1, y1), mask=Mask.from_array(inside))


def _doubled(values: NDArray[Value]) -> NDArray[Value]:
    return values.repeat(2, axis=0).repeat(2, axis=1)
