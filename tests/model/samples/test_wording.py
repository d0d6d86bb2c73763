import numpy as np
import pytest

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.samples.questions import caption
from earthgptx.model.samples.wording import lasting


@pytest.mark.parametrize(
    ("said", "lasts"),
    [
        ("a car in the upper left, with two more around", "a car"),
        ("a car in the centre, alone", "a car"),
        ("water in the lower centre", "water"),
        (
            "a dark ship, 160 m long and 30 m wide, moored at a quay, bow to the south",
            "a dark ship, moored at a quay, bow to the south",
        ),
        ("a white storage tank, 30 m across", "a white storage tank"),
        ("a tower in the old town, among many", "a tower in the old town"),
        ("", ""),
    ],
)
def test_what_of_a_caption_holds_on_a_map(said: str, lasts: str) -> None:
    assert lasting(said) == lasts


@pytest.mark.parametrize("count", [1, 2, 5, 30])
@pytest.mark.parametrize("corner", [0, 20, 40, 58])
def test_no_caption_that_is_made_of_geometry_keeps_a_place_in_its_image(
    count: int, corner: int
) -> None:
    mask = Mask.from_array(np.ones((4, 4), bool), y0=corner, x0=corner)
    region = Region(labels=("aircraft",), mask=mask)
    record = Record(
        pixels=np.zeros((3, 64, 64), np.uint8),
        modality="optical",
        metres_per_pixel=None,
        regions=(region,) * count,
    )
    assert lasting(caption(region, record)) == "an aircraft"
