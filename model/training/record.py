"""One annotated image, from whatever source: what readers and the renderer give, and lessons are made of. Torch-free."""

# H W pixels of an image

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.region import Box, Mask
from model.tile import Modality

KEPT = 0.25
"""Part of an object that must be left in a crop; of what has less, the ground is not taught."""
LEAST_PX = 4
"""Pixels of the smallest object that is taught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One object, or all the ground of one kind."""

    labels: tuple[str, ...]
    """What it is, the most telling word first."""
    mask: Mask
    """Its outline; its box where the source has only boxes."""
    outlined: bool = True
    """Whether the mask is its outline and not its box."""
    whole: bool = False
    """Whether it is all the ground of its kind and no single object: water, roads."""
    caption: str = ""
    """In words; empty where the source has none."""
    phrase: str = ""
    """Words of the source that fit this object alone; empty where it has none."""

    @property
    def label(self) -> str:
        """The most telling word."""
        return self.labels[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image with what is known of it."""

    pixels: NDArray[np.uint8]
    """(3, H, W) uint8."""
    modality: Modality
    metres_per_pixel: float | None
    """None where it is not known."""
    regions: tuple[Region, ...]
    complete: frozenset[str] = frozenset()
    """Words of which every object is annotated: where none is, there is none."""
    source: str = ""
    """Which set it is from."""
    image: str = ""
    """Which image of the set: its file, or the seed that it was made from."""
    licence: str = ""
    """What the set may be used under."""
    scene: str = ""
    """The whole image in words; empty where the source has none."""
    asked: tuple[tuple[str, str], ...] = ()
    """Questions of the source about the whole image, and their answers."""
    north_up: bool = False
    """Whether the image may not be turned, since its words speak of directions."""
    ignored: NDArray[np.bool_] | None = field(default=None, repr=False)
    """(H, W). True where nothing is known."""

    def ground(self, word: str) -> NDArray[np.bool_] | None:
        """Where the objects of a word lie, (H, W); None where one of them is known by its box alone."""
        there = [region for region in self.regions if word in region.labels]
        if not all(region.outlined for region in there):
            return None
        height, width = self.pixels.shape[1:]
        inside = np.zeros((height, width), bool)
        for region in there:
            inside |= region.mask.window(0, 0, height, width)
        return inside

    def cropped(self, y0: float, x0: float, side: float, px: int) -> Record:
        """A square of the image, on px x px pixels; what lies past the image is black and not known.

        Args:
            y0: row of the square's corner.
            x0: column of the square's corner.
            side: of the square, in pixels of the image.
            px: side of the result.
        """
        height, width = self.pixels.shape[1:]
        picture = Image.fromarray(np.moveaxis(self.pixels, 0, -1))
        factor = px / side
        corner = (x0, y0, x0 + side, y0 + side)
        pad = int(np.ceil(max(-x0, -y0, x0 + side - width, y0 + side - height)))
        if pad > 0:
            larger = Image.new("RGB", (width + 2 * pad, height + 2 * pad))
            larger.paste(picture, (pad, pad))
            picture, corner = larger, tuple(edge + pad for edge in corner)  # type: ignore[assignment]
        resized = picture.resize((px, px), Image.Resampling.BILINEAR, box=corner)
        rows, cols = (np.floor((np.arange(px) + 0.5) / factor + start).astype(int) for start in (y0, x0))
        unknown = np.logical_or.outer((rows < 0) | (rows >= height), (cols < 0) | (cols >= width))
        if self.ignored is not None:
            unknown |= self.ignored[np.ix_(rows.clip(0, height - 1), cols.clip(0, width - 1))]
        regions = []
        for region in self.regions:
            inside = _sampled(region.mask, rows, cols)
            if inside is None:
                continue
            left = inside.sum() / factor**2 / region.mask.area
            if inside.sum() >= LEAST_PX and (left >= KEPT or region.whole):
                regions.append(replace(region, mask=Mask.from_array(inside)))
            else:
                unknown |= inside
        metres = None if self.metres_per_pixel is None else self.metres_per_pixel / factor
        return replace(
            self, pixels=np.ascontiguousarray(np.moveaxis(np.asarray(resized), -1, 0)), regions=tuple(regions),
            metres_per_pixel=metres, ignored=unknown if unknown.any() else None,
        )  # fmt: skip

    def turned(self, quarters: int, *, flipped: bool) -> Record:
        """Turned left by quarters, and then seen in a mirror."""

        def turn(array: NDArray[np.generic]) -> NDArray[np.generic]:
            array = np.rot90(array, quarters, axes=(-2, -1))
            return np.ascontiguousarray(array[..., ::-1] if flipped else array)

        height, width = self.pixels.shape[1:]
        regions = tuple(
            replace(region, mask=Mask.from_array(turn(region.mask.window(0, 0, height, width)).astype(bool)))
            for region in self.regions
        )
        ignored = None if self.ignored is None else turn(self.ignored).astype(bool)
        return replace(self, pixels=turn(self.pixels).astype(np.uint8), regions=regions, ignored=ignored)


def box_mask(box: Box, height: int, width: int) -> Mask | None:
    """The pixels of a box of an image; None where it holds none."""
    inside = np.zeros((height, width), bool)
    inside[
        max(round(box.y0), 0) : max(round(box.y1), round(box.y0) + 1),
        max(round(box.x0), 0) : max(round(box.x1), round(box.x0) + 1),
    ] = True
    return Mask.from_array(inside) if inside.any() else None


def _sampled(mask: Mask, rows: NDArray[np.int_], cols: NDArray[np.int_]) -> NDArray[np.bool_] | None:
    """A mask at rows and columns of its image; None where it is not there."""
    if rows[-1] < mask.y0 or cols[-1] < mask.x0 or rows[0] >= mask.y0 + mask.height or cols[0] >= mask.x0 + mask.width:
        return None
    own = np.pad(mask.to_array(), 1)
    at_rows = (rows - mask.y0 + 1).clip(0, mask.height + 1)
    at_cols = (cols - mask.x0 + 1).clip(0, mask.width + 1)
    inside: NDArray[np.bool_] = own[np.ix_(at_rows, at_cols)]
    return inside if inside.any() else None
