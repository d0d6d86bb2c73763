"""Each measure against cases worked out by hand; a whole exam of a model that knows nothing."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earthgptx.catalogs.profiles import Modality
from earthgptx.model.checkpoint.weights import untrained
from earthgptx.model.datasets.record import Choice, Record, Region
from earthgptx.model.evaluation import metrics
from earthgptx.model.evaluation.calibration import HIGH, LOW, fitted_offset, fitted_temperature
from earthgptx.model.evaluation.exam import Answers, examine, hidden, within_one
from earthgptx.model.evaluation.figures import by_sensor, commonest, figures
from earthgptx.model.evaluation.metrics import (
    Detection,
    average_precision,
    box_iou,
    calibration_error,
    captions,
    iou,
    macro_f1,
    set_f1,
    top1,
    word_overlap,
)
from earthgptx.model.evaluation.similarity import similarities
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.samples.sample import Find
from earthgptx.model.synthetic.rendered import rendered
from tests.model.lessons import NAMES, samples


def at(
    image: int, x: float, score: float = 1.0, label: str = "ship", side: float = 10
) -> Detection:
    return Detection(image, label, Box(x, 0, x + side, 10), score)


def test_average_precision_is_that_of_the_curve() -> None:
    truth = [at(0, 0), at(0, 50), at(1, 0)]
    assert average_precision(truth, truth, 2) == {"ship": pytest.approx(1.0)}
    # Sure and right, then wrong, then right: precision 1 up to a third of recall, 2/3 up to two
    # thirds, then nothing.
    found = [at(0, 0, 0.9), at(0, 200, 0.8), at(1, 1, 0.7)]
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert average_precision(found, truth, 2)["ship"] == pytest.approx(expected, abs=1e-3)
    # One to one: the same object found twice counts once, and the second is wrong.
    twice = [at(0, 0, 0.9), at(0, 1, 0.8), at(0, 50, 0.7), at(1, 0, 0.6)]
    assert average_precision(twice, truth, 2)["ship"] < 1.0
    # Half of it is not enough at 0.5, and is at 0.3.
    half = [at(0, 0, 0.9, side=21), at(0, 50, 0.8, side=21), at(1, 0, 0.7, side=21)]
    assert average_precision(half, truth, 2)["ship"] == 0
    assert average_precision(half, truth, 2, iou=0.3)["ship"] == pytest.approx(1.0)
    assert average_precision([], truth, 2) == {"ship": 0.0}
    tiny = Detection(0, "ship", Box(50, 50, 52, 52))
    assert average_precision(truth, [*truth, tiny], 2)["ship"] < 0.8
    assert average_precision(truth, [*truth, tiny], 2, least=16)["ship"] == pytest.approx(1.0)
    assert average_precision([*truth, tiny], [*truth, tiny], 2, least=16)["ship"] == pytest.approx(
        1.0
    )
    assert average_precision(truth, [tiny], 2, least=16) == {}
    assert average_precision([at(0, 0, label="tank")], truth, 2) == {"ship": 0.0}
    assert average_precision(found, [], 2) == {}


def test_overlaps_are_shares_of_the_union() -> None:
    one = Mask.from_array(np.ones((4, 4), bool))
    other = Mask.from_array(np.ones((4, 4), bool), x0=2)
    assert iou(one, other) == pytest.approx(8 / 24)
    assert iou(None, one) == 0
    assert iou(one, one.moved(dx=50, dy=0)) == 0
    assert box_iou(Box(0, 0, 4, 4), Box(2, 0, 6, 4)) == pytest.approx(8 / 24)
    assert box_iou(Box(0, 0, 1, 1), Box(5, 5, 6, 6)) == 0
    assert box_iou(None, Box(0, 0, 1, 1)) == 0


def test_words_are_counted_as_they_are_said() -> None:
    said, truth = ["ship", "ship", "tank", ""], ["ship", "tank", "tank", "tank"]
    assert top1(said, truth) == pytest.approx(0.5)  # what was not answered is wrong
    # ship: precision 1/2, recall 1; tank: precision 1, recall 1/3.
    assert macro_f1(said, truth) == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)
    assert word_overlap("a white ship", "A ship.") == pytest.approx(2 / 3)
    assert set_f1({"ship", "tank"}, {"ship"}) == pytest.approx(2 / 3)
    assert set_f1(set(), set()) == 1
    assert within_one("two", "three")
    assert within_one("more than ten", "ten")
    assert not within_one("two", "four")
    assert not within_one("a lot", "four")


def test_captions_are_compared_as_the_field_does() -> None:
    truth = ["a white ship at anchor", "a grey building", "a runway by the sea"]
    same = captions(truth, truth)
    assert (
        same["bleu4"] == pytest.approx(1.0, abs=1e-3) or same["bleu4"] > 0.8
    )  # one has fewer than four words
    assert same["rouge_l"] == pytest.approx(1.0)
    assert same["cider"] > 5
    other = captions(["something else", "", "nothing"], truth)
    assert other["cider"] == pytest.approx(0.0, abs=1e-6)
    # ROUGE-L of "a ship at anchor" against "a white ship at anchor": four of four, four of five;
    # beta 1.2.
    precision, recall, beta = 1.0, 4 / 5, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert captions(["a ship at anchor"], truth[:1])["rouge_l"] == pytest.approx(expected)
    assert captions([], []) == {}


@pytest.mark.skipif(
    shutil.which("java") is None, reason="METEOR runs in Java, and there is none on the PATH"
)
def test_meteor_is_measured_where_there_is_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "shutil", shutil)
    truth = ["a white ship at anchor", "a grey building near the quay"]
    assert captions(truth, truth)["meteor"] == pytest.approx(1.0)
    assert captions(["nothing", "else"], truth)["meteor"] == pytest.approx(0.0, abs=1e-6)
    # One word of two is the same, the other has its stem, which is worth 0.6 (Denkowski and Lavie
    # 2014); one piece.
    assert captions(["grey buildings"], ["grey building"])["meteor"] == pytest.approx((1 + 0.6) / 2)


def test_meteor_is_left_out_where_there_is_no_java(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(metrics, "shutil", shutil)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(captions(["a ship"], ["a ship"])) == {"cider", "bleu4", "rouge_l"}


def test_how_sure_is_compared_with_how_often_right() -> None:
    assert calibration_error([0.9] * 10, [True] * 9 + [False]) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error([0.9] * 10, [False] * 10) == pytest.approx(0.9, abs=1e-6)
    assert calibration_error([0.2, 0.9], [True, True]) == pytest.approx((0.8 + 0.1) / 2, abs=1e-6)
    assert np.isnan(calibration_error([], []))


def test_the_temperature_is_the_one_under_which_the_truth_is_likeliest() -> None:
    model = untrained("tiny")
    records = [rendered(seed, 128, "optical") for seed in (3, 4)]
    words = sorted({region.label for record in records for region in record.regions})
    temperature = fitted_temperature(model, records, words)

    def surprise(value: float) -> float:
        model.config = model.config.model_copy(update={"temperature": value})
        worth = []
        for record in records:
            regions = record.regions[:8]
            prompts = [
                VisualPrompt(id=str(at), place=region.mask.box) for at, region in enumerate(regions)
            ]
            pixels = torch.from_numpy(record.pixels)[None]
            asked = Session(model, pixels, ["optical"], [prompts], metres=[record.metres_per_pixel])
            answers = asked.refer(words)[0]
            worth += [-np.log(a.labels[r.label]) for a, r in zip(answers, regions, strict=True)]
        return float(np.mean(worth))

    best = surprise(temperature)
    others = [
        temperature * factor for factor in (0.5, 0.9, 1.1, 2.0) if LOW < temperature * factor < HIGH
    ]
    assert all(best <= surprise(other) + 1e-6 for other in others)
    assert fitted_temperature(model, [], words) == model.config.temperature


def test_the_offset_is_the_one_under_which_ground_fits_best(taught: EarthGPTX) -> None:
    model = copy.deepcopy(taught)
    records = [
        Record(
            pixels=sample.pixels,
            modality=sample.modality,
            metres_per_pixel=None,
            complete=frozenset([name]),
            regions=tuple(Region(labels=(name,), mask=mask) for mask in lesson.masks),
        )
        for sample, name in zip(samples(), NAMES, strict=True)
        for lesson in sample.lessons[:1]
        if isinstance(lesson, Find)
    ]

    def fit(offset: float) -> float:
        model.config = model.config.model_copy(update={"mask_offset": offset})
        worth = []
        for record, name in zip(records, NAMES, strict=True):
            asked = Session(model, torch.from_numpy(record.pixels)[None], [record.modality])
            inside = asked.find([[name]])[0][0].scores >= 128
            truth = np.logical_or.reduce(
                [region.mask.window(0, 0, *inside.shape) for region in record.regions]
            )
            worth.append((inside & truth).sum() / (inside | truth).sum())
        return float(np.mean(worth))

    too_little = fit(-5.0)
    offset = fitted_offset(model, records)
    best = fit(offset)
    assert best > max(too_little, 0.9)
    # The offset is fitted to whole words, and on other processors the least bit otherwise.
    assert all(best >= fit(offset + step) - 1e-3 for step in (-2, -1, 1, 2))
    assert fitted_offset(model, []) == model.config.mask_offset


def test_a_whole_exam_of_a_model_that_knows_nothing(tmp_path: Path) -> None:
    model = untrained("tiny")
    seeds: tuple[tuple[int, Modality], ...] = ((3, "optical"), (5, "sar"), (8, "infrared"))
    whole = [rendered(seed, 128, sensor) for seed, sensor in seeds]
    records = [replace(record, regions=record.regions[:5]) for record in whole]
    words = tuple(sorted({region.label for record in records for region in record.regions}))
    one, again = (examine(model, records, words) for _ in range(2))
    lines = [json.dumps(each, default=float) for each in one.raw()]
    assert lines == [json.dumps(each, default=float) for each in again.raw()]
    found = figures(one, len(records))
    assert 0 <= found["find_ap50"] <= 0.2
    assert 0 <= found["mask_miou"] <= 0.5
    assert {
        "scene_f1",
        "yes_no",
        "region_top1/point",
        "region_top1/box",
        "region_top1/free",
    } <= set(found)
    assert all(0 <= value <= 1 for name, value in found.items() if not name.startswith("cider"))
    kinds = {
        kind: [each["truth"] for each in one.regions if each["kind"] == kind]
        for kind in ("point", "box", "free")
    }
    assert kinds["point"] == kinds["box"] == kinds["free"]
    assert {each["file"] for each in one.regions} <= {"3", "5", "8"}
    # Blind, the same is asked, and the image makes no difference.
    other = replace(records[0], pixels=np.ascontiguousarray(records[0].pixels[:, ::-1]))
    first, second = (
        list(examine(model, [hidden(record)], words).raw()) for record in (records[0], other)
    )
    assert first == second
    seen = list(examine(model, records[:1], words).raw())
    assert [each.get("phrase") for each in first if each["task"] == "located"] == [
        each.get("phrase") for each in seen if each["task"] == "located"
    ]
    assert set(
        figures(examine(model, [hidden(record) for record in records], words), len(records))
    ) == set(found)


def told(
    truth: str, said: str, iou: float | None = None, modality: str = "sar", kind: str = "box"
) -> dict[str, Any]:
    """A region as an exam keeps it."""
    return {
        "kind": kind,
        "truth": truth,
        "said": said,
        "free": said,
        "sure": 0.9,
        "iou": iou,
        "made": False,
        "modality": modality,
        "caption": f"a {said}",
        "true_caption": f"a {truth}",
        "image": 0,
    }


def test_figures_are_also_of_each_word_and_each_sensor() -> None:
    answers = Answers(
        regions=[
            told("ship", "ship", 0.5),
            told("ship", "tank", 0.7),
            told("tank", "tank", None, "optical"),
            told("ship", "tank", 0.1, kind="point"),
        ],
        ground=[
            {"image": 0, "word": "road", "modality": "sar", "shared": 5, "either": 10},
            {"image": 1, "word": "road", "modality": "sar", "shared": 90, "either": 90},
            {"image": 2, "word": "road", "modality": "sar", "shared": 0, "either": 0},
        ],
    )
    found = figures(answers, 3)
    assert found["region_top1"] == pytest.approx(2 / 3)
    assert found["region_top1/ship"] == pytest.approx(1 / 2)
    assert found["region_top1/tank"] == 1
    assert found["mask_miou/ship"] == found["mask_miou"] == pytest.approx(0.6)
    assert "mask_miou/tank" not in found
    assert found["iou/road"] == pytest.approx(95 / 100)  # over all pixels
    assert found["miou/road"] == pytest.approx((0.5 + 1) / 2)  # over the images that have any
    sensors = by_sensor(answers, lambda mine: figures(mine, 3))
    assert sensors["optical"]["region_free_top1"] == 1
    assert sensors["sar"]["region_free_top1"] == pytest.approx(1 / 2)


def test_the_commonest_word_is_what_knows_nothing_but_how_often_words_are_said() -> None:
    answers = Answers(
        regions=[
            told("ship", "tank"),
            told("ship", "tank"),
            told("tank", "tank"),
            told("ship", "ship"),
        ],
        scenes=[
            {"truth": truth, "said": "?", "modality": "sar", "image": 0}
            for truth in ("field", "field", "forest")
        ],
        described=[
            {"named": [], "there": there, "said": "", "truth": ""}
            for there in (["ship", "tank"], ["ship"])
        ],
        questions=[
            {"kind": kind, "truth": truth, "said": "?"}
            for kind, truth in (
                ("yes/no", "no"),
                ("yes/no", "no"),
                ("yes/no", "yes"),
                ("count", "two"),
                ("count", "two"),
                ("count", "three"),
                ("count", "ten"),
            )
        ],
    )
    found = figures(commonest(answers), 1)
    assert (
        found["region_top1"]
        == found["region_free_top1"]
        == found["caption_word"]
        == pytest.approx(3 / 4)
    )
    assert found["scene_top1"] == pytest.approx(2 / 3)
    assert found["scene_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["yes_no"] == pytest.approx(2 / 3)
    assert found["count_within_one"] == pytest.approx(3 / 4)
    assert not {"ece", "mask_miou", "find_ap50", "pr_at_50"} & set(found)
    assert figures(commonest(Answers()), 1) == {}


def test_words_of_like_meaning_are_near() -> None:
    said = ["ship", "boat", "a tank", ""]
    same, near, far, nothing = similarities(said, ["ship", "ship", "ship", "ship"]) or []
    assert same == pytest.approx(1, abs=1e-5)
    assert same > near > far > nothing == 0
    assert similarities([""], [""]) == [0.0]


def test_a_caption_is_to_hold_the_word_that_the_true_one_holds() -> None:
    pairs = [("a quay", "a quay"), ("a harbour", "a harbour"), ("a ship", "a harbour")]
    cases = [
        told("harbour", "harbour") | {"caption": caption, "true_caption": true_caption}
        for caption, true_caption in pairs
    ]
    assert figures(Answers(regions=cases), 1)["caption_word"] == pytest.approx(0.5)


def test_options_and_phrases_of_a_source_are_asked(taught: EarthGPTX) -> None:
    sample = samples()[0]
    [lesson] = [each for each in sample.lessons if isinstance(each, Find)][:1]
    choice = Choice(
        wordings=("what is shown?", "name it"), options=("a", "b"), right="b", task="scenes"
    )
    plain = Record(
        pixels=sample.pixels, modality=sample.modality, metres_per_pixel=None, regions=()
    )
    region = Region(labels=("x",), mask=lesson.masks[0], stuff=True, phrase="the one")
    records = [
        replace(plain, choices=(choice, replace(choice, right="a", task="counts"))),
        replace(plain, regions=(region,)),
    ]
    answers = examine(taught, records, ())
    assert [(each["wording"], each["of"]) for each in answers.choices] == [
        (0, "scenes"),
        (1, "scenes"),
        (0, "counts"),
        (1, "counts"),
    ]
    assert {each["said"] for each in answers.choices} <= {"a", "b"}
    found = figures(answers, len(records))
    assert found["choice_accuracy"] == 0.5, "each question is there with either answer"
    assert found["choice_accuracy/scenes"] + found["choice_accuracy/counts"] == 1
    assert found["choice_accuracy_lowest_wording"] <= 0.5
    assert figures(commonest(answers), len(records))["choice_accuracy"] == 0.5
    [told] = [each for each in answers.located if each["kind"] == "told"]
    assert told["phrase"] == "the one"
    shared, either = told["pixels"]
    assert found["phrase_oiou"] == pytest.approx(shared / either)
    assert found["phrase_miou"] == pytest.approx(told["mask_iou"])
    assert found["phrase_pr_at_50"] in (0, 1)
