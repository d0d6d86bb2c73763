"""Lessons: what they say of an image, and that a phrase fits one object."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.samples.phrases import ABSENT, locates
from earthgptx.model.samples.questions import MOST_ABSENT, prompt_place, sample_from_record
from earthgptx.model.samples.sample import Find, Locate, Refer, Sample
from tests.model.records import a_record, located, ship, square


def test_only_one_object_fits_a_referring_phrase() -> None:
    record = a_record(ship(10, 10), ship(40, 60, 20), ship(80, 84, 8))
    lessons = {
        lesson.phrase: lesson
        for lesson in locates(record, record.regions, np.random.default_rng(0), 50)
        if isinstance(lesson, Locate)
    }
    found = {phrase: lesson.mask for phrase, lesson in lessons.items()}
    first, second, third = (region.mask for region in record.regions)
    assert found["the leftmost ship"] == found["the topmost ship"] == first
    assert found["the largest ship"] == found["the second ship from the left"] == second
    assert found["the rightmost ship"] == found["the smallest ship"] == third
    assert lessons["the largest ship"].among == (first, third)
    # Two that are alike: neither is the largest.
    twins = a_record(ship(10, 10), ship(12, 60))
    phrases = [
        lesson.phrase
        for lesson in locates(twins, twins.regions, np.random.default_rng(0), 50)
        if isinstance(lesson, Locate)
    ]
    assert not [
        phrase
        for phrase in phrases
        if "largest" in phrase or "smallest" in phrase or "topmost" in phrase
    ]


def test_a_phrase_may_say_how_its_object_looks_and_what_it_is_by() -> None:
    def building(colour: str, y: int, x: int) -> Region:
        return Region(
            labels=("building",), mask=square(y, x), caption=f"a {colour} building, 20 m long"
        )

    road = Region(
        labels=("road",),
        mask=Mask.from_array(np.ones((4, 100), bool), y0=12),
        stuff=True,
        caption="a road",
    )
    grey, white, far, other = (
        building(*told)
        for told in (("grey", 0, 5), ("white", 0, 60), ("white", 60, 30), ("white", 80, 70))
    )
    found = located(a_record(road, grey, white, far, other))
    assert found["the grey building"] == grey.mask
    assert found["the white building by the road"] == white.mask
    assert "the white building" not in found  # there are three
    assert "the building by the road" not in found  # the grey one is as near
    # One that lies little further away than another is by it as well.
    doubtful = located(a_record(road, white, building("white", 22, 60), other))
    assert not [phrase for phrase in doubtful if " by " in phrase]


def prompted_sample(record: Record) -> Sample:
    """The first sample of a record in which its objects have prompts."""
    drawn = (sample_from_record(record, np.random.default_rng(seed)) for seed in range(20))
    return next(each for each in drawn if any(isinstance(one, Refer) for one in each.lessons))


def test_lessons_say_what_is_there_and_what_is_known_not_to_be() -> None:
    record = a_record(ship(10, 10), ship(50, 50))
    sample = prompted_sample(record)
    finds = {lesson.phrase: lesson.masks for lesson in sample.lessons if isinstance(lesson, Find)}
    assert len(finds["ship"]) == len(finds["vessel"]) == 2
    assert finds["aircraft"] == ()
    assert "building" not in finds  # nothing is known of buildings
    refers = [lesson for lesson in sample.lessons if isinstance(lesson, Refer)]
    ids = {prompt.id for prompt in sample.prompts}
    assert {lesson.prompt_id for lesson in refers} == {each for each in ids if "idle" not in each}
    assert all(lesson.made for lesson in refers)  # "a ship in the upper left, with one more around"
    told = prompted_sample(a_record(replace(ship(10, 10), caption="a ship at anchor")))
    assert [(each.caption, each.made) for each in told.lessons if isinstance(each, Refer)] == [
        ("a ship at anchor", False)
    ]
    assert {each.phrase: len(each.masks) for each in sample.word_masks} == {
        "aircraft": 0,
        "ship": 2,
        "vessel": 2,
    }


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["point", "box", "free"]))
def test_a_prompt_points_at_its_object(seed: int, kind: str) -> None:
    from earthgptx.model.interface.prompt import VisualPrompt

    rng = np.random.default_rng(seed)
    inside = rng.random((14, 9)) < 0.6
    inside[5, 5] = True
    mask = Mask.from_array(inside, y0=20, x0=30)
    drawn = VisualPrompt(id="p", place=prompt_place(mask, rng, kind)).inside(64, 64)
    assert (drawn & mask.window(0, 0, 64, 64)).any()


def test_prompts_do_not_tell_whether_objects_are_there() -> None:
    """With objects or without, as many images have no prompt, and the others have as many."""
    box = np.ones((12, 9), bool)
    regions = tuple(
        Region(labels=("ship",), mask=Mask.from_array(box, y0=20 * at, x0=10 * at))
        for at in range(6)
    )
    counts = {}
    for there in (0, 1, 6):
        record = Record(
            pixels=np.zeros((3, 160, 160), np.uint8),
            modality="optical",
            metres_per_pixel=None,
            regions=regions[:there],
        )
        drawn = [sample_from_record(record, np.random.default_rng(seed)) for seed in range(600)]
        counts[there] = np.bincount([len(sample.prompts) for sample in drawn], minlength=9) / 600
        kinds = {type(each.place).__name__ for sample in drawn for each in sample.prompts}
        assert kinds == {"Point", "Box", "Scribble", "Mask"}
        named = {each.id for sample in drawn for each in sample.prompts}
        assert {name for name in named if name.startswith("idle")}
    assert np.abs(counts[0] - counts[1]).max() < 0.08
    assert np.abs(counts[0] - counts[6]).max() < 0.08
    assert counts[0][0] == pytest.approx(0.3, abs=0.06)


def test_several_absent_things_are_searched_for() -> None:
    record = replace(a_record(ship(10, 10)), complete=frozenset(ABSENT))
    finds = [one for one in prompted_sample(record).lessons if isinstance(one, Find)]
    assert sum(not one.masks for one in finds) == MOST_ABSENT > 1
