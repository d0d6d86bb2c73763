"""One reader a form. Boxes stay boxes, rotated ones become outlines; words of a source stay its words. Torch-free."""

# H W pixels of an image

from __future__ import annotations

import json
import pickle
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, parse

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from model.errors import DataError
from model.region import Box, Mask
from model.training.datasets import Format, SetConfig
from model.training.record import Record, Region, box_mask

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
LEAST_PX = 4
"""Pixels of the smallest piece of a mask that is an object."""
DECIBELS = ((-25.0, 5.0), (-32.0, -2.0))
"""Of VV and of VH, what becomes 0 and 255; as the pipeline scales Sentinel-1."""
GEOCHAT_SIDE = 100.0
"""Sides of an image in the instruction form: places are whole numbers of a hundredth of them."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One annotation."""

    kind: str
    mask: Mask
    outlined: bool
    caption: str = ""
    phrase: str = ""


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """An image, (3, H, W) uint8; grey ones three times."""
    with Image.open(path) as image:
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def drawn(rings: Sequence[NDArray[np.floating[Any]]], height: int, width: int) -> NDArray[np.bool_]:
    """Polygons (N, 2) x y in pixels, on an image, (H, W) bool."""
    canvas = Image.new("1", (width, height))
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in ring], fill=1)
    return np.array(canvas, bool)


def components(inside: NDArray[np.bool_]) -> list[Mask]:
    """Connected pieces of a mask, corners included."""
    labels, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    pieces = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[window] == number
        if own.sum() >= LEAST_PX:
            pieces.append(Mask.from_array(own, y0=window[0].start, x0=window[1].start))
    return pieces


