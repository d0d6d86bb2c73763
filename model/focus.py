"""Prompts of a few pixels, asked again on a crop around them (zoom-in).

A crop of three times the prompt's box, at least 48 px a side, enlarged; and beside it the whole image, reduced, in
which the crop lies. As Describe Anything does (Lian et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.earthgptx import Around, EarthGPTX
from model.focal import CROP_PX, FEW_PX, LEAST_PX
from model.prompt import VisualPrompt
from model.region import Box, Mask
from model.tasks import Asked, Referred

TOGETHER = 64
"""Crops that are looked at in one batch."""

Small = tuple[int, VisualPrompt]


def is_small(prompt: VisualPrompt, height: int, width: int) -> bool:
    """Whether a prompt of an image is too small to be seen well."""
    box = prompt.box(height, width)
    return max(box.x1 - box.x0, box.y1 - box.y0) < FEW_PX


def refer(
    asked: Asked, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]],
    names: Sequence[str] = (), metres: Sequence[float | None] = (),
) -> list[list[Referred]]:  # fmt: skip
    """What prompts point at; one of a few pixels is also asked on a crop, and the surer answer is taken.

    Args:
        asked: the images with their prompts.
        pixels: the same images, (B, 3, rows, cols) uint8.
        modalities: of each image.
        prompts: of each image.
        names: that an answer is one of; empty for the model's own words.
        metres: along a side of a pixel, of each image; None where it is not known.
    """
    answers = asked.refer(names)
    height, width = pixels.shape[-2:]
    small = [
        (image, at, prompt)
        for image, each in enumerate(prompts)
        for at, prompt in enumerate(each)
        if is_small(prompt, height, width)
    ]
    near = focus(asked.model, pixels, modalities, [(image, prompt) for image, _, prompt in small], names, metres)
    for (image, at, _), answer in zip(small, near, strict=True):
        if answer.seen.score > answers[image][at].seen.score:
            answers[image][at] = answer
    return answers


def focus(
    model: EarthGPTX, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Small], names: Sequence[str],
    metres: Sequence[float | None] = (),
) -> list[Referred]:  # fmt: skip
    """What small prompts point at, by their crops.

    Args:
        model: to ask.
        pixels: (B, 3, rows, cols) uint8; sides of `LEAST_PX` at least.
        modalities: of each image.
        prompts: number of the image and the prompt, in its pixels.
        names: that an answer is one of; empty for the model's own words.
        metres: along a side of a pixel, of each image; None where it is not known.

    Returns:
        In the prompts' order; masks in pixels of their images.
    """
    answers: list[Referred] = []
    for start in range(0, len(prompts), TOGETHER):
        answers += _focus(model, pixels, modalities, prompts[start : start + TOGETHER], names, metres)
    return answers


def _focus(
    model: EarthGPTX, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Small], names: Sequence[str],
    metres: Sequence[float | None] = (),
) -> list[Referred]:  # fmt: skip
    height, width = pixels.shape[-2:]
    windows = [_window(prompt, height, width) for _, prompt in prompts]
    crops = torch.cat(
        [
            _resized(pixels[image, :, y0 : y0 + side, x0 : x0 + side])
            for (image, _), (y0, x0, side) in zip(prompts, windows, strict=True)
        ]
    )
    inside = [
        prompt.zoomed(y0, x0, CROP_PX / side, CROP_PX, CROP_PX)
        for (_, prompt), (y0, x0, side) in zip(prompts, windows, strict=True)
    ]
    # The reduced image is square, as the crops are: a long image is seen from its middle.
    around = {image: _resized(_square(pixels[image])) for image, _ in prompts}
    side = max(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    wide = [(prompt.zoomed(top, left, CROP_PX / side, CROP_PX, CROP_PX),) for _, prompt in prompts]
    scales = [
        value and value * side / CROP_PX
        for (image, _), (_, _, side) in zip(prompts, windows, strict=True)
        for value in [metres[image] if metres else None]
    ]
    asked = Asked(
        model, crops, [modalities[image] for image, _ in prompts], [(prompt,) for prompt in inside],
        Around(torch.cat([around[image] for image, _ in prompts]), wide), scales,
    )  # fmt: skip
    return [_back(answer, window, height, width) for [answer], window in zip(asked.refer(names), windows, strict=True)]


def _window(prompt: VisualPrompt, height: int, width: int) -> tuple[int, int, int]:
    """Row, column and side of the crop, within the image."""
    box = prompt.box(height, width)
    side = min(max(int(3 * max(box.x1 - box.x0, box.y1 - box.y0)), LEAST_PX), height, width)
    y0, x0 = (int(middle - side / 2) for middle in (box.centre.y, box.centre.x))
    return min(max(y0, 0), height - side), min(max(x0, 0), width - side), side


def _resized(pixels: Tensor) -> Tensor:
    """(3, S, S) uint8 to (1, 3, CROP_PX, CROP_PX)."""
    bigger = functional.interpolate(pixels[None].float(), (CROP_PX, CROP_PX), mode="bilinear", antialias=True)
    return bigger.round().clamp(0, 255).to(torch.uint8)


def _square(pixels: Tensor) -> Tensor:
    rows, cols = pixels.shape[-2:]
    side = max(rows, cols)
    top, left = (side - rows) // 2, (side - cols) // 2
    return functional.pad(pixels, (left, side - cols - left, top, side - rows - top))


def _back(answer: Referred, window: tuple[int, int, int], height: int, width: int) -> Referred:
    """The answer with its mask and its box in pixels of the image."""
    y0, x0, side = window
    if answer.seen.box is not None:
        x_low, y_low, x_high, y_high = (edge * side / CROP_PX for edge in astuple(answer.seen.box))
        box = Box(x0 + x_low, y0 + y_low, x0 + x_high, y0 + y_high)
        answer = replace(answer, seen=replace(answer.seen, box=box))
    if answer.seen.mask is None:
        return answer
    drawn = torch.from_numpy(answer.seen.mask.window(0, 0, CROP_PX, CROP_PX))[None, None].float()
    share = functional.interpolate(drawn, (side, side), mode="area")[0, 0].numpy()
    inside: NDArray[np.bool_] = share >= min(0.5, float(share.max()))  # a speck is one pixel at least
    mask = Mask.from_array(inside, y0=y0, x0=x0)
    whole = mask.window(0, 0, height, width)
    return replace(answer, seen=replace(answer.seen, mask=Mask.from_array(whole)))
