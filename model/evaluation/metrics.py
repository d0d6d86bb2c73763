"""Standard metrics, by their reference implementations. A missing answer counts as wrong.

Takes predictions and truth as plain values. Knows nothing of models or exams.
"""

# N cases

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from earthgptx.model.interface.region import Box, Mask


@dataclass(frozen=True, slots=True)
class Detection:
    """A detected or an annotated object."""

    image: int
    """Number of the image in the exam."""
    label: str
    box: Box
    score: float = 1.0


def average_precision(
    found: Sequence[Detection],
    truth: Sequence[Detection],
    images: int,
    *,
    iou: float = 0.5,
    least: float = 0.0,
) -> dict[str, float]:
    """Returns the average precision (AP) of boxes by word, computed by pycocotools.

    Boxes are matched one to one in order of descending score; precision is averaged over 101 recall
    levels.

    Args:
        found: detections with scores.
        truth: all annotated objects.
        images: number of images.
        iou: lowest IoU of a hit, 0..1.
        least: least box area in square pixels. As with the size ranges of COCO, smaller boxes count
            neither as found nor as missed.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({each.label for each in truth if _area(each.box) >= least})
    if not labels:
        return {}
    number = {label: at for at, label in enumerate(labels, start=1)}
    said = [
        _coco_box(each, number) | {"score": each.score} for each in found if each.label in number
    ]
    if not said:
        return dict.fromkeys(labels, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        real = COCO()
        real.dataset = {
            "images": [{"id": at} for at in range(images)],
            "categories": [{"id": number[label]} for label in labels],
            "annotations": [
                _coco_box(each, number) | {"id": at, "area": _area(each.box), "iscrowd": 0}
                for at, each in enumerate(truth, start=1)
                if each.label in number
            ],
        }
        real.createIndex()
        judge = COCOeval(real, real.loadRes(said), "bbox")
        judge.params.iouThrs = np.array([iou])
        judge.params.maxDets = [1, 100, 1000]
        judge.params.areaRng, judge.params.areaRngLbl = [[least, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 2]  # recalls x words
    return {label: float(precision[:, at].mean()) for at, label in enumerate(labels)}


def _coco_box(each: Detection, number: dict[str, int]) -> dict[str, Any]:
    """Returns a detection in the format of COCO, with its category as a number."""
    return {"image_id": each.image, "category_id": number[each.label], "bbox": _xywh(each.box)}


def iou(one: Mask | None, other: Mask) -> float:
    """Intersection over union of two masks; 0 if `one` is None."""
    if one is None:
        return 0.0
    y0, x0 = min(one.y0, other.y0), min(one.x0, other.x0)
    y1, x1 = (
        max(one.y0 + one.height, other.y0 + other.height),
        max(one.x0 + one.width, other.x0 + other.width),
    )
    a, b = one.window(y0, x0, y1, x1), other.window(y0, x0, y1, x1)
    return float((a & b).sum() / (a | b).sum())


def box_iou(one: Box | None, other: Box) -> float:
    """Intersection over union of two boxes with continuous edges; 0 if `one` is None."""
    if one is None:
        return 0.0
    width = max(min(one.x1, other.x1) - max(one.x0, other.x0), 0.0)
    height = max(min(one.y1, other.y1) - max(one.y0, other.y0), 0.0)
    return width * height / (_area(one) + _area(other) - width * height)


def top1(said: Sequence[str], truth: Sequence[str]) -> float:
    """Fraction of correct words; NaN if there are no cases."""
    return (
        float(np.mean([one == other for one, other in zip(said, truth, strict=True)]))
        if truth
        else float("nan")
    )


def macro_f1(said: Sequence[str], truth: Sequence[str]) -> float:
    """F1 averaged over the words that occur in the truth."""
    from torchmetrics.functional.classification import multiclass_f1_score

    words = sorted({*said, *truth})
    target = torch.tensor([words.index(each) for each in truth])
    each = multiclass_f1_score(
        torch.tensor([words.index(w) for w in said]), target, len(words), average="none"
    )
    return float(each[target.unique()].mean())


def calibration_error(sure: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error over 15 confidence bins; NaN if there are no cases."""
    from torchmetrics.functional.classification import binary_calibration_error

    if not sure:
        return float("nan")
    return float(
        binary_calibration_error(
            torch.tensor(sure), torch.tensor(right).int(), n_bins=15, norm="l1"
        )
    )


def captions(said: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Returns CIDEr, BLEU-4 and ROUGE-L by pycocoevalcap, and METEOR if Java is installed.

    Texts are compared in lower case without punctuation. Returns an empty dictionary if there are
    no cases.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    if not truth:
        return {}
    references = {at: [_plain(text)] for at, text in enumerate(truth)}
    answers = {at: [_plain(text)] for at, text in enumerate(said)}
    bleu = Bleu(4).compute_score(references, answers, verbose=0)[0][3]
    kinds = {"cider": Cider, "rouge_l": Rouge} | (
        {"meteor": Meteor} if shutil.which("java") else {}
    )
    scores = {
        name: float(kind().compute_score(references, answers)[0]) for name, kind in kinds.items()
    }
    return scores | {"bleu4": float(bleu)}


def word_overlap(said: str, truth: str) -> float:
    """S-IoU: intersection over union of the words of two texts (Yuan et al. 2024, Osprey)."""
    one, other = set(_plain(said).split()), set(_plain(truth).split())
    return len(one & other) / len(one | other) if one | other else 1.0


def set_f1(said: set[str], truth: set[str]) -> float:
    """F1 of a set of named words; 1 if both sets are empty."""
    if not said and not truth:
        return 1.0
    return 2 * len(said & truth) / (len(said) + len(truth))


def _plain(text: str) -> str:
    return (
        "".join(
            letter if letter.isalnum() or letter == "-" else " " for letter in text.lower()
        ).strip()
        or "nothing"
    )


def _xywh(box: Box) -> list[float]:
    return [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)
