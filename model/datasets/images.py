"""Helpers shared by all readers: find and read images, rasterise polygons, build records."""

# H W pixels of an image

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.record import SCENE_QUESTION, Record, Region
from earthgptx.model.interface.errors import DataError
from earthgptx.model.interface.region import Mask

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

LEAST_PX = 4
"""Area in pixels of the smallest piece of a mask that counts as an object."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object, with its class as the dataset names it; becomes a `Region`."""

    kind: str
    """Name or number of the class in the dataset."""
    mask: Mask
    outlined: bool
    """Whether the mask follows the outline; if False, it is the box."""
    caption: str = ""
    phrase: str = ""
    """Text that fits only this object."""


def read_pixels(path: Path | IO[bytes]) -> NDArray[np.uint8]:
    """Reads an image as RGB, (3, H, W) uint8; grey images are repeated in all channels."""
    with Image.open(path) as image:
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def drawn(rings: Sequence[NDArray[np.floating[Any]]], height: int, width: int) -> NDArray[np.bool_]:
    """Rasterises filled polygons, each (N, 2) x y in pixels, to (H, W) bool."""
    canvas = Image.new("1", (width, height))
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in ring], fill=1)
    return np.array(canvas, bool)


def components(inside: NDArray[np.bool_]) -> list[Mask]:
    """Returns the connected pieces of a mask, 8-connected, without those below `LEAST_PX`."""
    labels, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    pieces = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[window] == number
        if own.sum() >= LEAST_PX:
            pieces.append(Mask.from_array(own, y0=window[0].start, x0=window[1].start))
    return pieces


def label_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the first word and the other words of each line that is not blank."""
    for line in path.read_text().splitlines():
        if line.strip():
            first, *rest = line.split()
            yield first, rest


def listed_images(config: SetConfig) -> list[Path]:
    """Returns the images that the split lists, or all images below the folder without a split.

    Raises:
        FileNotFoundError: the list or an image that it names is missing.
    """
    folder = config.folder / config.images
    if not config.split:
        return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = (config.folder / f"{config.listed}.txt").read_text().split()
    return [find_image(folder, name) for name in config.picked(names)]


def find_image(folder: Path, name: str) -> Path:
    """Finds an image by its name, which may lack the suffix or have another one.

    Raises:
        FileNotFoundError: there is no such image.
    """
    path = folder / name
    if path.is_file():
        return path
    for suffix in SUFFIXES:
        if (found := path.with_name(f"{path.stem}{suffix}")).is_file():
            return found
    raise FileNotFoundError(2, "no such image", str(path))


def make_record(
    config: SetConfig,
    path: Path,
    pixels: NDArray[np.uint8],
    found: Sequence[Annotation],
    *,
    stuff: bool | None = None,
    scene: str = "",
    questions: tuple[tuple[str, str], ...] = (),
) -> Record:
    """Builds a record from annotations, with our words for the dataset's classes.

    Args:
        config: dataset.
        path: file of the image, below the dataset's folder.
        pixels: (3, H, W) uint8.
        found: annotations of the image; classes whose word is None become ignored pixels.
        stuff: whether the regions are stuff; None to use the dataset's setting.
        scene: description of the whole image.
        questions: questions about the whole image, each with its answer.

    Raises:
        DataError: a class is not among the dataset's names.
    """
    regions, ignored = [], None
    for each in found:
        if config.names and each.kind not in config.names:
            raise DataError(
                f"{config.name}: class '{each.kind}' is not among names; "
                "say what it is called, or null"
            )
        word = config.names[each.kind] if config.names else each.kind
        if word is None:
            ignored = np.zeros(pixels.shape[1:], bool) if ignored is None else ignored
            ignored |= each.mask.window(0, 0, *pixels.shape[1:])
            continue
        labels = (word, config.parents[word]) if word in config.parents else (word,)
        regions.append(
            Region(
                labels=labels,
                mask=each.mask,
                outlined=each.outlined,
                stuff=config.stuff if stuff is None else stuff,
                caption=each.caption,
                phrase=each.phrase,
            )
        )
    return Record(
        pixels=pixels,
        modality=config.modality,
        metres_per_pixel=config.metres_per_pixel,
        regions=tuple(regions),
        complete=frozenset({*config.words, *config.absent}),
        source=config.name,
        licence=config.licence,
        image=path.relative_to(config.folder).as_posix(),
        ignored=ignored,
        scene=scene,
        questions=questions,
        # The class of a scene holds however it is turned.
        north_up=bool(
            scene
            or any(question != SCENE_QUESTION for question, _ in questions)
            or any(region.phrase for region in regions)
        ),
    )
