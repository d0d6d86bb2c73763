import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.model.interface.errors import ModelError, RegionError
from earthgptx.model.interface.prompt import Place, VisualPrompt, rasterise
from earthgptx.model.interface.region import Box, Mask, Point, Scribble

SHAPE = (48, 80)


def places() -> st.SearchStrategy[Place]:
    x, y = st.floats(0, SHAPE[1] - 1), st.floats(0, SHAPE[0] - 1)
    points = st.builds(Point, x, y)
    boxes = st.builds(
        lambda x0, y0, w, h: Box(x0, y0, x0 + w, y0 + h),
        x,
        y,
        st.floats(0.1, 60),
        st.floats(0.1, 40),
    )
    scribbles = st.builds(
        lambda points, width: Scribble(tuple(points), width),
        st.lists(points, min_size=1, max_size=5),
        st.floats(1.5, 9),
    )
    masks = st.integers(0, 2**16).map(
        lambda seed: Mask.from_array(
            np.random.default_rng(seed).random((7, 9)) > 0.4, y0=seed % 41, x0=seed % 71
        )
    )
    return st.one_of(points, boxes, scribbles, masks)


@given(places())
def test_a_prompt_survives_json(place: Place) -> None:
    prompt = VisualPrompt(id="p", place=place)
    assert VisualPrompt.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


@given(places())
def test_a_raster_keeps_area_and_place(place: Place) -> None:
    prompt = VisualPrompt(id="p", place=place)
    coverage, middle = rasterise([prompt], *SHAPE, 16)[0]
    assert coverage.shape == (3, 5)
    assert 0 <= coverage.min() <= coverage.max() <= 1
    assert middle.sum() == pytest.approx(1, abs=1e-5)
    box = prompt.box(*SHAPE)
    if isinstance(place, Box):
        assert coverage.sum() * 256 == pytest.approx(
            (box.x1 - box.x0) * (box.y1 - box.y0), rel=1e-3, abs=1e-3
        )
    else:
        assert coverage.sum() * 256 == pytest.approx(prompt.inside(*SHAPE).sum(), rel=1e-4)
    rows = (middle.sum(axis=1) * (np.arange(3) + 0.5)).sum() * 16
    assert rows == pytest.approx(np.clip(box.centre.y, 8, SHAPE[0] - 8), abs=1e-3)


def test_two_points_in_one_cell_are_told_apart() -> None:
    near = [VisualPrompt(id=str(x), place=Point(x, 20.0)) for x in (34.0, 46.0)]
    one, other = rasterise(near, *SHAPE, 16)
    assert np.abs(one[1] - other[1]).max() > 0.2


def test_a_scribble_is_as_wide_as_it_says() -> None:
    drawn = Scribble((Point(10, 20), Point(60, 20)), 4).drawn(*SHAPE)
    assert drawn[:, 30].sum() == 4
    assert 50 <= drawn[20].sum() <= 55


@pytest.mark.parametrize(
    "place",
    [Point(-3, 5), Point(5, 99), Box(90, 2, 95, 9), Mask.from_array(np.ones((3, 3), bool), y0=60)],
)
def test_a_prompt_outside_the_image_is_named(place: Place) -> None:
    with pytest.raises(
        RegionError, match="prompt lost .* covers no pixel of the image of 48 x 80 px"
    ):
        rasterise([VisualPrompt(id="lost", place=place)], *SHAPE, 16)


@pytest.mark.parametrize(
    "record",
    [
        {"id": "p"},
        {"point": [1, 2]},
        {"id": "p", "point": [1, 2, 3]},
        {"id": "p", "box": [5, 5, 1, 1]},
        {"id": "p", "scribble": [], "width": 3},
    ],
)
def test_what_is_no_prompt_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        VisualPrompt.from_json(record)
