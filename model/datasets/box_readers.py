"""Readers of datasets that are annotated with boxes, polygons, masks or classes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element, parse

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.images import (
    Annotation,
    components,
    drawn,
    find_image,
    label_lines,
    listed_images,
    make_record,
    read_pixels,
)
from earthgptx.model.datasets.record import SCENE_QUESTION, Record, box_mask
from earthgptx.model.interface.region import Box, Mask

DECIBELS = ((-25.0, 5.0), (-32.0, -2.0))
"""Backscatter in dB that maps to 0 and 255, for VV and VH; the pipeline scales Sentinel-1 alike."""


def read_coco(config: SetConfig) -> Iterator[Record]:
    """Reads COCO detection: boxes x y w h, or outlines where there are polygons or run lengths.

    An image without annotations gives a record without regions.
    """
    document = json.loads((config.folder / f"{config.listed}.json").read_text())
    classes = {each["id"]: each["name"] for each in document["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image in config.picked(document["images"]):
        path = config.folder / config.images / image["file_name"]
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found = []
        for annotation in by_image[image["id"]]:
            x, y, w, h = annotation["bbox"]
            outline = segmentation_mask(annotation.get("segmentation"), height, width)
            mask = outline or box_mask(Box(x, y, x + max(w, 1), y + max(h, 1)), height, width)
            if mask is not None:
                found.append(
                    Annotation(classes[annotation["category_id"]], mask, outline is not None)
                )
        yield make_record(config, path, pixels, found)


def segmentation_mask(segmentation: object, height: int, width: int) -> Mask | None:
    """Decodes a COCO segmentation; None if it is missing, empty or just a box.

    Args:
        segmentation: polygons, run lengths, or a list of one run-length encoding.
        height: height of the image in pixels.
        width: width of the image in pixels.
    """
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
        [segmentation] = segmentation  # as in RRSIS-D
    if isinstance(segmentation, list) and segmentation:
        inside = drawn(
            [np.reshape(ring, (-1, 2)) for ring in segmentation if len(ring) >= 6], height, width
        )
    elif isinstance(segmentation, dict):
        from pycocotools import mask as coco

        if isinstance(segmentation["counts"], list):
            segmentation = coco.frPyObjects(segmentation, height, width)
        inside = coco.decode(segmentation).astype(bool)
    else:
        return None
    mask = Mask.from_array(inside) if inside.any() else None
    # Some datasets store boxes as polygons.
    return None if mask is None or mask.area == mask.height * mask.width else mask


def read_yolo(config: SetConfig) -> Iterator[Record]:
    """Reads YOLO: one text file per image, one object per line.

    A line is `class cx cy w h`, or `class` and a polygon, as fractions of the image's sides.
    """
    for path in listed_images(config):
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found = []
        for kind, numbers in label_lines(config.folder / config.labels / f"{path.stem}.txt"):
            values = [float(each) for each in numbers]
            if len(values) > 5:
                inside = drawn([np.reshape(values, (-1, 2)) * (width, height)], height, width)
                found += (
                    [Annotation(kind, Mask.from_array(inside), outlined=True)]
                    if inside.any()
                    else []
                )
                continue
            cx, cy, w, h = values[:4]
            box = Box(
                (cx - w / 2) * width,
                (cy - h / 2) * height,
                (cx + w / 2) * width,
                (cy + h / 2) * height,
            )
            mask = box_mask(box, height, width)
            found += [Annotation(kind, mask, outlined=False)] if mask is not None else []
        yield make_record(config, path, pixels, found)


def read_voc(config: SetConfig, *, described: bool = False) -> Iterator[Record]:
    """Reads Pascal VOC: one XML file per image; corners count from 1 and are inclusive.

    Args:
        config: dataset.
        described: whether each object has a `description` that fits only this object (DIOR-RSVG).
    """
    for path in listed_images(config):
        pixels = read_pixels(path)
        # Safe to parse: expat expands no external entities.
        tree = parse(config.folder / config.labels / f"{path.stem}.xml")  # noqa: S314
        found = [
            _voc_object(each, pixels, each.findtext("description", "") if described else "")
            for each in tree.getroot().iter("object")
        ]
        yield make_record(config, path, pixels, [each for each in found if each is not None])


def _voc_object(element: Element, pixels: NDArray[np.uint8], phrase: str) -> Annotation | None:
    corners = element.find("bndbox")
    if corners is None:
        raise ValueError("an object has no bndbox")
    x0, y0, x1, y1 = (
        float(corners.findtext(name) or "nan") for name in ("xmin", "ymin", "xmax", "ymax")
    )
    mask = box_mask(Box(x0 - 1, y0 - 1, x1, y1), *pixels.shape[1:])
    return (
        None
        if mask is None
        else Annotation(element.findtext("name") or "", mask, outlined=False, phrase=phrase)
    )


def read_dota(config: SetConfig) -> Iterator[Record]:
    """Reads DOTA: lines of x1 y1 ... x4 y4 class difficult.

    Rotated boxes count as outlines; boxes of a set that has upright ones alone, as boxes.
    """
    rows = {
        path: [
            (rest[7], np.reshape([float(each) for each in (first, *rest[:7])], (4, 2)))
            for first, rest in label_lines(config.folder / config.labels / f"{path.stem}.txt")
            if len(rest) >= 8  # not header lines: imagesource, gsd
        ]
        for path in listed_images(config)
    }
    rotated = any(
        len(np.unique(corners[:, axis])) > 2
        for found in rows.values()
        for _, corners in found
        for axis in (0, 1)
    )
    for path, found in rows.items():
        pixels = read_pixels(path)
        drawings = [(kind, drawn([corners], *pixels.shape[1:])) for kind, corners in found]
        yield make_record(
            config,
            path,
            pixels,
            [
                Annotation(kind, Mask.from_array(inside), outlined=rotated)
                for kind, inside in drawings
                if inside.any()
            ],
        )


def read_masks(config: SetConfig) -> Iterator[Record]:
    """Reads one mask per image, of the same name: pixels brighter than 127 are the only class.

    Of the pixels around a mask, up to `margin_px`, nothing is known.
    """
    [kind] = config.names
    for path in listed_images(config):
        pixels = read_pixels(path)
        inside = read_pixels(find_image(config.folder / config.labels, path.stem)).max(axis=0) > 127
        pieces = (
            ([Mask.from_array(inside)] if inside.any() else [])
            if config.stuff
            else components(inside)
        )
        record = make_record(
            config, path, pixels, [Annotation(kind, mask, outlined=True) for mask in pieces]
        )
        if config.margin_px and inside.any():
            around = ndimage.distance_transform_edt(~inside) <= config.margin_px
            record = replace(record, ignored=around & ~inside)
        yield record


def read_sen1floods11(config: SetConfig) -> Iterator[Record]:
    """Reads Sen1Floods11 into images of VV, VH, VV.

    `CHIP_S1Hand.tif` holds VV and VH in dB; `CHIP_LabelHand.tif` holds 1 water, 0 none, -1 invalid.
    """
    [kind] = config.names
    listed = sorted((config.folder / config.images).glob("*_S1Hand.tif"))
    if config.split:
        names = (config.folder / f"{config.listed}.txt").read_text().split()
        listed = [
            config.folder / config.images / f"{name}_S1Hand.tif" for name in config.picked(names)
        ]
    for path in listed:
        vv, vh = (
            np.clip(np.nan_to_num((band - low) * (255 / (high - low)), nan=0.0), 0, 255).astype(
                np.uint8
            )
            for band, (low, high) in zip(tifffile.imread(path), DECIBELS, strict=True)
        )
        drawn = tifffile.imread(
            config.folder / config.labels / path.name.replace("_S1Hand", "_LabelHand")
        )
        found = (
            [Annotation(kind, Mask.from_array(drawn == 1), outlined=True)]
            if (drawn == 1).any()
            else []
        )
        yield replace(make_record(config, path, np.stack([vv, vh, vv]), found), ignored=drawn < 0)


def read_scenes(config: SetConfig) -> Iterator[Record]:
    """Reads scene classes: one folder per class, or a list of paths that begin with the class.

    Each image becomes one region that covers all of it, and has the question of its class.
    """
    for path in listed_images(config):
        pixels, kind = read_pixels(path), path.parent.name
        found = [Annotation(kind, Mask.from_array(np.ones(pixels.shape[1:], bool)), outlined=True)]
        word = config.names.get(kind) if config.names else kind
        asked = ((SCENE_QUESTION, word),) if word else ()
        yield make_record(config, path, pixels, found, stuff=True, questions=asked)
