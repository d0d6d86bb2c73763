"""Copies real objects from one image of a set to another (Ghiasi et al. 2021). Torch-free.

A set that outlines its objects in few images shows each of them on one ground only. Copies show
them on other real ground of the same scale, where it looks like the ground around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.datasets.record import LEAST_PX, Record, Region
from earthgptx.model.interface.region import Mask

COPIED = ("ship",)
"""Labels of the objects that are copied: those that lie on any water."""
MOST = 5
TRIES = 12
"""Places that are tried for an object; it gets the one that looks most like its own ground."""
LARGEST_DIFFERENCE = 20.0
"""Largest mean difference between both grounds, in values of 0..255: keeps most ships out of
towns."""
MARGIN_PX = 3
"""Margin around an object that is cut out with it."""
RIM_PX = 1
"""Width of the rim of its own ground that comes with an object and fades out."""
LEAST_ALPHA = 0.02
"""Opacity below which nothing of a copy is drawn."""


def may_copy(record: Record) -> bool:
    """Whether an image has objects that may be copied, and no texts that copies make wrong."""
    told = record.north_up or record.scene or record.questions or record.choices
    phrased = any(region.phrase for region in record.regions)
    return not (told or phrased) and any(map(_is_copied, record.regions))


def may_donate(donor: Record, record: Record) -> bool:
    """Whether objects of an image fit into another one: of its sensor, and of its known scale."""
    return (
        donor is not record
        and donor.modality == record.modality
        and donor.metres_per_pixel == record.metres_per_pixel is not None
        and any(map(_is_copied, donor.regions))
    )


def with_copies(record: Record, donor: Record, rng: np.random.Generator) -> Record:
    """Returns the image with some objects of another one, turned and mirrored at random.

    Copies are whole. They touch no object that is annotated and no pixel of which nothing is known,
    neither where they come from nor where they go.

    Args:
        record: image that gets the copies.
        donor: image that objects are taken from, of the same size and scale.
        rng: random generator.
    """
    height, width = record.pixels.shape[1:]
    pixels = record.pixels.astype(np.float32)
    taken = _occupied(record, record.regions)
    several = [region for region in donor.regions if _is_copied(region)]
    added: list[Region] = []
    for number in rng.permutation(len(several))[: int(rng.integers(1, MOST + 1))]:
        region = several[int(number)]
        cut = _cut_out(donor, region)
        if cut is None:
            continue
        values, inside = _turned(*cut, rng)
        alpha = ndimage.gaussian_filter(_grown(inside, RIM_PX).astype(np.float32), 0.5)
        alpha[alpha < LEAST_ALPHA] = 0
        place = _like_place(pixels, taken, values, inside, alpha > 0, rng)
        if place is None:
            continue
        rows, cols = (slice(at, at + side) for at, side in zip(place, inside.shape, strict=True))
        pixels[:, rows, cols] += alpha * (values - pixels[:, rows, cols])
        taken[rows, cols] |= inside
        mask = Mask.from_array(inside, y0=place[0], x0=place[1])
        added.append(replace(region, mask=mask, caption="", phrase=""))
    return replace(
        record,
        pixels=np.clip(pixels + 0.5, 0, 255).astype(np.uint8),
        regions=(*_uncovered(record.regions, (height, width), added), *added),
    )


def _is_copied(region: Region) -> bool:
    return region.label in COPIED and region.outlined and region.mask.area >= LEAST_PX


def _occupied(record: Record, regions: Sequence[Region]) -> NDArray[np.bool_]:
    """Returns the pixels (H, W) of objects, and those of which nothing is known."""
    height, width = record.pixels.shape[1:]
    taken = np.zeros((height, width), bool) if record.ignored is None else record.ignored.copy()
    for region in regions:
        if not region.stuff:
            taken |= region.mask.window(0, 0, height, width)
    return taken


def _cut_out(donor: Record, region: Region) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """Returns an object with its margin: values (3, h, w) and mask (h, w).

    None if the margin leaves the image, or something else lies in it: the object may be cut.
    """
    height, width = donor.pixels.shape[1:]
    mask = region.mask
    y0, x0 = mask.y0 - MARGIN_PX, mask.x0 - MARGIN_PX
    y1, x1 = mask.y0 + mask.height + MARGIN_PX, mask.x0 + mask.width + MARGIN_PX
    if y0 < 0 or x0 < 0 or y1 > height or x1 > width:
        return None
    inside = np.pad(mask.to_array(), MARGIN_PX)
    others = [other for other in donor.regions if other is not region]
    if (_occupied(donor, others)[y0:y1, x0:x1] & _grown(inside, MARGIN_PX)).any():
        return None
    return donor.pixels[:, y0:y1, x0:x1], inside


def _turned(
    values: NDArray[np.uint8], inside: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turns and mirrors values (3, h, w) and mask (h, w) alike."""
    quarters, flipped = int(rng.integers(4)), bool(rng.integers(2))
    turned = np.rot90(values, quarters, axes=(1, 2)).astype(np.float32)
    inside = np.rot90(inside, quarters)
    return (turned[..., ::-1], inside[..., ::-1]) if flipped else (turned, inside)


def _like_place(
    pixels: NDArray[np.float32],
    taken: NDArray[np.bool_],
    values: NDArray[np.float32],
    inside: NDArray[np.bool_],
    drawn: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Draws places where what is drawn touches nothing, and returns the one whose ground is most
    like the object's own; None if none is free and like it.
    """
    room = np.subtract(taken.shape, inside.shape)
    if (room < 0).any():
        return None
    around = _grown(inside, MARGIN_PX) & ~_grown(inside, RIM_PX)
    own = values[:, around].mean(axis=1)
    best, least = None, LARGEST_DIFFERENCE
    for _ in range(TRIES):
        y0, x0 = (int(rng.integers(most + 1)) for most in room)
        at = (slice(y0, y0 + inside.shape[0]), slice(x0, x0 + inside.shape[1]))
        if (taken[at] & drawn).any():
            continue
        other = float(np.abs(pixels[:, *at][:, drawn].mean(axis=1) - own).mean())
        if other < least:
            best, least = (y0, x0), other
    return best


def _grown(inside: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Grows a mask by so many pixels, diagonally too."""
    grown: NDArray[np.bool_] = ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=times)
    return grown


def _uncovered(
    regions: Sequence[Region], shape: tuple[int, int], added: Sequence[Region]
) -> list[Region]:
    """Returns the regions without the pixels that copies cover; copies cover ground only."""
    covered = np.zeros(shape, bool)
    for region in added:
        covered |= region.mask.window(0, 0, *shape)
    left = []
    for region in regions:
        there = region.mask.window(0, 0, *shape)
        if region.stuff and (there & covered).any():
            there &= ~covered
            if there.sum() < LEAST_PX:
                continue
            region = replace(region, mask=Mask.from_array(there))
        left.append(region)
    return left
