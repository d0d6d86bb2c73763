"""Masks united and split by their runs, compared with the same drawn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from earthgptx.model.interface.region import Mask
from earthgptx.pipeline.objects.spans import split, union

drawn = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
placed = st.tuples(drawn.filter(np.any), st.integers(-7, 20), st.integers(-7, 20))


def draw(masks: list[Mask]) -> np.ndarray:
    canvas = np.zeros((60, 60), bool)
    for mask in masks:
        canvas |= mask.window(-20, -20, 40, 40)
    return canvas


@settings(max_examples=200)
@given(st.lists(placed, min_size=1, max_size=5))
def test_a_union_is_what_is_drawn_together(pieces: list[tuple[np.ndarray, int, int]]) -> None:
    masks = [Mask.from_array(inside, y0=y0, x0=x0) for inside, y0, x0 in pieces]
    assert union(masks) == Mask.from_array(draw(masks), y0=-20, x0=-20)


@settings(max_examples=200)
@given(placed, st.integers(1, 8))
def test_the_pieces_of_a_mask_are_its_pixels_in_each_cell(
    piece: tuple[np.ndarray, int, int], side: int
) -> None:
    inside, y0, x0 = piece
    mask = Mask.from_array(inside, y0=y0, x0=x0)
    cells = list(split(mask, side))
    assert len({(row, col) for row, col, _ in cells}) == len(cells)
    for row, col, part in cells:
        shown = mask.window(row * side, col * side, (row + 1) * side, (col + 1) * side)
        assert part == Mask.from_array(shown, y0=row * side, x0=col * side)
    assert sum(part.area for *_, part in cells) == mask.area


def test_an_object_as_wide_as_a_region_is_not_drawn() -> None:
    side = 200_000
    steps = [Mask(at, at, 1, 2, (0, 2)) for at in range(0, side, 1)]
    road = union(steps)
    assert (road.height, road.width, road.area) == (side, side + 1, 2 * side)
    assert sum(part.area for *_, part in split(road, 2048)) == 2 * side
