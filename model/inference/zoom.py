"""Outlines small objects of visual prompts on a crop around them (zoom-in).

The crop is enlarged; its side is three times the longer side of the object's box, at least 32 px.
The model also gets the whole image, reduced, as context. Follows Describe Anything (Lian et al.
2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from earthgptx.model.inference.answers import Instance, Referred
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point, Scribble
from earthgptx.model.interface.zoom_sizes import CROP_PX, FEW_PX, LEAST_PX, TIMES
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Around

CROPS_PER_BATCH = 64
"""Crops that are encoded per batch."""


@dataclass(frozen=True, slots=True)
class SmallPrompt:
    """A prompt on a small object, with the image number and the box that determines its crop."""

    image: int
    prompt: VisualPrompt
    box: Box


def refer(
    session: Session,
    pixels: Tensor,
    modalities: Sequence[str],
    prompts: Sequence[Sequence[VisualPrompt]],
    names: Sequence[str] = (),
    metres: Sequence[float | None] = (),
) -> list[list[Referred]]:
    """Returns the objects that prompts point at.

    Labels and captions come from the whole image; small objects are outlined on a crop.

    Args:
        session: session on the images and their prompts.
        pixels: (B, 3, rows, cols) uint8, the same images.
        modalities: modality of each image.
        prompts: prompts of each image.
        names: possible labels; empty for the model's own words.
        metres: metres per pixel of each image; None if unknown.
    """
    answers = session.refer(names)
    height, width = pixels.shape[-2:]
    small: list[tuple[int, SmallPrompt]] = []
    for image, (each, said) in enumerate(zip(prompts, answers, strict=True)):
        for at, (prompt, answer) in enumerate(zip(each, said, strict=True)):
            box = extent(prompt, answer.instance, height, width)
            if is_small(box):
                small.append((at, SmallPrompt(image, prompt, box)))
    outlined = segment_small(session.model, pixels, modalities, [near for _, near in small], metres)
    for (at, near), instance in zip(small, outlined, strict=True):
        answers[near.image][at] = replace(answers[near.image][at], instance=instance)
    return answers


def extent(prompt: VisualPrompt, instance: Instance, height: int, width: int) -> Box:
    """Returns the box of an object in pixels.

    For a box or a mask it is the drawn box. A point or a scribble does not show the extent of an
    object, so it is joined with the predicted box.
    """
    drawn = prompt.box(height, width)
    if instance.box is None or not isinstance(prompt.place, Point | Scribble):
        return drawn
    one, other = drawn, instance.box
    return Box(
        min(one.x0, other.x0), min(one.y0, other.y0), max(one.x1, other.x1), max(one.y1, other.y1)
    )


def is_small(box: Box) -> bool:
    """Tells whether an object is too small to be outlined well in its image."""
    return max(box.x1 - box.x0, box.y1 - box.y0) < FEW_PX


def segment_small(
    model: EarthGPTX,
    pixels: Tensor,
    modalities: Sequence[str],
    prompts: Sequence[SmallPrompt],
    metres: Sequence[float | None] = (),
) -> list[Instance]:
    """Outlines the objects of small prompts on their crops.

    Args:
        model: model to ask.
        pixels: (B, 3, rows, cols) uint8, with sides of at least `LEAST_PX`.
        modalities: modality of each image.
        prompts: prompts in pixels of their images.
        metres: metres per pixel of each image; None if unknown.

    Returns:
        One instance per prompt, in order, with mask and box in pixels of its image.
    """
    instances: list[Instance] = []
    for start in range(0, len(prompts), CROPS_PER_BATCH):
        instances += _segment(
            model, pixels, modalities, prompts[start : start + CROPS_PER_BATCH], metres
        )
    return instances


def _segment(
    model: EarthGPTX,
    pixels: Tensor,
    modalities: Sequence[str],
    prompts: Sequence[SmallPrompt],
    metres: Sequence[float | None],
) -> list[Instance]:
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
    # Padded to a square around its middle, because all images of a batch are square like the crops.
    around = {near.image: _resized(_square(pixels[near.image])) for near in prompts}
    side = max(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    wide = [(near.prompt.zoomed(top, left, CROP_PX / side, CROP_PX, CROP_PX),) for near in prompts]
    scales = [
        value and value * side / CROP_PX
        for near, (_, _, side) in zip(prompts, windows, strict=True)
        for value in [metres[near.image] if metres else None]
    ]
    session = Session(
        model,
        crops,
        [modalities[near.image] for near in prompts],
        [(prompt,) for prompt in inside],
        Around(torch.cat([around[near.image] for near in prompts]), wide),
        scales,
    )
    return [
        _back(instance, window, height, width)
        for [instance], window in zip(session.segment(), windows, strict=True)
    ]


def _window(box: Box, height: int, width: int) -> tuple[int, int, int]:
    """Returns row, column and side of the crop, which lies within the image."""
    side = min(max(int(TIMES * max(box.x1 - box.x0, box.y1 - box.y0)), LEAST_PX), height, width)
    y0, x0 = (int(middle - side / 2) for middle in (box.centre.y, box.centre.x))
    return min(max(y0, 0), height - side), min(max(x0, 0), width - side), side


def _resized(pixels: Tensor) -> Tensor:
    """Resizes (3, S, S) uint8 to (1, 3, CROP_PX, CROP_PX) uint8."""
    bigger = functional.interpolate(
        pixels[None].float(), (CROP_PX, CROP_PX), mode="bilinear", antialias=True
    )
    return bigger.round().clamp(0, 255).to(torch.uint8)


def _square(pixels: Tensor) -> Tensor:
    rows, cols = pixels.shape[-2:]
    side = max(rows, cols)
    top, left = (side - rows) // 2, (side - cols) // 2
    return functional.pad(pixels, (left, side - cols - left, top, side - rows - top))


def _back(instance: Instance, window: tuple[int, int, int], height: int, width: int) -> Instance:
    """Maps mask and box of an instance from pixels of its crop to pixels of the image."""
    y0, x0, side = window
    if instance.box is not None:
        x_low, y_low, x_high, y_high = (edge * side / CROP_PX for edge in astuple(instance.box))
        instance = replace(instance, box=Box(x0 + x_low, y0 + y_low, x0 + x_high, y0 + y_high))
    if instance.mask is None:
        return instance
    drawn = torch.from_numpy(instance.mask.window(0, 0, CROP_PX, CROP_PX))[None, None].float()
    share = functional.interpolate(drawn, (side, side), mode="area")[0, 0].numpy()
    # The maximum keeps at least one pixel of a tiny mask.
    inside: NDArray[np.bool_] = share >= min(0.5, float(share.max()))
    whole = Mask.from_array(inside, y0=y0, x0=x0).window(0, 0, height, width)
    return replace(instance, mask=Mask.from_array(whole))
