"""Small objects that are pointed at, outlined on a crop around them (zoom-in).

A crop of three times the object's box, at least 32 px a side, enlarged; and beside it the whole image, reduced, in
which the crop lies. As Describe Anything does (Lian et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.earthgptx import Around, EarthGPTX
from model.focal import CROP_PX, FEW_PX, LEAST_PX, TIMES
from model.prompt import VisualPrompt
from model.region import Box, Mask, Point, Scribble
from model.tasks import Asked, Instance, Referred

TOGETHER = 64
"""Crops that are looked at in one batch."""


@dataclass(frozen=True, slots=True)
class Near:
    """A prompt, and the box of which its crop is a multiple."""

    image: int
    prompt: VisualPrompt
    box: Box


def refer(
    asked: Asked, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Sequence[VisualPrompt]],
    names: Sequence[str] = (), metres: Sequence[float | None] = (),
) -> list[list[Referred]]:  # fmt: skip
    """What prompts point at: in the words that its whole image gives it, and outlined on a crop where it is small.

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
    small: list[tuple[int, Near]] = []
    for image, (each, said) in enumerate(zip(prompts, answers, strict=True)):
        for at, (prompt, answer) in enumerate(zip(each, said, strict=True)):
            box = extent(prompt, answer.seen, height, width)
            if is_small(box):
                small.append((at, Near(image, prompt, box)))
    seen = outline(asked.model, pixels, modalities, [near for _, near in small], metres)
    for (at, near), instance in zip(small, seen, strict=True):
        answers[near.image][at] = replace(answers[near.image][at], seen=instance)
    return answers


def extent(prompt: VisualPrompt, seen: Instance, height: int, width: int) -> Box:
    """How far an object goes: as far as what was drawn of it; a point and a stroke do not tell, and it is judged."""
    drawn = prompt.box(height, width)
    if seen.box is None or not isinstance(prompt.place, Point | Scribble):
        return drawn
    one, other = drawn, seen.box
    return Box(min(one.x0, other.x0), min(one.y0, other.y0), max(one.x1, other.x1), max(one.y1, other.y1))


def is_small(box: Box) -> bool:
    """Whether an object is too small to be outlined well in its image."""
    return max(box.x1 - box.x0, box.y1 - box.y0) < FEW_PX


def outline(
    model: EarthGPTX, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Near],
    metres: Sequence[float | None] = (),
) -> list[Instance]:  # fmt: skip
    """What small prompts point at, by their crops.

    Args:
        model: to ask.
        pixels: (B, 3, rows, cols) uint8; sides of `LEAST_PX` at least.
        modalities: of each image.
        prompts: in pixels of their images.
        metres: along a side of a pixel, of each image; None where it is not known.

    Returns:
        In the prompts' order; masks and boxes in pixels of their images.
    """
    seen: list[Instance] = []
    for start in range(0, len(prompts), TOGETHER):
        seen += _outline(model, pixels, modalities, prompts[start : start + TOGETHER], metres)
    return seen


def _outline(
    model: EarthGPTX, pixels: Tensor, modalities: Sequence[str], prompts: Sequence[Near],
    metres: Sequence[float | None],
) -> list[Instance]:  # fmt: skip
    height, width = pixels.shape[-2:]
    windows = [_window(near.box, height, width) for near in prompts]
    crops = torch.cat(
        [
            _resized(pixels[near.image, :, y0 : y0 + side, x0 : x0 + side])
            for near, (y0, x0, side) in zip(prompts, windows, strict=True)
        ]
    )
    inside = [
        near.prompt.zoomed(y0, x0, CROP_PX / side, CROP_PX, CROP_PX)
        for near, (y0, x0, side) in zip(prompts, windows, strict=True)
    ]
    # The reduced image is square, as the crops are: a long image is seen from its middle.
    around = {near.image: _resized(_square(pixels[near.image])) for near in prompts}
    side = max(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    wide = [(near.prompt.zoomed(top, left, CROP_PX / side, CROP_PX, CROP_PX),) for near in prompts]
    scales = [
        value and value * side / CROP_PX
        for near, (_, _, side) in zip(prompts, windows, strict=True)
        for value in [metres[near.image] if metres else None]
    ]
    asked = Asked(
        model, crops, [modalities[near.image] for near in prompts], [(prompt,) for prompt in inside],
        Around(torch.cat([around[near.image] for near in prompts]), wide), scales,
    )  # fmt: skip
    return [_back(seen, window, height, width) for [seen], window in zip(asked.outline(), windows, strict=True)]


def _window(box: Box, height: int, width: int) -> tuple[int, int, int]:
    """Row, column and side of the crop, within the image."""
    side = min(max(int(TIMES * max(box.x1 - box.x0, box.y1 - box.y0)), LEAST_PX), height, width)
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


def _back(seen: Instance, window: tuple[int, int, int], height: int, width: int) -> Instance:
    """An instance of a crop with its mask and its box in pixels of the image."""
    y0, x0, side = window
    if seen.box is not None:
        x_low, y_low, x_high, y_high = (edge * side / CROP_PX for edge in astuple(seen.box))
        seen = replace(seen, box=Box(x0 + x_low, y0 + y_low, x0 + x_high, y0 + y_high))
    if seen.mask is None:
        return seen
    drawn = torch.from_numpy(seen.mask.window(0, 0, CROP_PX, CROP_PX))[None, None].float()
    share = functional.interpolate(drawn, (side, side), mode="area")[0, 0].numpy()
    inside: NDArray[np.bool_] = share >= min(0.5, float(share.max()))  # a speck is one pixel at least
    whole = Mask.from_array(inside, y0=y0, x0=x0).window(0, 0, height, width)
    return replace(seen, mask=Mask.from_array(whole))
