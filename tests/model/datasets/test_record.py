"""Records: objects stay on their pixels however an image is cut and turned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.records import a_record, ship


@given(
    y=st.integers(0, 85),
    x=st.integers(0, 85),
    y0=st.integers(-30, 60),
    x0=st.integers(-30, 60),
    side=st.integers(20, 120),
    quarters=st.integers(0, 3),
    flipped=st.booleans(),
)
@settings(max_examples=60)
def test_an_object_stays_on_its_pixels_however_its_image_is_cut_and_turned(
    y: int, x: int, y0: int, x0: int, side: int, quarters: int, flipped: bool
) -> None:
    cut = a_record(ship(y, x)).cropped(y0, x0, side, 64).turned(quarters, flipped=flipped)
    bright = cut.pixels[0] > 100
    inside = np.zeros((64, 64), bool)
    for region in cut.regions:
        inside |= region.mask.window(0, 0, 64, 64)
    unknown = cut.ignored if cut.ignored is not None else np.zeros((64, 64), bool)
    # What is bright is an object or unknown, but for the edge that resampling blurs.
    edge = 2 + int(64 / side)
    from scipy import ndimage

    near = ndimage.binary_dilation(inside | unknown, iterations=edge)
    assert not (bright & ~near).any()
    if cut.regions:
        core = ndimage.binary_erosion(inside, iterations=edge)
        assert bright[core].all()
    assert cut.metres_per_pixel == pytest.approx(2.0 * side / 64)


def test_what_is_cut_to_a_sliver_is_not_taught_either_way() -> None:
    cut = a_record(ship(40, 90)).cropped(40, 0, 91, 91)
    assert not cut.regions
    assert cut.ignored is not None
    assert cut.ignored.sum() > 0