def _coco(config: SetConfig) -> Iterator[Record]:
    """COCO detection: boxes x y w h; outlines where they are polygons or runs."""
    document = json.loads((config.folder / f"{config.split}.json").read_text())
    classes = {each["id"]: each["name"] for each in document["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image in document["images"]:
        path = config.folder / config.images / image["file_name"]
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found = []
        for annotation in by_image[image["id"]]:
            x, y, w, h = annotation["bbox"]
            outline = _segmented(annotation.get("segmentation"), height, width)
            mask = outline or box_mask(Box(x, y, x + max(w, 1), y + max(h, 1)), height, width)
            if mask is not None:
                found.append(_Found(classes[annotation["category_id"]], mask, outline is not None))
        yield _record(config, path, pixels, found)


def _segmented(segmentation: object, height: int, width: int) -> Mask | None:
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
        [segmentation] = segmentation  # RRSIS-D
    if isinstance(segmentation, list) and segmentation:
        inside = drawn([np.reshape(ring, (-1, 2)) for ring in segmentation if len(ring) >= 6], height, width)
    elif isinstance(segmentation, dict):
        from pycocotools import mask as coco

        if isinstance(segmentation["counts"], list):
            segmentation = coco.frPyObjects(segmentation, height, width)
        inside = coco.decode(segmentation).astype(bool)
    else:
        return None
    mask = Mask.from_array(inside) if inside.any() else None
    # Some sets give boxes as polygons.
    return None if mask is None or mask.area == mask.height * mask.width else mask


def _yolo(config: SetConfig) -> Iterator[Record]:
    """YOLO: a text file an image, lines of class cx cy w h, relative; or class and a polygon."""
    for path in _listed(config):
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found = []
        for kind, numbers in _lines(config.folder / config.labels / f"{path.stem}.txt"):
            values = [float(each) for each in numbers]
            if len(values) > 5:
                inside = drawn([np.reshape(values, (-1, 2)) * (width, height)], height, width)
                found += [_Found(kind, Mask.from_array(inside), outlined=True)] if inside.any() else []
                continue
            cx, cy, w, h = values[:4]
            box = Box((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            mask = box_mask(box, height, width)
            found += [_Found(kind, mask, outlined=False)] if mask is not None else []
        yield _record(config, path, pixels, found)


def _voc(config: SetConfig, *, described: bool = False) -> Iterator[Record]:
    """Pascal VOC: an XML file an image; corners count from 1 and belong to the box.

    DIOR-RSVG is the same, its objects described: a `description` fits that object alone.
    """
    for path in _listed(config):
        pixels = read_pixels(path)
        tree = parse(config.folder / config.labels / f"{path.stem}.xml")  # noqa: S314  expat expands no external entity
        found = [
            _voc_object(each, pixels, each.findtext("description", "") if described else "")
            for each in tree.getroot().iter("object")
        ]
        yield _record(config, path, pixels, [each for each in found if each is not None])


def _voc_object(element: Element, pixels: NDArray[np.uint8], phrase: str) -> _Found | None:
    corners = element.find("bndbox")
    if corners is None:
        raise ValueError("an object has no bndbox")
    x0, y0, x1, y1 = (float(corners.findtext(name) or "nan") for name in ("xmin", "ymin", "xmax", "ymax"))
    mask = box_mask(Box(x0 - 1, y0 - 1, x1, y1), *pixels.shape[1:])
    return None if mask is None else _Found(element.findtext("name") or "", mask, outlined=False, phrase=phrase)


def _dota(config: SetConfig) -> Iterator[Record]:
    """DOTA: lines of x1 y1 ... x4 y4 class difficult; rotated boxes are taken as outlines."""
    for path in _listed(config):
        pixels = read_pixels(path)
        found = []
        for first, rest in _lines(config.folder / config.labels / f"{path.stem}.txt"):
            if len(rest) < 8:  # imagesource, gsd
                continue
            inside = drawn([np.reshape([float(each) for each in (first, *rest[:7])], (4, 2))], *pixels.shape[1:])
            found += [_Found(rest[7], Mask.from_array(inside), outlined=True)] if inside.any() else []
        yield _record(config, path, pixels, found)


def _masks(config: SetConfig) -> Iterator[Record]:
    """A mask an image, of the same name: what is not black is the one class."""
    [kind] = config.names
    for path in _listed(config):
        pixels = read_pixels(path)
        inside = read_pixels(_image(config.folder / config.labels, path.stem)).max(axis=0) > 127
        pieces = ([Mask.from_array(inside)] if inside.any() else []) if config.whole else components(inside)
        yield _record(config, path, pixels, [_Found(kind, mask, outlined=True) for mask in pieces])


def _sen1floods11(config: SetConfig) -> Iterator[Record]:
    """Sen1Floods11: `CHIP_S1Hand.tif`, VV and VH in decibels, and `CHIP_LabelHand.tif`, 1 water, 0 none, -1 not valid."""
    [kind] = config.names
    listed = sorted((config.folder / config.images).glob("*_S1Hand.tif"))
    if config.split:
        names = (config.folder / f"{config.split}.txt").read_text().split()
        listed = [config.folder / config.images / f"{name}_S1Hand.tif" for name in names]
    for path in listed:
        vv, vh = (
            np.clip(np.nan_to_num((band - low) * (255 / (high - low)), nan=0.0), 0, 255).astype(np.uint8)
            for band, (low, high) in zip(tifffile.imread(path), DECIBELS, strict=True)
        )
        drawn = tifffile.imread(config.folder / config.labels / path.name.replace("_S1Hand", "_LabelHand"))
        found = [_Found(kind, Mask.from_array(drawn == 1), outlined=True)] if (drawn == 1).any() else []
        yield replace(_record(config, path, np.stack([vv, vh, vv]), found), ignored=drawn < 0)


def _scenes(config: SetConfig) -> Iterator[Record]:
    """A folder a class, or a list of paths that begin with it: the whole image is of it."""
    for path in _listed(config):
        pixels = read_pixels(path)
        mask = Mask.from_array(np.ones(pixels.shape[1:], bool))
        yield _record(config, path, pixels, [_Found(path.parent.name, mask, outlined=True)], whole=True)


class _Plain(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers, and nothing that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"a pickle that would load {module}.{name} is not read")


def _rrsis_d(config: SetConfig) -> Iterator[Record]:
    """RRSIS-D: COCO annotations in `instances.json`, and the sentences for them in `refs(unc).p`."""
    document = json.loads((config.folder / "instances.json").read_text())
    annotations = {each["id"]: each for each in document["annotations"]}
    images = {each["id"]: each for each in document["images"]}
    classes = {each["id"]: each["name"] for each in document["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    with (config.folder / "refs(unc).p").open("rb") as file:
        references: list[dict[str, Any]] = _Plain(file).load()
    for reference in references:
        if not config.split or reference["split"] == config.split:
            by_image[reference["image_id"]].append(reference)
    for number, mine in sorted(by_image.items()):
        path = config.folder / config.images / images[number]["file_name"]
        pixels = read_pixels(path)
        found = []
        for reference in mine:
            annotation = annotations[reference["ann_id"]]
            mask = _segmented(annotation["segmentation"], *pixels.shape[1:])
            if mask is not None:
                text = reference["sentences"][0]["sent"]
                found.append(_Found(classes[annotation["category_id"]], mask, outlined=True, phrase=text))
        yield _record(config, path, pixels, found)


def _vrsbench(config: SetConfig) -> Iterator[Record]:
    """VRSBench: a JSON file an image, with a caption and objects (class, `obj_coord` in 0..1, referring sentence)."""
    for path in sorted((config.folder / config.labels).glob("*.json")):
        document = json.loads(path.read_text())
        image = config.folder / config.images / document["image"]
        pixels = read_pixels(image)
        height, width = pixels.shape[1:]
        found = []
        for each in document["objects"]:
            x0, y0, x1, y1 = each["obj_coord"]
            mask = box_mask(Box(x0 * width, y0 * height, x1 * width, y1 * height), height, width)
            if mask is not None:
                text = each.get("referring_sentence") or ""
                found.append(_Found(each["obj_cls"], mask, outlined=False, phrase=text))
        asked = tuple((each["question"], str(each["answer"])) for each in document.get("qa_pairs", ()))
        yield _record(config, image, pixels, found, scene=document.get("caption", ""), asked=asked)


def _captions(config: SetConfig) -> Iterator[Record]:
    """RSICD and UCM captions: one JSON, `images` with `filename`, `split` and `sentences`."""
    document = json.loads((config.folder / "dataset.json").read_text())
    for image in document["images"]:
        if config.split and image["split"] != config.split:
            continue
        path = config.folder / config.images / image["filename"]
        yield _record(config, path, read_pixels(path), [], scene=image["sentences"][0]["raw"].strip(" ."))


def _instructions(config: SetConfig) -> Iterator[Record]:
    """GeoChat's and EarthMarker's instruction JSON: conversations about an image; `{<x0><y0><x1><y1>|<angle>}` is a place
    in hundredths, and what is said of it is its words. Other talk becomes questions.
    """
    place = re.compile(r"\{<(\d+)><(\d+)><(\d+)><(\d+)>(?:\|<(-?\d+)>)?\}")
    for each in json.loads((config.folder / f"{config.split or 'instructions'}.json").read_text()):
        path = config.folder / config.images / each["image"]
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found: list[_Found] = []
        asked: list[tuple[str, str]] = []
        turns = [turn["value"].replace("<image>", "").strip() for turn in each["conversations"]]
        for question, answer in zip(turns[::2], turns[1::2], strict=False):
            places = place.findall(question) or place.findall(answer)
            words = answer if place.search(question) else re.sub(r"^.*?\]\s*", "", question)
            if not places:
                asked.append((question, answer))
            for x0, y0, x1, y1, angle in places:
                corners = np.array([x0, y0, x1, y1], float) / GEOCHAT_SIDE * (width, height, width, height)
                inside = drawn([_turned(corners, float(angle or 0))], height, width)
                if inside.any():
                    plain = re.sub(r"</?p>", "", place.sub("", words)).strip(" .?:")
                    found.append(
                        _Found(plain, Mask.from_array(inside), outlined=bool(angle), caption=plain, phrase=plain)
                    )
        yield _record(config, path, pixels, found, asked=tuple(asked))


def _turned(box: NDArray[np.floating[Any]], degrees: float) -> NDArray[np.floating[Any]]:
    """Corners of a box xyxy turned about its middle, (4, 2)."""
    x0, y0, x1, y1 = box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - middle
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(corners @ rotation.T + middle)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    for line in path.read_text().splitlines():
        if line.strip():
            first, *rest = line.split()
            yield first, rest


def _listed(config: SetConfig) -> list[Path]:
    folder = config.folder / config.images
    if not config.split:
        return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [_image(folder, name) for name in (config.folder / f"{config.split}.txt").read_text().split()]


def _image(folder: Path, name: str) -> Path:
    """An image by its name, with or without its suffix."""
    path = folder / name
    if path.is_file():
        return path
    for suffix in SUFFIXES:
        if (found := path.with_name(f"{path.stem}{suffix}")).is_file():
            return found
    raise FileNotFoundError(2, "no such image", str(path))


def _record(
    config: SetConfig, path: Path, pixels: NDArray[np.uint8], found: Sequence[_Found], *, whole: bool | None = None,
    scene: str = "", asked: tuple[tuple[str, str], ...] = (),
) -> Record:  # fmt: skip
    regions, ignored = [], None
    for each in found:
        if config.names and each.kind not in config.names:
            raise DataError(f"{config.name}: class '{each.kind}' is not among names; say what it is called, or null")
        word = config.names[each.kind] if config.names else each.kind
        if word is None:
            ignored = np.zeros(pixels.shape[1:], bool) if ignored is None else ignored
            ignored |= each.mask.window(0, 0, *pixels.shape[1:])
            continue
        labels = (word, config.parents[word]) if word in config.parents else (word,)
        regions.append(
            Region(
                labels=labels, mask=each.mask, outlined=each.outlined, whole=config.whole if whole is None else whole,
                caption=each.caption, phrase=each.phrase,
            )
        )  # fmt: skip
    return Record(
        pixels=pixels, modality=config.modality, metres_per_pixel=config.metres_per_pixel, regions=tuple(regions),
        complete=frozenset({*config.words, *config.absent}), source=config.name, licence=config.licence,
        image=path.relative_to(config.folder).as_posix(), ignored=ignored, scene=scene, asked=asked,
        north_up=bool(scene or asked or any(region.phrase for region in regions)),
    )  # fmt: skip


READERS: dict[Format, Callable[[SetConfig], Iterator[Record]]] = {
    "coco": _coco, "yolo": _yolo, "voc": _voc, "dota": _dota, "masks": _masks, "sen1floods11": _sen1floods11, "scenes": _scenes, "dior-rsvg": partial(_voc, described=True),
    "rrsis-d": _rrsis_d, "vrsbench": _vrsbench, "captions": _captions, "instructions": _instructions,
}  # fmt: skip
