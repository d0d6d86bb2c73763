from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthgptx.model.inference.instance_mask import instance_mask
from earthgptx.model.network.perception import OUTSIDE


def scored(*blocks: tuple[slice, slice], rows: int = 20, cols: int = 24) -> NDArray[np.float32]:
    """Log-odds of 4 in the blocks, of -4 around them, within cells 2 to 18."""
    found = np.full((rows, cols), OUTSIDE, np.float32)
    found[2:18, 2:18] = -4
    for block in blocks:
        found[block] = 4
    return found


def test_a_mask_is_in_pixels() -> None:
    mask = instance_mask(scored(np.s_[4:10, 6:14]), (0, 0), (6, 9), drawn=False)
    assert mask is not None
    assert (mask.y0, mask.x0, mask.height, mask.width) == (8, 12, 12, 16)


def test_only_the_piece_under_the_peak_is_the_object() -> None:
    two = scored(np.s_[4:8, 6:12], np.s_[12:17, 4:16])
    mask = instance_mask(two, (0, 0), (5, 8), drawn=False)
    assert mask is not None
    assert mask.area == 8 * 12
    beside = instance_mask(two, (0, 0), (10, 8), drawn=False)
    assert beside is not None
    assert beside.y0 == 24, "the largest piece, where none lies under the peak"


def test_a_slanting_line_is_one_piece() -> None:
    line = scored(*(np.s_[at : at + 1, at : at + 1] for at in range(4, 12)))
    line[line > 0] = 15
    mask = instance_mask(line, (0, 0), (4, 4), drawn=False)
    assert mask is not None
    assert mask.height == mask.width == 16


def test_what_lies_in_a_drawn_box_is_the_objects() -> None:
    mask = instance_mask(scored(np.s_[4:8, 6:12], np.s_[12:17, 4:16]), (0, 0), (5, 8), drawn=True)
    assert mask is not None
    assert mask.area == 8 * 12 + 10 * 24


def test_where_nothing_is_likely_there_is_no_mask() -> None:
    assert instance_mask(scored(), (0, 0), (5, 8), drawn=False) is None
    assert (
        instance_mask(np.full((20, 24), OUTSIDE, np.float32), (0, 0), (5, 8), drawn=False) is None
    )
