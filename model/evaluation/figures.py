"""Computes figures from the answers of an exam, by task, by sensor and by word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from earthgptx.model.evaluation.exam import KINDS, Answers, within_one
from earthgptx.model.evaluation.metrics import (
    average_precision,
    calibration_error,
    captions,
    macro_f1,
    set_f1,
    top1,
    word_overlap,
)
from earthgptx.model.evaluation.similarity import similarities

SEEN_PX = 16
"""Least box area, in square pixels, of the second AP figure: smaller objects show no shape."""
Case = dict[str, Any]
Said = TypeVar("Said", str, int)


def figures(answers: Answers, images: int, iou: float = 0.5) -> dict[str, float]:
    """Returns all figures by name; leaves out those of tasks without answers.

    Args:
        answers: answers of an exam.
        images: number of images in the exam.
        iou: lowest IoU of a correct detection, 0..1.
    """
    found: dict[str, float] = {}
    ap = average_precision(answers.found, answers.there, images, iou=iou)
    found |= {f"find_ap{round(100 * iou)}/{label}": value for label, value in ap.items()}
    if ap:
        found[f"find_ap{round(100 * iou)}"] = float(np.mean(list(ap.values())))
        seen = average_precision(answers.found, answers.there, images, iou=iou, least=SEEN_PX)
        found[f"find_ap{round(100 * iou)}_from_{SEEN_PX}_px"] = (
            float(np.mean(list(seen.values()))) if seen else 0.0
        )
    found |= _regions(answers.regions)
    found |= _choices(answers.choices) | _told(answers.located)
    for kind, cases in _by(answers.located, "kind").items():
        if kind == "told":
            continue
        name = "pr_at_50" if kind == "placed" else f"pr_at_50_{kind}"
        found[name] = float(np.mean([each["box_iou"] >= 0.5 for each in cases]))
        found[f"{name}_said"] = float(np.mean([each["said_box_iou"] >= 0.5 for each in cases]))
    for word, cases in _by(answers.ground, "word").items():
        either = sum(each["either"] for each in cases)
        if either:
            found[f"iou/{word}"] = sum(each["shared"] for each in cases) / either
            found[f"miou/{word}"] = float(
                np.mean([each["shared"] / each["either"] for each in cases if each["either"]])
            )
    if answers.scenes:
        found["scene_top1"] = top1(
            [each["said"] for each in answers.scenes], [each["truth"] for each in answers.scenes]
        )
    if answers.described:
        named = [set_f1(set(each["named"]), set(each["there"])) for each in answers.described]
        found["scene_f1"] = float(np.mean(named))
    for kind, cases in _by(answers.questions, "kind").items():
        if kind == "count":
            found["count_within_one"] = float(
                np.mean([within_one(each["said"], each["truth"]) for each in cases])
            )
        else:
            found["yes_no"] = top1(
                [each["said"] for each in cases], [each["truth"] for each in cases]
            )
    return found


def _choices(cases: Sequence[Case]) -> dict[str, float]:
    """Returns the accuracy over possible answers: of all, by task, and the spread over wordings."""
    if not cases:
        return {}
    right = {name: _accuracy(mine) for name, mine in _by(cases, "of").items() if name}
    wordings = [_accuracy(mine) for mine in _by(cases, "wording").values()]
    found = {"choice_accuracy": _accuracy(cases)}
    found |= {f"choice_accuracy/{name}": value for name, value in right.items()}
    return found | {
        "choice_accuracy_lowest_wording": min(wordings),
        "choice_accuracy_highest_wording": max(wordings),
    }


def _accuracy(cases: Sequence[Case]) -> float:
    return float(np.mean([each["said"] == each["truth"] for each in cases]))


def _told(located: Sequence[Case]) -> dict[str, float]:
    """Returns how well masks, or boxes, fit the phrases of a source: as RRSIS does, and Pr@0.5."""
    told = [each for each in located if each["kind"] == "told"]
    cases = [each for each in told if each["mask_iou"] is not None]
    if told and not cases:
        return {"phrase_box_pr_at_50": float(np.mean([each["box_iou"] >= 0.5 for each in told]))}
    if not cases:
        return {}
    shared, either = (sum(each["pixels"][side] for each in cases) for side in (0, 1))
    fits = np.array([each["mask_iou"] for each in cases])
    found = {"phrase_oiou": shared / max(either, 1), "phrase_miou": float(fits.mean())}
    return found | {
        f"phrase_pr_at_{percent}": float((fits >= percent / 100).mean())
        for percent in (50, 60, 70, 80, 90)
    }


def _regions(cases: Sequence[Case]) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in KINDS:
        mine = [each for each in cases if each["kind"] == kind]
        if not mine:
            continue
        said, truth = [each["said"] for each in mine], [each["truth"] for each in mine]
        ious = [each["iou"] for each in mine if each["iou"] is not None]
        if len(set(truth)) > 1:
            found[f"region_top1/{kind}"] = top1(said, truth)
        if ious:
            found[f"mask_miou/{kind}"] = float(np.mean(ious))
        if kind != "box":
            continue
        if len(set(truth)) > 1:
            found["region_top1"] = top1(said, truth)
            found["region_macro_f1"] = macro_f1(said, truth)
            if sure := [each["sure"] for each in mine if each["sure"] is not None]:
                found["ece"] = calibration_error(
                    sure, [s == t for s, t in zip(said, truth, strict=True)]
                )
        found |= _by_word(mine)
        found["region_free_top1"] = top1([each["free"] for each in mine], truth)
        near = similarities([each["free"] for each in mine], truth)
        if near is not None:
            found["region_similarity"] = float(np.mean(near))
        found["region_word_overlap"] = float(
            np.mean([word_overlap(each["free"], each["truth"]) for each in mine])
        )
        if ious:
            found["mask_miou"] = float(np.mean(ious))
        worded = [each for each in mine if not each["made"]]
        if worded:
            found |= captions(
                [each["caption"] for each in worded], [each["true_caption"] for each in worded]
            )
        # Some captions of the made world use a synonym of the label: a quay is a harbour.
        telling = [each for each in worded if each["truth"] in each["true_caption"]]
        if telling:
            found["caption_word"] = float(
                np.mean([each["truth"] in each["caption"] for each in telling])
            )
    return found


def _by_word(boxes: Sequence[Case]) -> dict[str, float]:
    """Accuracy and mask IoU per true word, for box prompts."""
    found: dict[str, float] = {}
    groups = _by(boxes, "truth")
    for word, cases in groups.items():
        if len(groups) > 1:
            found[f"region_top1/{word}"] = top1(
                [each["said"] for each in cases], [word] * len(cases)
            )
        if ious := [each["iou"] for each in cases if each["iou"] is not None]:
            found[f"mask_miou/{word}"] = float(np.mean(ious))
    return found


def commonest(answers: Answers) -> Answers:
    """Returns the answers of a baseline that always gives the most common answer.

    That is the most common word, caption, scene, count, yes or no, and place among options. Tasks
    that ask for boxes or masks are left out.
    """
    regions, scenes, described, questions = ([] for _ in range(4))
    boxes = [each for each in answers.regions if each["kind"] == "box"]
    if boxes:
        word, caption = (
            _commonest([each[key] for each in boxes]) for key in ("truth", "true_caption")
        )
        told = {"said": word, "free": word, "sure": None, "iou": None}
        regions = [
            {**each, **told, "caption": caption if each["kind"] == "box" else None}
            for each in answers.regions
        ]
    if answers.scenes:
        word = _commonest([each["truth"] for each in answers.scenes])
        scenes = [{**each, "said": word} for each in answers.scenes]
    if named := [name for each in answers.described for name in each["there"]]:
        described = [{**each, "named": [_commonest(named)]} for each in answers.described]
    for cases in _by(answers.questions, "kind").values():
        word = _commonest([each["truth"] for each in cases])
        questions += [{**each, "said": word} for each in cases]
    choices = []
    if answers.choices:
        at = _commonest([each["options"].index(each["truth"]) for each in answers.choices])
        choices = [
            {**each, "said": each["options"][min(at, len(each["options"]) - 1)]}
            for each in answers.choices
        ]
    return Answers(
        regions=regions, scenes=scenes, described=described, questions=questions, choices=choices
    )


def _commonest(words: Sequence[Said]) -> Said:
    return Counter(words).most_common(1)[0][0]


def by_sensor(
    answers: Answers, measure: Callable[[Answers], dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Returns the figures of each sensor; empty if there are fewer than two sensors.

    Detections are assigned to a sensor by the images of its other answers.

    Args:
        answers: answers of an exam.
        measure: computes figures from answers.
    """
    lists = ("regions", "located", "ground", "scenes", "described", "questions", "choices")
    sensors = sorted({each["modality"] for name in lists for each in getattr(answers, name)})
    if len(sensors) < 2:
        return {}
    found = {}
    for sensor in sensors:
        mine = {
            name: [each for each in getattr(answers, name) if each["modality"] == sensor]
            for name in lists
        }
        numbers = {each["image"] for cases in mine.values() for each in cases}
        seen = {
            name: [d for d in getattr(answers, name) if d.image in numbers]
            for name in ("found", "there")
        }
        found[sensor] = measure(Answers(**mine, **seen))
    return found


def _by(cases: Sequence[Case], key: str) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = defaultdict(list)
    for each in cases:
        groups[each[key]].append(each)
    return dict(sorted(groups.items()))
