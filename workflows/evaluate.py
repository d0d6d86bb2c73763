"""Evaluates a model on sets of annotated images.

Returns figures; writes raw answers, and pictures of the best and the worst images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.readers import read_set
from earthgptx.model.datasets.record import Record
from earthgptx.model.datasets.registry import REGISTRY
from earthgptx.model.evaluation.exam import Answers, detect, examine, hidden
from earthgptx.model.evaluation.figures import by_sensor, commonest, figures
from earthgptx.model.inference.analyst import EarthGPTXAnalyst
from earthgptx.model.inference.session import LEAST_SCORE
from earthgptx.model.interface.errors import DataError
from earthgptx.model.interface.region import Box
from earthgptx.model.interface.tile import AnalystTraits, Modality, TileInput
from earthgptx.model.interface.validation import sentences
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.synthetic.rendered import rendered
from earthgptx.pipeline.analyst import Analyst, find_analyst
from earthgptx.workflows.whole_image import find_in_image

RENDERED_SEED = 2**50
"""Seed of the first rendered image of an exam; training draws its seeds at random below 2**62."""
RENDERED_IMAGES = 60
RENDERED_PX = 256
CASES = 4
"""Number of the best images, and of the worst, that are drawn."""
LARGE_PX = 1024
"""Longer side in pixels above which an image is tiled as in the pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of a model on one set."""

    name: str
    images: int
    figures: dict[str, float]
    blind: dict[str, float]
    """The same figures on hidden images."""
    commonest: dict[str, float]
    """The same figures if the answer is always the most common word."""
    sensors: dict[str, dict[str, float]]
    """The model's figures per sensor."""


def evaluate(
    place: str,
    dataset: str,
    split: str,
    *,
    iou: float = 0.5,
    resolution: float | None = None,
    out: Path | None = None,
    on_image: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Report]:
    """Evaluates a model, and returns one report per set.

    Args:
        place: model, named as in a job file: a scale, a folder or a hub id. Other detectors, such
            as `cfar`, are evaluated on search only.
        dataset: `rendered`, the folder of a known set, or a folder with an `earthgptx.yaml` that
            describes the set.
        split: name of a list in the folder.
        iou: least IoU at which a found box is a hit, 0..1.
        resolution: metres per pixel that the images are resampled to, as by a job's
            `grid.resolution`; None keeps their own.
        out: folder for raw answers and pictures; None writes none.
        on_image: called with the name of the set, and the numbers of finished and of all images.

    Raises:
        DataError: the set cannot be read, or `resolution` is given and its scale is unknown.
        JobError: there is no such model.
        WeightsError: the model cannot be read.
    """
    source = find_analyst(place)
    traits, analyst = source.traits(), source.load()
    reports = []
    for name, words, records in read_exam(dataset, split):
        if resolution is not None:
            records = [_at(resolution, record, name) for record in records]
        records = [_whole(record) for record in records]
        ask = _examiner(analyst, traits, words, records, partial(on_image, name))
        answers, measure = ask(records), partial(figures, images=len(records), iou=iou)
        report = Report(
            name=name,
            images=len(records),
            figures=measure(answers),
            blind=measure(ask([hidden(record) for record in records])),
            commonest=measure(commonest(answers)),
            sensors=by_sensor(answers, measure),
        )
        reports.append(report)
        if out is not None:
            model = analyst.model if isinstance(analyst, EarthGPTXAnalyst) else None
            _keep(out / name, answers, model, records)
    return reports


def _examiner(
    analyst: Analyst,
    traits: AnalystTraits,
    words: Sequence[str],
    records: Sequence[Record],
    on_image: Callable[[int, int], None],
) -> Callable[[Sequence[Record]], Answers]:
    """Returns the function that examines a set.

    If an image of the set is larger than `LARGE_PX`, or the analyst is another detector, all images
    are only searched, tile by tile.
    """
    large = max(max(record.pixels.shape[1:]) for record in records) > LARGE_PX
    if isinstance(analyst, EarthGPTXAnalyst):
        # Average precision is over all scores, not over those that a job keeps.
        analyst, traits = (
            EarthGPTXAnalyst(analyst.model, LEAST_SCORE),
            replace(traits, min_score=LEAST_SCORE),
        )
    if large or not isinstance(analyst, EarthGPTXAnalyst):
        find = partial(_find, analyst, traits)
        return partial(detect, words=words, find=find, on_image=on_image)
    return partial(examine, analyst.model, words=words, on_image=on_image)


