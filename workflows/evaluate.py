"""How well a model does on a set of annotated images: figures, raw answers, pictures of the best and the worst."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from model.analyst import EarthGPTXAnalyst
from model.earthgptx import EarthGPTX
from model.errors import DataError
from model.evaluation.exam import Answers, detect, examine, hidden
from model.evaluation.figures import by_sensor, commonest, figures
from model.region import Box
from model.tile import AnalystTraits, Modality, TileInput
from model.training.datasets import SetConfig, read_set
from model.training.known import KNOWN
from model.training.record import Record
from model.training.rendered import rendered
from pipeline.analyst import Analyst, find_analyst
from pipeline.tiling import find_in_image

RENDERED_SEED = 2**50
"""Of the first made image of an exam; training never comes near."""
RENDERED_IMAGES = 60
RENDERED_PX = 256
CASES = 4
"""Of the best images and of the worst, that a page shows."""
LARGE_PX = 1024
"""Longer side from which an image is tiled as the pipeline does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came out."""

    name: str
    images: int
    figures: dict[str, float]
    blind: dict[str, float]
    """The same figures when the images are hidden."""
    commonest: dict[str, float]
    """Those that always saying the commonest word would get."""
    sensors: dict[str, dict[str, float]]


def evaluate(
    place: str, dataset: str, split: str, *, iou: float = 0.5, resolution: float | None = None, out: Path | None = None,
    on_image: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Report]:  # fmt: skip
    """Examine a model; a report a set.

    Args:
        place: of the model, as a job names it: a scale, a folder, a hub id. Other detectors, `cfar` among them, are only
            asked to find.
        dataset: `rendered`, the folder of a known set, or one that holds an `earthgptx.yaml` that describes it.
        split: name of a list in the folder.
        iou: from which a found box is a hit.
        resolution: metres of a pixel that the images are brought to, as a job's `grid.resolution` does; None for theirs.
        out: folder for raw answers and pictures; None for none.
        on_image: told the set, the images done and to do.

    Raises:
        DataError: the set cannot be read, or its scale is not known and a resolution is wanted.
        JobError: there is no such model.
        WeightsError: the model cannot be read.
    """
    source = find_analyst(place)
    traits, analyst = source.traits(), source.load()
    reports = []
    for name, words, records in read_exam(dataset, split):
        if resolution is not None:
            records = [_at(resolution, record, name) for record in records]
        large = max(max(record.pixels.shape[1:]) for record in records) > LARGE_PX
        if large or not isinstance(analyst, EarthGPTXAnalyst):
            ask = partial(detect, words=words, find=partial(_find, analyst, traits), on_image=partial(on_image, name))
        else:
            ask = partial(examine, analyst.model, words=words, on_image=partial(on_image, name))
        answers, measure = ask(records=records), partial(figures, images=len(records), iou=iou)
        reports.append(
            Report(
                name=name, images=len(records), figures=measure(answers),
                blind=measure(ask(records=[hidden(record) for record in records])), commonest=measure(commonest(answers)),
                sensors=by_sensor(answers, measure),
            )
        )  # fmt: skip
        if out is not None:
            _keep(out / name, answers, analyst.model if isinstance(analyst, EarthGPTXAnalyst) else None, records)
    return reports


def read_exam(dataset: str, split: str) -> list[tuple[str, tuple[str, ...], list[Record]]]:
    """Name, words and images of each set.

    Raises:
        DataError: it is not known, or cannot be read.
    """
    if dataset == "rendered":
        sensors = get_args(Modality)
        records = [
            rendered(RENDERED_SEED + number, RENDERED_PX, sensors[number % 3]) for number in range(RENDERED_IMAGES)
        ]
        words = tuple(sorted({region.label for record in records for region in record.regions}))
        return [("rendered", words, records)]
    folder = Path(dataset)
    described = folder / "earthgptx.yaml"
    if described.is_file():
        try:
            configs: tuple[SetConfig, ...] = (SetConfig.model_validate(yaml.safe_load(described.read_text())),)
        except (ValidationError, yaml.YAMLError) as error:
            raise DataError(f"{described} does not describe a set: {error}") from error
    elif folder.name in KNOWN and folder.is_dir():
        configs = KNOWN[folder.name]
    else:
        raise DataError(
            f"{dataset} is neither 'rendered' nor a folder of a known set ({', '.join(KNOWN)}); describe your own in an "
            "earthgptx.yaml in its folder (name, format, modality, names)"
        )
    found = []
    for config in configs:
        records = read_set(config.model_copy(update={"folder": folder, "split": split}))
        words = config.words or tuple(sorted({region.label for record in records for region in record.regions}))
        found.append((config.name, words, records))
    return found


def _at(resolution: float, record: Record, name: str) -> Record:
    """The image on coarser or finer pixels; one that is not square is filled up with ground that is not known."""
    if record.metres_per_pixel is None:
        raise DataError(f"{name}: how large a pixel is is not known, so it cannot be brought to {resolution} m")
    side = max(record.pixels.shape[1:])
    return record.cropped(0, 0, side, max(round(side * record.metres_per_pixel / resolution), 1))


def _find(
    analyst: Analyst, traits: AnalystTraits, pixels: NDArray[np.uint8], record: Record, words: Sequence[str]
) -> list[tuple[str, Box, float]]:
    def ask(tile: NDArray[np.uint8], valid: NDArray[np.bool_]) -> TileInput:
        return TileInput(
            pixels=tile, valid=valid, asked=valid, modality=record.modality,
            metres_per_pixel=record.metres_per_pixel, phrases=tuple(words), prompts=(), names=(), describe=False,
        )  # fmt: skip

    return find_in_image(analyst, traits, pixels, ask)


def _keep(folder: Path, answers: Answers, model: EarthGPTX | None, records: Sequence[Record]) -> None:
    from model.training.pictures import draw_answers

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "answers.jsonl").open("w") as file:
        for each in answers.raw():
            file.write(json.dumps(each, default=float) + "\n")
    if model is None:
        return
    worth: dict[int, list[float]] = {}
    for each in answers.regions:
        right = float(each["said"] == each["truth"])
        worth.setdefault(each["image"], []).append(right if each["iou"] is None else (right + each["iou"]) / 2)
    for case in answers.ground:
        if case["either"]:
            worth.setdefault(case["image"], []).append(case["shared"] / case["either"])
    for case in answers.scenes:
        worth.setdefault(case["image"], []).append(float(case["said"] == case["truth"]))
    order = sorted(worth, key=lambda image: (-np.mean(worth[image]), image))
    half = (len(order) + 1) // 2
    best, worst = order[:half][:CASES], order[half:][-CASES:]
    cases = [("best", image) for image in best] + [("worst", image) for image in worst]
    if cases:
        shown = [(f"{which}: {np.mean(worth[image]):.2f} right", records[image]) for which, image in cases]
        draw_answers(model, shown, folder / "cases.png")
