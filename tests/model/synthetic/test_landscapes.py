"""Made photographs of one kind of ground: what they are called, and that their objects lie where
they are drawn.
"""

import numpy as np

from earthgptx.model.datasets.record import SCENE_QUESTION
from earthgptx.model.datasets.registry import REGISTRY
from earthgptx.model.samples.questions import sample_from_record
from earthgptx.model.samples.sample import Answer
from earthgptx.model.synthetic.canvas import Canvas
from earthgptx.model.synthetic.landscapes import landscape
from earthgptx.model.synthetic.shapes import box, disc

SEEDS = range(40)


def test_every_kind_of_ground_is_made_and_asked_for_by_its_name() -> None:
    words = set()
    for seed in SEEDS:
        lessons = sample_from_record(landscape(seed, 64), np.random.default_rng(seed)).lessons
        [word] = [
            each.answer
            for each in lessons
            if isinstance(each, Answer) and each.question == SCENE_QUESTION
        ]
        words.add(word)
    assert words == set(REGISTRY["rsscn7"][0].words)


def test_a_seed_gives_always_the_same_image() -> None:
    one, other = landscape(3, 64), landscape(3, 64)
    assert (one.pixels == other.pixels).all()
    assert one.regions == other.regions
    assert (landscape(4, 64).pixels != one.pixels).any()


def test_cars_and_roofs_lie_apart_and_in_the_image() -> None:
    seen = 0
    for seed in SEEDS:
        record = landscape(seed, 128)
        roofs = [region.mask for region in record.regions if region.label == "building"]
        cars = [region.mask for region in record.regions if region.label == "car"]
        seen += len(roofs) + len(cars)
        covered = np.zeros((128, 128), int)
        for mask in cars:
            covered += mask.window(0, 0, 128, 128)
        assert covered.max(initial=0) <= 2  # a pixel that two share by halves
        assert {region.label for region in record.regions} <= {"building", "car"}
    assert seen > 100


def test_a_disc_is_the_same_as_a_spot_and_as_a_ring() -> None:
    tone = np.full(3, 200.0)
    by_ring, by_spot = (Canvas(np.zeros((3, 40, 40))) for _ in range(2))
    by_ring.put([disc(18.3, 21.9, 8)], tone)
    by_spot.spot(18.3, 21.9, 8, tone)
    assert abs(by_ring.layers - by_spot.layers).max() < 40  # a ring has twenty corners
    assert abs(by_ring.layers.sum() / by_spot.layers.sum() - 1) < 0.03


def test_what_lies_past_the_picture_is_cut() -> None:
    canvas = Canvas(np.zeros((1, 20, 20)))
    canvas.put([box(0, 10, 10, 4, 90)], np.array([100.0]))
    canvas.spot(60, 60, 5, np.array([100.0]))
    mask = canvas.mask([box(0, 10, 10, 4, 90)])
    assert mask is not None
    assert (canvas.layers[0] == 100).sum() == mask.area == 5 * 4
    assert canvas.mask([box(-30, 10, 10, 4, 90)]) is None
