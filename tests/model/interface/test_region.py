import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from earthgptx.model.interface.errors import RegionError
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)).filter(
    lambda inside: inside.any()
)


@given(masks, st.integers(-20, 20), st.integers(-20, 20))
def test_a_mask_keeps_its_pixels_and_its_place(inside: np.ndarray, y0: int, x0: int) -> None:
    mask = Mask.from_array(inside, y0=y0, x0=x0)
    height, width = inside.shape
    assert np.array_equal(mask.window(y0, x0, y0 + height, x0 + width), inside)
    assert mask.area == inside.sum()
    rows, cols = np.nonzero(inside)
    assert mask.box == Box(
        x0 + cols.min(), y0 + rows.min(), x0 + cols.max() + 1, y0 + rows.max() + 1
    )


@given(masks, st.tuples(*[st.integers(-15, 15)] * 4))
def test_a_window_of_a_mask_is_a_window_of_its_pixels(
    inside: np.ndarray, window: tuple[int, int, int, int]
) -> None:
    y0, x0, y1, x1 = window
    plane = np.zeros((60, 60), bool)
    plane[20 : 20 + inside.shape[0], 20 : 20 + inside.shape[1]] = inside
    expected = plane[20 + y0 : max(20 + y1, 20 + y0), 20 + x0 : max(20 + x1, 20 + x0)]
    assert np.array_equal(Mask.from_array(inside).window(*window), expected)


@given(masks, st.integers(-9, 9), st.integers(-9, 9))
def test_moving_there_and_back_changes_nothing(inside: np.ndarray, dx: int, dy: int) -> None:
    mask = Mask.from_array(inside)
    assert mask.moved(dx=dx, dy=dy).moved(dx=-dx, dy=-dy) == mask
    assert mask.moved(dx=dx, dy=dy).centre == mask.centre.moved(dx=dx, dy=dy)


def test_what_holds_nothing_is_refused() -> None:
    with pytest.raises(RegionError, match="no pixel"):
        Mask.from_array(np.zeros((3, 4), bool))
    with pytest.raises(RegionError, match=r"runs sum to 3"):
        Mask(0, 0, 2, 2, (1, 2))
    with pytest.raises(RegionError, match="is empty"):
        Box(3, 0, 3, 5)


@pytest.mark.parametrize(
    ("place", "pixels"),
    [
        (Point(1.5, 0.5), [(0, 1)]),
        (Point(9.0, 9.0), []),
        (Box(0.6, 0.2, 1.4, 1.0), [(0, 0), (0, 1)]),
        (Box(-5, -5, 1, 1), [(0, 0)]),
        (Mask(1, 2, 1, 2, (0, 2)), [(1, 2), (1, 3)]),
    ],
)
def test_a_prompt_is_drawn_on_the_pixels_that_it_touches(
    place: Point | Box | Mask, pixels: list[tuple[int, int]]
) -> None:
    drawn = VisualPrompt(id="p", place=place).inside(3, 4)
    assert drawn.shape == (3, 4)
    assert [tuple(at) for at in np.argwhere(drawn).tolist()] == pixels
