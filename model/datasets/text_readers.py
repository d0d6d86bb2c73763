"""Readers of datasets that are annotated with referring phrases, captions or conversations."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.datasets.box_readers import segmentation_mask
from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.images import (
    Annotation,
    drawn,
    find_image,
    make_record,
    read_pixels,
)
from earthgptx.model.datasets.record import Choice, Record, box_mask
from earthgptx.model.interface.region import Box, Mask

GEOCHAT_SIDE = 100.0
"""Side of an image in coordinates of the instruction format, which are integers."""


class _Plain(pickle.Unpickler):
    """Unpickles lists, dicts, strings and numbers only, so that no code can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"a pickle that would load {module}.{name} is not read")


def read_rrsis_d(config: SetConfig) -> Iterator[Record]:
    """Reads RRSIS-D: COCO annotations in `instances.json`, their sentences in `refs(unc).p`.

    Only the first sentence of each reference is used.
    """
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
            mask = segmentation_mask(annotation["segmentation"], *pixels.shape[1:])
            if mask is not None:
                text = reference["sentences"][0]["sent"]
                found.append(
                    Annotation(classes[annotation["category_id"]], mask, outlined=True, phrase=text)
                )
        yield make_record(config, path, pixels, found)


def read_refsegrs(config: SetConfig) -> Iterator[Record]:
    """Reads RefSegRS: lines of a number and a phrase, `images/NUMBER.tif`, `masks/NUMBER.tif`.

    A mask, all pixels above 0, is what the phrase fits: one object, or ground.
    """
    phrases: dict[str, list[str]] = defaultdict(list)
    for line in (config.folder / f"output_phrase_{config.split}.txt").read_text().splitlines():
        number, _, phrase = line.strip().partition(" ")
        if number:
            phrases[number].append(phrase.strip())
    for number, said in phrases.items():
        path = find_image(config.folder / config.images, number)
        inside = read_pixels(find_image(config.folder / "masks", number)).max(axis=0) > 0
        found = []
        if inside.any():
            mask = Mask.from_array(inside)
            found = [Annotation("referred", mask, outlined=True, phrase=each) for each in said]
        yield make_record(config, path, read_pixels(path), found, stuff=True)


def read_geobench_vlm(config: SetConfig) -> Iterator[Record]:
    """Reads GEOBench-VLM: `Single.parquet`, whose rows hold an image and a question.

    A row has `image` (bytes), `prompts` (the question in several wordings), `options_list`,
    `ground_truth_option` (a letter that counts them) and `task`.
    """
    import pyarrow.parquet as pq

    path = config.folder / f"{config.split or 'Single'}.parquet"
    names = ("image", "prompts", "options_list", "ground_truth_option", "task")
    with path.open("rb") as file:
        batches = pq.ParquetFile(file).iter_batches(batch_size=64, columns=list(names))
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            yield _choice_record(config, path, number, row)


def _choice_record(config: SetConfig, path: Path, number: int, row: dict[str, Any]) -> Record:
    """Returns the record of a row of GEOBench-VLM."""
    at = ord(row["ground_truth_option"].strip()[0].upper()) - ord("A")
    options = tuple(str(each) for each in row["options_list"])
    if not 0 <= at < len(options):
        raise ValueError(f"row {number} has no option {row['ground_truth_option']!r}")
    choice = Choice(
        wordings=tuple(row["prompts"]), options=options, right=options[at], task=row["task"]
    )
    pixels = read_pixels(io.BytesIO(row["image"]["bytes"]))
    record = make_record(config, path, pixels, [])
    return replace(record, image=f"{path.name}#{number}", choices=(choice,))


def read_vrsbench(config: SetConfig) -> Iterator[Record]:
    """Reads VRSBench: one JSON file per image.

    A file holds a caption, questions, and objects (class, `obj_coord` in 0..1, referring sentence).
    """
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
                found.append(Annotation(each["obj_cls"], mask, outlined=False, phrase=text))
        questions = tuple(
            (each["question"], str(each["answer"])) for each in document.get("qa_pairs", ())
        )
        yield make_record(
            config, image, pixels, found, scene=document.get("caption", ""), questions=questions
        )


def read_captions(config: SetConfig) -> Iterator[Record]:
    """Reads RSICD and UCM captions from `dataset.json`.

    Each of its `images` has `filename`, `split` and `sentences`; only the first sentence is used.
    """
    document = json.loads((config.folder / "dataset.json").read_text())
    for image in document["images"]:
        if config.split and image["split"] != config.split:
            continue
        path = config.folder / config.images / image["filename"]
        yield make_record(
            config, path, read_pixels(path), [], scene=image["sentences"][0]["raw"].strip(" .")
        )


def read_instructions(config: SetConfig) -> Iterator[Record]:
    """Reads instruction JSON of GeoChat and EarthMarker: conversations about an image.

    `{<x0><y0><x1><y1>|<angle>}` is a box in hundredths of the image's sides, with an angle in
    degrees. If the question holds boxes, the answer describes them; if only the answer does, the
    question describes them. Turns without boxes become questions about the whole image.
    """
    place = re.compile(r"\{<(\d+)><(\d+)><(\d+)><(\d+)>(?:\|<(-?\d+)>)?\}")
    for each in json.loads((config.folder / f"{config.split or 'instructions'}.json").read_text()):
        path = config.folder / config.images / each["image"]
        pixels = read_pixels(path)
        height, width = pixels.shape[1:]
        found: list[Annotation] = []
        questions: list[tuple[str, str]] = []
        turns = [turn["value"].replace("<image>", "").strip() for turn in each["conversations"]]
        for question, answer in zip(turns[::2], turns[1::2], strict=False):
            places = place.findall(question) or place.findall(answer)
            words = answer if place.search(question) else re.sub(r"^.*?\]\s*", "", question)
            if not places:
                questions.append((question, answer))
            for x0, y0, x1, y1, angle in places:
                corners = (
                    np.array([x0, y0, x1, y1], float)
                    / GEOCHAT_SIDE
                    * (width, height, width, height)
                )
                inside = drawn([_turned(corners, float(angle or 0))], height, width)
                if inside.any():
                    plain = re.sub(r"</?p>", "", place.sub("", words)).strip(" .?:")
                    found.append(
                        Annotation(
                            plain,
                            Mask.from_array(inside),
                            outlined=bool(angle),
                            caption=plain,
                            phrase=plain,
                        )
                    )
        yield make_record(config, path, pixels, found, questions=tuple(questions))


def _turned(box: NDArray[np.floating[Any]], degrees: float) -> NDArray[np.floating[Any]]:
    """Returns the corners of a box xyxy rotated about its centre, (4, 2) x y."""
    x0, y0, x1, y1 = box
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - middle
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(corners @ rotation.T + middle)