def read_exam(dataset: str, split: str) -> list[tuple[str, tuple[str, ...], list[Record]]]:
    """Returns name, words and images of each set of a dataset.

    Raises:
        DataError: the dataset is unknown or cannot be read.
    """
    if dataset == "rendered":
        sensors = get_args(Modality)
        records = [
            rendered(RENDERED_SEED + number, RENDERED_PX, sensors[number % 3])
            for number in range(RENDERED_IMAGES)
        ]
        words = tuple(sorted({region.label for record in records for region in record.regions}))
        return [("rendered", words, records)]
    folder = Path(dataset)
    description = folder / "earthgptx.yaml"
    if description.is_file():
        configs: tuple[SetConfig, ...] = (_described_set(description),)
    elif folder.name in REGISTRY and folder.is_dir():
        configs = REGISTRY[folder.name]
    else:
        raise DataError(
            f"{dataset} is neither 'rendered' nor a folder of a known set ({', '.join(REGISTRY)}); "
            "describe your own in an earthgptx.yaml in its folder (name, format, modality, names)"
        )
    found = []
    for config in configs:
        records = read_set(config.model_copy(update={"folder": folder, "split": split}))
        words = config.words or tuple(
            sorted({region.label for record in records for region in record.regions})
        )
        found.append((config.name, words, records))
    return found


def _described_set(path: Path) -> SetConfig:
    """Reads the `earthgptx.yaml` that describes the set in its folder."""
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} describes no set; it should start with 'name: ...'")
    try:
        return SetConfig.model_validate({"folder": path.parent, **document})
    except ValidationError as error:
        lines = sentences(error, SetConfig, missing="see docs/training.md, Your own images")
        raise DataError("\n".join(f"{path}: {line}" for line in lines)) from error


def _at(resolution: float, record: Record, name: str) -> Record:
    """Resamples an image to `resolution` metres per pixel.

    An image that is not square is padded to a square; the padding is marked as ignored.
    """
    if record.metres_per_pixel is None:
        raise DataError(
            f"{name}: how large a pixel is is not known, so it cannot be brought to {resolution} m"
        )
    side = max(record.pixels.shape[1:])
    return record.cropped(0, 0, side, max(round(side * record.metres_per_pixel / resolution), 1))


def _whole(record: Record) -> Record:
    """Reduces a large image that is asked questions as a whole; others are searched in tiles."""
    side = max(record.pixels.shape[1:])
    asked = record.choices or any(region.phrase for region in record.regions)
    return record.cropped(0, 0, side, LARGE_PX) if asked and side > LARGE_PX else record


def _find(
    analyst: Analyst,
    traits: AnalystTraits,
    pixels: NDArray[np.uint8],
    record: Record,
    words: Sequence[str],
) -> list[tuple[str, Box, float]]:
    def ask(tile: NDArray[np.uint8], valid: NDArray[np.bool_]) -> TileInput:
        return TileInput(
            pixels=tile,
            valid=valid,
            wanted=valid,
            modality=record.modality,
            metres_per_pixel=record.metres_per_pixel,
            phrases=tuple(words),
            prompts=(),
            names=(),
            describe=False,
            caption=False,
        )

    return find_in_image(analyst, traits, pixels, ask)


def _keep(
    folder: Path, answers: Answers, model: EarthGPTX | None, records: Sequence[Record]
) -> None:
    from earthgptx.model.training.pictures import draw_answers

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "answers.jsonl").open("w") as file:
        for each in answers.raw():
            file.write(json.dumps(each, default=float) + "\n")
    if model is None:
        return
    worth: dict[int, list[float]] = {}
    for each in answers.regions:
        right = float(each["said"] == each["truth"])
        worth.setdefault(each["image"], []).append(
            right if each["iou"] is None else (right + each["iou"]) / 2
        )
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
        shown = [
            (f"{which}: {np.mean(worth[image]):.2f} right", records[image])
            for which, image in cases
        ]
        draw_answers(model, shown, folder / "cases.png")
