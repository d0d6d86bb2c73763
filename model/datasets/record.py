"""Records: annotated images in one form for all sources. Torch-free.

Readers and the renderer produce records. Lessons are made from them.
"""

# H W pixels of an image

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgptx.model.interface.region import Box, Mask
from earthgptx.model.interface.tile import Modality

SCENE_QUESTION = "what kind of scene is this?"
"""Question for the class of a whole image."""
KEPT = 0.25
"""Smallest fraction of an object that a crop must hold; pixels of objects with less are ignored."""
LEAST_PX = 4
"""Area in pixels of the smallest object that is taught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One object, or all stuff of one kind."""

    labels: tuple[str, ...]
    """Words for its class, the most specific first."""
    mask: Mask
    """Pixels inside its outline, or inside its box where the source has only boxes."""
    outlined: bool = True
    """Whether the mask follows the outline; if False, it is the box."""
    stuff: bool = False
    """Whether it is ground of one kind and not a single object: water, roads."""
    caption: str = ""
    """Description of the object; empty where the source has none."""
    phrase: str = ""
    """Phrase of the source that fits only this object; empty where the source has none."""

    @property
    def label(self) -> str:
        """The most specific word."""
        return self.labels[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A question about the whole image with possible answers, one of which is right."""

    wordings: tuple[str, ...]
    """The question, worded in several ways."""
    options: tuple[str, ...]
    right: str
    """One of the options."""
    task: str = ""
    """Kind of the question, as the source names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image with its annotations."""

    pixels: NDArray[np.uint8]
    """(3, H, W) uint8."""
    modality: Modality
    metres_per_pixel: float | None
    """None where unknown."""
    regions: tuple[Region, ...]
    complete: frozenset[str] = frozenset()
    """Words whose objects are all annotated; a word without a region is absent from the image."""
    source: str = ""
    """Name of the dataset."""
    image: str = ""
    """Image within the dataset: its file, or the seed that it was generated from."""
    licence: str = ""
    """Licence of the dataset."""
    scene: str = ""
    """Description of the whole image; empty where the source has none."""
    questions: tuple[tuple[str, str], ...] = ()
    """Questions of the source about the whole image, each with its answer."""
    choices: tuple[Choice, ...] = ()
    """Questions of the source with possible answers."""
    north_up: bool = False
    """Whether rotating or flipping is forbidden, because its texts may mention directions."""
    ignored: NDArray[np.bool_] | None = field(default=None, repr=False)
    """(H, W) bool. True where nothing is known; None if no pixel is ignored."""

    def mask_of(self, word: str) -> NDArray[np.bool_] | None:
        """Returns the pixels of all objects of a word, (H, W); None if one has only a box."""
        there = [region for region in self.regions if word in region.labels]
        if not all(region.outlined for region in there):
            return None
        height, width = self.pixels.shape[1:]
        inside = np.zeros((height, width), bool)
        for region in there:
            inside |= region.mask.window(0, 0, height, width)
        return inside

    def cropped(self, y0: float, x0: float, side: float, px: int) -> Record:
        """Returns a square crop, resampled to px x px pixels.

        Pixels outside the image are black and ignored.

        Args:
            y0: row of the square's upper left corner.
            x0: column of the square's upper left corner.
            side: side of the square in pixels of the image.
            px: side of the result in pixels.
        """
        height, width = self.pixels.shape[1:]
        picture = Image.fromarray(np.moveaxis(self.pixels, 0, -1))
        factor = px / side
        corner = (x0, y0, x0 + side, y0 + side)
        pad = int(np.ceil(max(-x0, -y0, x0 + side - width, y0 + side - height)))
        if pad > 0:
            larger = Image.new("RGB", (width + 2 * pad, height + 2 * pad))
            larger.paste(picture, (pad, pad))
            picture = larger
            corner = (x0 + pad, y0 + pad, x0 + side + pad, y0 + side + pad)
        resized = picture.resize((px, px), Image.Resampling.BILINEAR, box=corner)
        rows, cols = (
            np.floor((np.arange(px) + 0.5) / factor + start).astype(int) for start in (y0, x0)
        )
        unknown = np.logical_or.outer((rows < 0) | (rows >= height), (cols < 0) | (cols >= width))
        if self.ignored is not None:
            unknown |= self.ignored[np.ix_(rows.clip(0, height - 1), cols.clip(0, width - 1))]
        regions = []
        for region in self.regions:
            inside = _sampled(region.mask, rows, cols)
            if inside is None:
                continue
            left = inside.sum() / factor**2 / region.mask.area
            if inside.sum() >= LEAST_PX and (left >= KEPT or region.stuff):
                regions.append(replace(region, mask=Mask.from_array(inside)))
            else:
                unknown |= inside
        metres = None if self.metres_per_pixel is None else self.metres_per_pixel / factor
        return replace(
            self,
            pixels=np.ascontiguousarray(np.moveaxis(np.asarray(resized), -1, 0)),
            regions=tuple(regions),
            metres_per_pixel=metres,
            ignored=unknown if unknown.any() else None,
        )

    def turned(self, quarters: int, *, flipped: bool) -> Record:
        """Rotates counterclockwise by quarter turns, then optionally mirrors left to right."""

        def turn(array: NDArray[np.generic]) -> NDArray[np.generic]:
            array = np.rot90(array, quarters, axes=(-2, -1))
            return np.ascontiguousarray(array[..., ::-1] if flipped else array)

        height, width = self.pixels.shape[1:]
        regions = tuple(
            replace(
                region,
                mask=Mask.from_array(turn(region.mask.window(0, 0, height, width)).astype(bool)),
            )
            for region in self.regions
        )
        ignored = None if self.ignored is None else turn(self.ignored).astype(bool)
        return replace(
            self, pixels=turn(self.pixels).astype(np.uint8), regions=regions, ignored=ignored
        )


def box_mask(box: Box, height: int, width: int) -> Mask | None:
    """Returns the pixels inside a box, at least one per side; None if outside the image."""
    inside = np.zeros((height, width), bool)
    inside[
        max(round(box.y0), 0) : max(round(box.y1), round(box.y0) + 1),
        max(round(box.x0), 0) : max(round(box.x1), round(box.x0) + 1),
    ] = True
    return Mask.from_array(inside) if inside.any() else None


def _sampled(
    mask: Mask, rows: NDArray[np.int_], cols: NDArray[np.int_]
) -> NDArray[np.bool_] | None:
    """Samples a mask at rows and columns of its image; None if no sample is inside."""
    if (
        rows[-1] < mask.y0
        or cols[-1] < mask.x0
        or rows[0] >= mask.y0 + mask.height
        or cols[0] >= mask.x0 + mask.width
    ):
        return None
    own = np.pad(mask.to_array(), 1)
    at_rows = (rows - mask.y0 + 1).clip(0, mask.height + 1)
    at_cols = (cols - mask.x0 + 1).clip(0, mask.width + 1)
    inside: NDArray[np.bool_] = own[np.ix_(at_rows, at_cols)]
    return inside if inside.any() else None
