from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.outline import outlined
from model.perception import OUTSIDE

JUDGED = (6.0, 4.0, 12.0, 8.0)


def scored(*blocks: tuple[slice, slice], rows: int = 20, cols: int = 24) -> NDArray[np.float32]:
    """Log-odds of 4 in the blocks, of -4 around them, within cells 2 to 18."""
    found = np.full((rows, cols), OUTSIDE, np.float32)
    found[2:18, 2:18] = -4
    for block in blocks:
        found[block] = 4
    return found


def test_an_edge_goes_halfway_to_where_the_mask_reaches_beyond_it_and_never_back() -> None:
    mask, box = outlined(scored(np.s_[4:10, 6:14]), (6, 9), JUDGED, drawn=False)
    assert mask is not None
    assert (mask.y0, mask.x0, mask.height, mask.width) == (8, 12, 12, 16)
    assert box == pytest.approx((6, 4, 13, 9))
    _, box = outlined(scored(np.s_[5:10, 8:10]), (6, 9), JUDGED, drawn=False)
    assert box == pytest.approx((6, 4, 12, 9))


def test_an_edge_lies_where_the_log_odds_cross_even() -> None:
    soft = scored(np.s_[4:10, 6:14])
    soft[4:10, 14] = -0.4
    _, box = outlined(soft, (6, 9), JUDGED, drawn=False)
    high, low = (1 / (1 + np.exp(-odds)) for odds in (4, -0.4))
    assert 2 * box[2] - JUDGED[2] == pytest.approx(13.5 + (high - 0.5) / (high - low))
    assert box[2] > 13


def test_only_the_piece_under_the_peak_is_the_object() -> None:
    two = scored(np.s_[4:8, 6:12], np.s_[12:17, 4:16])
    mask, box = outlined(two, (5, 8), JUDGED, drawn=False)
    assert mask is not None
    assert mask.area == 8 * 12
    assert box == pytest.approx(JUDGED)
    beside, _ = outlined(two, (10, 8), JUDGED, drawn=False)
    assert beside is not None
    assert beside.y0 == 24, "the largest piece, where none lies under the peak"


def test_a_slanting_line_is_one_piece() -> None:
    line = scored(*(np.s_[at : at + 1, at : at + 1] for at in range(4, 12)))
    line[line > 0] = 15
    mask, _ = outlined(line, (4, 4), (4.0, 4.0, 12.0, 12.0), drawn=False)
    assert mask is not None
    assert mask.height == mask.width == 16


def test_what_lies_in_a_drawn_box_is_the_objects_and_the_box_is_kept() -> None:
    mask, box = outlined(scored(np.s_[4:8, 6:12], np.s_[12:17, 4:16]), (5, 8), JUDGED, drawn=True)
    assert mask is not None
    assert mask.area == 8 * 12 + 10 * 24
    assert box == JUDGED


def test_where_nothing_is_likely_there_is_no_mask() -> None:
    assert outlined(scored(), (5, 8), JUDGED, drawn=False) == (None, JUDGED)
    assert outlined(np.full((20, 24), OUTSIDE, np.float32), (5, 8), JUDGED, drawn=False) == (None, JUDGED)
