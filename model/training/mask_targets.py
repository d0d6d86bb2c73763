"""Target masks, heat maps and boxes on the stride-2 cells of the perception module.

For an object known only by its box, the target is the inner ellipse with six tenths of its sides.
The cells between the ellipse and the box are not taught.
"""

# B images, N targets, Y X cells at stride 2

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgptx.model.interface.region import Mask
from earthgptx.model.network.perception import STRIDE
from earthgptx.model.samples.sample import Sample

CORE = 0.6
"""Axes of the inner ellipse, as a fraction of the sides of the box."""
NEAR = 0.01
"""Heat map values up to this one are set to 0."""


@dataclass(frozen=True, slots=True)
class MaskTarget:
    """Target of one query."""

    image: int
    """Number of the image in the batch."""
    masks: tuple[Mask, ...]
    """Objects to find; empty if there are none."""
    outlined: bool
    """Whether the masks are outlines; else they are boxes."""
    kind: Literal["ground", "group", "located", "pointed"]
    """ground: all masks as one, without instances. group: one mask and its instances, each with a
    centre. located: one object that a phrase describes. pointed: one object that a visual prompt
    points at."""
    prompt: str = ""
    """Id of the visual prompt that points at the object; empty for other kinds."""
    among: tuple[Mask, ...] = ()
    """Other objects of the same kind. The heat map has peaks for them, but the phrase does not
    describe them."""


def known_cells(samples: Sequence[Sample], pixels: Tensor) -> Tensor:
    """Returns (B, Y, X) float32: 0 for cells with an ignored pixel, else 1.

    Args:
        samples: B samples.
        pixels: (B, C, Y, X) features, used only for their shape and device.
    """
    rows, cols = pixels.shape[-2:]
    known = np.ones((len(samples), rows, cols), np.float32)
    for image, sample in enumerate(samples):
        if sample.ignored is not None:
            known[image] = 1 - sample.ignored.reshape(rows, STRIDE, cols, STRIDE).any(axis=(1, 3))
    return torch.from_numpy(known).to(pixels.device)


def mask_targets(
    truths: Sequence[tuple[tuple[Mask, ...], bool]], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Rasterises the masks of each target on the cells at stride 2.

    Args:
        truths: N pairs of masks and whether they are outlines.
        like: (..., Y, X), tensor with the shape and device of the result.

    Returns:
        (N, Y, X) fraction of each cell that the masks cover, scaled to a maximum of 1; and
        (N, Y, X), 1 where this is taught, else 0. Both float32.
    """
    shape = (int(like.shape[-2]), int(like.shape[-1]))
    truth, taught = (
        np.zeros((len(truths), *shape), np.float32),
        np.ones((len(truths), *shape), np.float32),
    )
    for number, (masks, outlined) in enumerate(truths):
        if not masks:
            continue
        inside = np.zeros((shape[0] * STRIDE, shape[1] * STRIDE), bool)
        for mask in masks:
            inside |= (mask if outlined else _core(mask)).window(0, 0, *inside.shape)
        truth[number] = _coarse(inside)
        # Else an object smaller than a cell would cover no cell by half and would not be seen.
        truth[number] /= max(float(truth[number].max()), 1 / STRIDE**2)
        if not outlined:
            boxes = np.zeros_like(inside)
            for mask in masks:
                boxes |= mask.window(0, 0, *boxes.shape)
            taught[number] = 1 - (_coarse(boxes) > 0) * (truth[number] < 0.5)
    return torch.from_numpy(truth).to(like.device), torch.from_numpy(taught).to(like.device)


def _core(mask: Mask) -> Mask:
    """Returns the inner ellipse of the box of a mask; its central pixel is always inside."""
    y, x = np.ogrid[: mask.height, : mask.width]
    inside = ((y + 0.5) / mask.height - 0.5) ** 2 + ((x + 0.5) / mask.width - 0.5) ** 2 <= (
        CORE / 2
    ) ** 2
    inside[mask.height // 2, mask.width // 2] = True
    return Mask.from_array(inside, y0=mask.y0, x0=mask.x0)


def _coarse(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, cols = inside.shape[0] // STRIDE, inside.shape[1] // STRIDE
    return inside.reshape(rows, STRIDE, cols, STRIDE).mean(axis=(1, 3), dtype=np.float32)


def centre_cell(mask: Mask, shape: tuple[int, int]) -> tuple[int, int]:
    """Returns row and column of the cell at the centre of a mask, in an image of `shape` cells."""
    row, col = int(mask.centre.y / STRIDE), int(mask.centre.x / STRIDE)
    return min(max(row, 0), shape[0] - 1), min(max(col, 0), shape[1] - 1)


def heat_map(masks: Sequence[Mask], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Returns a heat map with a Gaussian at the centre of each mask, 1 at its peak.

    The standard deviation is a sixth of the shorter side of the object, at least half a cell. Where
    Gaussians overlap, the higher value counts.

    Args:
        masks: objects.
        shape: rows and columns of the heat map in cells.
    """
    heat = np.zeros(shape, np.float32)
    for mask in masks:
        row, col = centre_cell(mask, shape)
        spread = max(min(mask.height, mask.width) / STRIDE / 6, 0.5)
        reach = int(spread * (-2 * np.log(NEAR)) ** 0.5) + 1
        y0, x0 = max(row - reach, 0), max(col - reach, 0)
        window = heat[y0 : row + reach + 1, x0 : col + reach + 1]
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        near = np.exp(-((y + y0 - row) ** 2 + (x + x0 - col) ** 2) / (2 * spread**2))
        np.maximum(window, np.where(near > NEAR, near, 0), out=window)
        heat[row, col] = 1.0
    return heat


def box_at_peak(masks: Sequence[Mask], peak: Sequence[int]) -> Tensor:
    """Returns the box (4), xyxy in cells, of the object at a peak; NaN if there is none."""
    number = owner_of(masks, peak)
    return torch.full((4,), torch.nan) if number is None else box_in_cells(masks[number])


def owner_of(masks: Sequence[Mask], peak: Sequence[int]) -> int | None:
    """Returns the index of the object whose box holds a peak; None if no box does.

    If several boxes hold the peak, the one with the nearest centre counts.

    Args:
        masks: objects.
        peak: row and column in cells.
    """
    y, x = ((each + 0.5) * STRIDE for each in peak)
    around = [
        (m.box.x0 + m.box.x1 - 2 * x) ** 2 + (m.box.y0 + m.box.y1 - 2 * y) ** 2
        if m.x0 <= x <= m.x0 + m.width and m.y0 <= y <= m.y0 + m.height
        else np.inf
        for m in masks
    ]
    nearest = int(np.argmin(around)) if around else 0
    return nearest if around and around[nearest] < np.inf else None


def box_in_cells(mask: Mask) -> Tensor:
    """Returns the box (4) of a mask, xyxy in cells."""
    return torch.tensor([mask.x0, mask.y0, mask.x0 + mask.width, mask.y0 + mask.height]) / STRIDE
