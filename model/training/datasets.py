"""Annotated sets in the forms that they come in, each read into records by one small reader. Torch-free."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from model.errors import DataError
from model.region import Box, Mask
from model.tile import Modality
from model.training.record import Record, Region, box_mask

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")

Format = Literal["coco", "yolo", "masks"]


class SetConfig(BaseModel):
    """One annotated set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Format
    folder: Path
    annotations: str = ""
    """COCO: the JSON file. Others: the list of names, without or with their suffix; empty for all images."""
    images: str = "images"
    """Folder of the images."""
    labels: str = "labels"
    """Folder of the labels, or of the masks."""
    modality: Modality
    metres_per_pixel: float | None = None
    names: dict[str, str | None]
    """The set's own name or number of a class: our word, or null where its ground is not taught."""
    absent: tuple[str, ...] = ()
    """Words of which no image of the set has any."""
    parents: dict[str, str] = {}
    """Wider words: car, vehicle."""
    whole: bool = False
    """Whether a mask is ground of one kind and no single objects."""


def read_set(config: SetConfig) -> list[Record]:
    """All images of a set.

    Raises:
        DataError: a file is missing or is not of its form.
    """
    try:
        return _READERS[config.format](config)
    except FileNotFoundError as error:
        raise DataError(f"{config.name}: {error.filename} is missing; check its folder and lists") from error
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(
            f"{config.name}: {config.folder} is not in the form '{config.format}' ({type(error).__name__}: {error})"
        ) from error


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """An image, (3, H, W) uint8; grey ones three times."""
    with Image.open(path) as image:
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def _coco(config: SetConfig) -> list[Record]:
    """COCO detection: boxes x y w h, masks where they are polygons or uncompressed runs."""
    document = json.loads((config.folder / config.annotations).read_text())
    classes = {each["id"]: each["name"] for each in document["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    records = []
    for image in document["images"]:
        pixels = read_pixels(config.folder / config.images / image["file_name"])
        height, width = pixels.shape[1:]
        found: list[tuple[str, Mask, bool]] = []
        for annotation in by_image[image["id"]]:
            x, y, w, h = annotation["bbox"]
            mask = _segmented(annotation.get("segmentation"), height, width)
            boxed = mask or box_mask(Box(x, y, x + max(w, 1), y + max(h, 1)), height, width)
            if boxed is not None:
                found.append((classes[annotation["category_id"]], boxed, mask is not None))
        records.append(_record(config, pixels, found))
    return records


def _segmented(segmentation: object, height: int, width: int) -> Mask | None:
    if isinstance(segmentation, list) and segmentation:
        inside = drawn([np.reshape(ring, (-1, 2)) for ring in segmentation if len(ring) >= 6], height, width)
    elif isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
        runs = np.array(segmentation["counts"])
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        inside = flat.reshape(width, height).T  # COCO counts down the columns
    else:
        return None
    mask = Mask.from_array(inside) if inside.any() else None
    # Some sets give boxes as polygons.
    return None if mask is None or mask.area == mask.height * mask.width else mask


def drawn(rings: Sequence[NDArray[np.floating[Any]]], height: int, width: int) -> NDArray[np.bool_]:
    """Polygons (N, 2) x y in pixels, on an image."""
    from PIL import ImageDraw

    canvas = Image.new("1", (width, height))
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in ring], fill=1)
    return np.asarray(canvas, bool)


def _yolo(config: SetConfig) -> list[Record]:
    """YOLO: a text file an image, lines of class cx cy w h, relative."""
    records = []
    for path in _listed(config):
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found: list[tuple[str, Mask, bool]] = []
        for line in (config.folder / config.labels / f"{path.stem}.txt").read_text().splitlines():
            if not line.strip():
                continue
            kind, *numbers = line.split()
            cx, cy, w, h = (float(each) for each in numbers[:4])
            box = Box((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            mask = box_mask(box, height, width)
            if mask is not None:
                found.append((kind, mask, False))
        records.append(_record(config, pixels, found))
    return records


def _masks(config: SetConfig) -> list[Record]:
    """A mask an image, of the same name: what is not black is the one class."""
    [kind] = config.names
    records = []
    for path in _listed(config):
        pixels = read_pixels(path)
        inside = read_pixels(_image(config.folder / config.labels, path.stem)).max(axis=0) > 127
        found = []
        if inside.any() and config.whole:
            found = [(kind, Mask.from_array(inside), True)]
        elif inside.any():
            found = [(kind, mask, True) for mask in components(inside)]
        records.append(_record(config, pixels, found))
    return records


def components(inside: NDArray[np.bool_], least_px: int = 4) -> list[Mask]:
    """Connected pieces of a mask, corners included."""
    from scipy import ndimage

    labels, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    pieces = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[window] == number
        if own.sum() >= least_px:
            pieces.append(Mask.from_array(own, y0=window[0].start, x0=window[1].start))
    return pieces


def _listed(config: SetConfig) -> list[Path]:
    folder = config.folder / config.images
    if not config.annotations:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    names = (config.folder / config.annotations).read_text().split()
    return [_image(folder, name) for name in names]


def _image(folder: Path, name: str) -> Path:
    """An image by its name, with or without its suffix."""
    path = folder / name
    if path.is_file():
        return path
    for suffix in SUFFIXES:
        if (found := folder / f"{Path(name).stem}{suffix}").is_file():
            return found
    raise FileNotFoundError(2, "no such image", str(path))


def _record(config: SetConfig, pixels: NDArray[np.uint8], found: Sequence[tuple[str, Mask, bool]]) -> Record:
    regions, ignored = [], None
    for kind, mask, outlined in found:
        if kind not in config.names:
            raise DataError(f"{config.name}: class '{kind}' is not among names; say what it is called, or null")
        word = config.names[kind]
        if word is None:
            ignored = np.zeros(pixels.shape[1:], bool) if ignored is None else ignored
            ignored |= mask.window(0, 0, *pixels.shape[1:])
            continue
        labels = (word, config.parents[word]) if word in config.parents else (word,)
        regions.append(Region(labels=labels, mask=mask, outlined=outlined, whole=config.whole))
    words = {word for word in config.names.values() if word is not None}
    return Record(
        pixels=pixels, modality=config.modality, metres_per_pixel=config.metres_per_pixel, regions=tuple(regions),
        complete=frozenset(words | set(config.absent)), source=config.name, ignored=ignored,
    )  # fmt: skip


_READERS: dict[Format, Callable[[SetConfig], list[Record]]] = {"coco": _coco, "yolo": _yolo, "masks": _masks}
