"""It can learn: a tiny model says exactly what it was taught, and outlines it."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from earthgptx.model.inference.session import Session
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.perception import STRIDE
from earthgptx.model.samples.sample import Describe, Find, Locate, Refer, Sample
from earthgptx.model.training.objective import losses
from tests.model.lessons import ABSENT, NAMES, SIDE, samples


def iou(found: Mask | None, truth: Mask) -> float:
    if found is None:
        return 0.0
    one, other = (mask.window(0, 0, SIDE, SIDE) for mask in (found, truth))
    return float((one & other).sum() / (one | other).sum())


def overlap(one: Box, other: Box) -> float:
    width, height = (
        min(one.x1, other.x1) - max(one.x0, other.x0),
        min(one.y1, other.y1) - max(one.y0, other.y0),
    )
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (one, other)) - shared)


def ask(model: EarthGPTX, batch: list[Sample]) -> Session:
    pixels = torch.stack([torch.from_numpy(sample.pixels) for sample in batch])
    return Session(
        model, pixels, [sample.modality for sample in batch], [sample.prompts for sample in batch]
    )


@pytest.fixture(scope="module")
def session(taught: EarthGPTX) -> Session:
    return ask(taught, samples())


def test_it_is_small(taught: EarthGPTX) -> None:
    assert sum(weight.numel() for weight in taught.parameters()) < 1_000_000


def test_prompts_get_their_words_and_masks(session: Session) -> None:
    for sample, answers in zip(samples(), session.refer(), strict=True):
        lessons = {
            lesson.prompt_id: lesson for lesson in sample.lessons if isinstance(lesson, Refer)
        }
        assert [answer.prompt_id for answer in answers] == ["a", "b"]
        for answer in answers:
            lesson = lessons[answer.prompt_id]
            assert (answer.label, answer.caption, answer.cut) == (
                lesson.label,
                lesson.caption,
                False,
            )
            assert iou(answer.instance.mask, lesson.mask) > 0.9
            assert answer.instance.presence > 0.9


@pytest.mark.parametrize("drawn", [Box, Mask])
def test_an_object_ends_where_the_drawn_box_or_mask_does(
    taught: EarthGPTX, drawn: type[Box] | type[Mask]
) -> None:
    sample = samples(1)[0]
    whole = next(prompt for prompt in sample.prompts if isinstance(prompt.place, Box))
    assert isinstance(whole.place, Box)
    half = replace(whole.place, x1=whole.place.centre.x)
    place = (
        half
        if drawn is Box
        else Mask.from_array(VisualPrompt(id="b", place=half).inside(SIDE, SIDE))
    )
    session = ask(taught, [replace(sample, prompts=(replace(whole, place=place),))])
    mask = session.refer()[0][0].instance.mask
    assert mask is not None
    assert mask.x0 + mask.width <= half.x1 + 2 * STRIDE
    assert session.segment()[0][0].mask == mask


def test_an_object_is_found_once_however_many_peaks_it_has(taught: EarthGPTX) -> None:
    model = copy.deepcopy(taught)
    with torch.no_grad():
        model.perception.centre_bias.add_(6)  # nearly every place of an object is a peak
    for one in ask(model, samples(1)).find([[NAMES[0]]])[0]:
        boxes = [each.box for each in one.instances if each.box is not None]
        assert len(boxes) >= 2
        assert max(overlap(a, b) for a, b in itertools.combinations(boxes, 2)) <= 0.5


def test_given_names_get_a_share_each_and_the_right_one_most(session: Session) -> None:
    for number, answers in enumerate(session.refer(NAMES)):
        for answer in answers:
            assert answer.label == NAMES[number]
            assert sum(answer.labels.values()) == pytest.approx(1, abs=1e-5)
            assert max(answer.labels, key=lambda name: answer.labels[name]) == NAMES[number]
            assert answer.caption.startswith("a ")


def test_every_object_of_a_phrase_is_found_and_what_is_not_there_is_not(session: Session) -> None:
    batch = samples()
    for sample, (there, absent) in zip(
        batch, session.find([[name, ABSENT] for name in NAMES]), strict=True
    ):
        lesson = next(lesson for lesson in sample.lessons if isinstance(lesson, Find))
        assert there.presence > 0.9
        assert len(there.instances) == 2
        for mask in lesson.masks:
            assert max(iou(instance.mask, mask) for instance in there.instances) > 0.9
        assert there.scores.shape == (SIDE, SIDE)
        inside = np.logical_or.reduce([mask.window(0, 0, SIDE, SIDE) for mask in lesson.masks])
        assert ((there.scores >= 128) == inside).mean() > 0.97
        assert absent.presence < 0.1
        assert absent.scores.max() < 128
        assert all(instance.score < 0.1 for instance in absent.instances)


def test_what_is_seen_is_found_whatever_is_held_of_the_whole_image(
    taught: EarthGPTX, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = samples(1)
    seen = ask(taught, batch).find([[NAMES[0]]])[0][0]
    logits, none = taught.language.logits, taught.vocabulary.mark("none")
    doubt = torch.zeros(taught.config.language.vocabulary)
    doubt[none] = 50
    monkeypatch.setattr(taught.language, "logits", lambda hidden: logits(hidden) + doubt)
    doubted = ask(taught, batch).find([[NAMES[0]]])[0][0]
    assert doubted.presence < 0.1
    assert len(doubted.instances) == 2
    assert [each.score for each in doubted.instances] == [each.score for each in seen.instances]
    assert doubted.scores.max() < 128


def test_the_one_object_of_a_phrase_is_located_by_box_and_mask(session: Session) -> None:
    phrases = [[f"the western {name}", f"the eastern {name}", f"the {ABSENT}"] for name in NAMES]
    for sample, (west, east, absent) in zip(samples(), session.locate(phrases), strict=True):
        masks = [
            lesson.mask
            for lesson in sample.lessons
            if isinstance(lesson, Locate) and lesson.mask is not None
        ]
        for answer, mask in zip((west, east), masks, strict=True):
            assert iou(answer.instance.mask, mask) > 0.9
            assert overlap(answer.box, mask.box) > 0.9
            assert answer.instance.presence > 0.9
        assert absent.instance.presence < 0.1


def test_boxes_are_ordered_even_from_a_model_that_knows_nothing(tiny: EarthGPTX) -> None:
    for answers in ask(tiny, samples()).locate([["a ship", "the tank", "北の船"]] * 8):
        for answer in answers:
            assert 0 <= answer.box.x0 < answer.box.x1 <= SIDE
            assert 0 <= answer.box.y0 < answer.box.y1 <= SIDE


def test_a_model_that_knows_nothing_says_words_only(tiny: EarthGPTX) -> None:
    session = ask(tiny, samples())
    for reply in session.answer([(image, "what is this?", ("a",)) for image in range(8)]):
        assert reply.text
        assert reply.cut
        assert 0 <= reply.likelihood < 1


def test_what_is_known_is_put_into_words_as_what_it_is_known_to_be(taught: EarthGPTX) -> None:
    batch = samples()
    session = ask(taught, batch)
    labels = [[answer.label for answer in answers] for answers in session.refer(NAMES)]
    said, plain = session.caption(labels), session.refer(NAMES)
    assert [[one.caption for one in each] for each in said] == [
        [one.caption for one in each] for each in plain
    ]
    others = session.caption([["airport"] * len(each) for each in labels])
    assert [len(each) for each in others] == [len(sample.prompts) for sample in batch]


def test_a_scene_is_described_and_its_words_are_grounded(session: Session) -> None:
    for sample, answer in zip(samples(), session.describe(), strict=True):
        [lesson] = [lesson for lesson in sample.lessons if isinstance(lesson, Describe)]
        assert answer.caption == " ".join(text for text, _ in lesson.pieces)
        [(phrase, instance)] = answer.phrases
        [(text, mask)] = [(text, mask) for text, mask in lesson.pieces if mask is not None]
        assert phrase == text
        assert iou(instance.mask, mask) > 0.9


def test_the_likeliest_of_given_answers_is_chosen(session: Session) -> None:
    for share in session.choose("what is this?", [f"a {name}" for name in NAMES]):
        assert sum(share.values()) == pytest.approx(1, abs=1e-5)
    counted = session.choose("how many ships?", ["two", "a ship"])
    assert counted[0]["two"] > 0.9


def test_questions_are_answered(session: Session) -> None:
    counted = session.answer(
        [(image, f"how many {name}s?", ()) for image, name in enumerate(NAMES)]
    )
    assert [(each.text, each.cut) for each in counted] == [("two", False)] * len(NAMES)
    assert all(each.likelihood > 0.5 for each in counted)
    named = session.answer([(image, "what is this?", ("a",)) for image in range(len(NAMES))])
    assert [(each.text, each.cut) for each in named] == [(f"a {name}", False) for name in NAMES]


def test_an_image_alone_gets_the_answers_that_it_gets_in_a_batch(
    taught: EarthGPTX, session: Session
) -> None:
    together = list(
        zip(
            session.refer(NAMES),
            session.find([[name, ABSENT] for name in NAMES]),
            session.describe(),
            strict=True,
        )
    )
    for number in (5, 0, 2):
        alone = ask(taught, [samples()[number]])
        [referred], [found], [described] = (
            alone.refer(NAMES),
            alone.find([[NAMES[number], ABSENT]]),
            alone.describe(),
        )
        refers, finds, describes = together[number]
        for one, other in zip(referred, refers, strict=True):
            assert (one.label, one.caption, one.instance.mask) == (
                other.label,
                other.caption,
                other.instance.mask,
            )
            assert one.instance.score == pytest.approx(other.instance.score, abs=1e-4)
            assert one.labels == pytest.approx(other.labels, abs=1e-4)
        for mine, theirs in zip(found, finds, strict=True):
            assert np.abs(mine.scores.astype(int) - theirs.scores.astype(int)).max() <= 1
            assert [i.mask for i in mine.instances] == [i.mask for i in theirs.instances]
        assert described.caption == describes.caption
        phrases = [f"the western {NAMES[number]}", f"the eastern {NAMES[number]}"]
        [own] = alone.locate([phrases])
        batch = session.locate([phrases if at == number else [] for at in range(8)])[number]
        assert [answer.box for answer in own] == [answer.box for answer in batch]
        assert [answer.instance.mask for answer in own] == [a.instance.mask for a in batch]


def test_the_same_batch_gives_the_same_bytes(taught: EarthGPTX) -> None:
    first, second = (ask(taught, samples()).find([[name] for name in NAMES]) for _ in range(2))
    for (one,), (other,) in zip(first, second, strict=True):
        assert one.scores.tobytes() == other.scores.tobytes()


def test_an_empty_mask_is_not_silent(taught: EarthGPTX) -> None:
    model = copy.deepcopy(taught)
    with torch.no_grad():
        model.perception.instance_query[-1].weight.zero_()  # type: ignore[index,union-attr]
        model.perception.instance_query[-1].bias.zero_()  # type: ignore[index,union-attr]
        model.perception.presence.bias.fill_(-50)
    for answer in ask(model, samples(1)).refer()[0]:
        assert answer.instance.mask is None
        assert answer.instance.presence < 0.01
        assert answer.instance.score < 0.01


def test_every_part_learns(tiny: EarthGPTX) -> None:
    tiny.zero_grad()
    one, other = samples(2)
    batch = [replace(one, metres_per_pixel=2.0), replace(other, metres_per_pixel=None)]
    losses(tiny, batch)["total"].backward()
    still = [
        name
        for name, weight in tiny.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum()
    ]
    assert all("mask_token" in name or "conv.model.layernorm" in name for name in still), still
    tiny.zero_grad()
