"""What is truly there, in the cells of stride 2 in which the model sees.

Of an object of which only the box is known, the inner ellipse of six tenths of its sides is drawn, and what lies between
that and the box is not taught.
"""

# N truths, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.perception import STRIDE
from model.region import Mask
from model.training.samples import Sample

CORE = 0.6
"""Part of a box's sides that its inner ellipse has."""
NEAR = 0.01
"""Height of the heat map under which a centre is far."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a query is to see."""

    image: int
    masks: tuple[Mask, ...]
    outlined: bool
    kind: Literal["ground", "group", "located", "pointed"]
    """Ground as one mask; a group that has instances too, each with a middle; one object to be found; one that a
    prompt points at."""
    prompt: str = ""
    """Id of the prompt that points at it."""
    among: tuple[Mask, ...] = ()
    """Others that the heat map is to show too, and the phrase does not speak of."""


def known_cells(samples: Sequence[Sample], pixels: Tensor) -> Tensor:
    """(B, Y, X) 1 where something is known of the ground, else 0."""
    rows, cols = pixels.shape[-2:]
    known = np.ones((len(samples), rows, cols), np.float32)
    for image, sample in enumerate(samples):
        if sample.ignored is not None:
            known[image] = 1 - sample.ignored.reshape(rows, STRIDE, cols, STRIDE).any(axis=(1, 3))
    return torch.from_numpy(known).to(pixels.device)


def drawn(truths: Sequence[tuple[tuple[Mask, ...], bool]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of each query at stride 2: the part of each cell that they cover, and 1 where that is taught, else 0."""
    shape = (int(like.shape[-2]), int(like.shape[-1]))
    truth, taught = (np.zeros((len(truths), *shape), np.float32), np.ones((len(truths), *shape), np.float32))
    for number, (masks, outlined) in enumerate(truths):
        if not masks:
            continue
        inside = np.zeros((shape[0] * STRIDE, shape[1] * STRIDE), bool)
        for mask in masks:
            inside |= (mask if outlined else _core(mask)).window(0, 0, *inside.shape)
        truth[number] = _coarse(inside)
        # What is smaller than a cell has one: else no cell would be half covered, and nothing be seen.
        truth[number] /= max(float(truth[number].max()), 1 / STRIDE**2)
        if not outlined:
            boxes = np.zeros_like(inside)
            for mask in masks:
                boxes |= mask.window(0, 0, *boxes.shape)
            taught[number] = 1 - (_coarse(boxes) > 0) * (truth[number] < 0.5)
    return torch.from_numpy(truth).to(like.device), torch.from_numpy(taught).to(like.device)


def _core(mask: Mask) -> Mask:
    """The inner ellipse of a mask's box."""
    y, x = np.ogrid[: mask.height, : mask.width]
    inside = ((y + 0.5) / mask.height - 0.5) ** 2 + ((x + 0.5) / mask.width - 0.5) ** 2 <= (CORE / 2) ** 2
    inside[mask.height // 2, mask.width // 2] = True
    return Mask.from_array(inside, y0=mask.y0, x0=mask.x0)


def _coarse(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, cols = inside.shape[0] // STRIDE, inside.shape[1] // STRIDE
    return inside.reshape(rows, STRIDE, cols, STRIDE).mean(axis=(1, 3), dtype=np.float32)


def middle(mask: Mask, shape: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell that a mask's middle lies in, of an image of `shape` cells."""
    row, col = int(mask.centre.y / STRIDE), int(mask.centre.x / STRIDE)
    return min(max(row, 0), shape[0] - 1), min(max(col, 0), shape[1] - 1)


def heat_map(masks: Sequence[Mask], shape: tuple[int, int]) -> NDArray[np.float32]:
    """1 at each middle, falling off within a third of the object."""
    heat = np.zeros(shape, np.float32)
    for mask in masks:
        row, col = middle(mask, shape)
        spread = max(min(mask.height, mask.width) / STRIDE / 6, 0.5)
        reach = int(spread * (-2 * np.log(NEAR)) ** 0.5) + 1
        y0, x0 = max(row - reach, 0), max(col - reach, 0)
        window = heat[y0 : row + reach + 1, x0 : col + reach + 1]
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        near = np.exp(-((y + y0 - row) ** 2 + (x + x0 - col) ** 2) / (2 * spread**2))
        np.maximum(window, np.where(near > NEAR, near, 0), out=window)
        heat[row, col] = 1.0
    return heat


def held_box(masks: Sequence[Mask], peak: Sequence[int]) -> Tensor:
    """Box in cells of the object that a peak lies in; else not numbers."""
    number = owner_of(masks, peak)
    return torch.full((4,), torch.nan) if number is None else cells(masks[number])


def owner_of(masks: Sequence[Mask], peak: Sequence[int]) -> int | None:
    """Which object's box a peak lies in, of several that whose middle is nearest; None for none."""
    y, x = ((each + 0.5) * STRIDE for each in peak)
    around = [
        (m.box.x0 + m.box.x1 - 2 * x) ** 2 + (m.box.y0 + m.box.y1 - 2 * y) ** 2
        if m.x0 <= x <= m.x0 + m.width and m.y0 <= y <= m.y0 + m.height
        else np.inf
        for m in masks
    ]
    nearest = int(np.argmin(around)) if around else 0
    return nearest if around and around[nearest] < np.inf else None


def cells(mask: Mask) -> Tensor:
    """Its box, (4) xyxy in cells."""
    return torch.tensor([mask.x0, mask.y0, mask.x0 + mask.width, mask.y0 + mask.height]) / STRIDE
