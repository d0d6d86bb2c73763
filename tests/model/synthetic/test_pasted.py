"""Objects drawn on real images."""

from dataclasses import replace

import numpy as np
import pytest

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import Modality
from earthgptx.model.synthetic.pasted import LENGTHS_PX, PASTED, may_paste, pasted


def test_ships_are_as_large_as_the_scale_of_their_image_says() -> None:
    """Else a scale of ten metres would mean that there are none."""
    ground = np.full((3, 96, 96), 40, np.uint8)
    words = frozenset(PASTED["sar"])
    for seed in range(20):
        record = Record(
            pixels=ground, modality="sar", metres_per_pixel=4.0, regions=(), complete=words
        )
        drawn = pasted(record, np.random.default_rng(seed))
        assert drawn.metres_per_pixel == 4
        for region in drawn.regions:
            assert np.hypot(region.mask.width, region.mask.height) * 4 < 1.3 * 300


@pytest.mark.parametrize("sensor", sorted(PASTED))
def test_what_is_drawn_on_a_real_image_is_outlined_and_hides_what_lies_under_it(
    sensor: Modality,
) -> None:
    ground = np.full((3, 96, 96), 40, np.uint8)
    roof = Region(labels=("building",), mask=Mask.from_array(np.ones((20, 20), bool), y0=10, x0=10))
    record = Record(
        pixels=ground,
        modality=sensor,
        metres_per_pixel=0.5,
        regions=(roof,),
        complete=frozenset(("building", *PASTED[sensor])),
    )
    assert may_paste(record)
    assert not may_paste(
        replace(record, complete=frozenset(("building",)))
    )  # there may be some that nobody marked
    kept = 0
    for seed in range(30):
        drawn = pasted(record, np.random.default_rng(seed))
        longest_px = max(most for _, most in LENGTHS_PX.values())
        shortest_px = min(least for least, _ in LENGTHS_PX.values())
        assert 15 / longest_px <= (drawn.metres_per_pixel or 0) <= 300 / shortest_px
        seen = [region.mask.window(0, 0, 96, 96) for region in drawn.regions]
        assert np.sum(seen, axis=0).max(initial=0) <= 1
        old = [region for region in drawn.regions if region.label == "building"]
        kept += len(old)
        if not old and "building" not in drawn.complete:
            continue  # on another ground
        for region, inside in zip(drawn.regions, seen, strict=True):
            if region.label in PASTED[sensor]:
                assert abs(drawn.pixels.astype(int) - 40).max(axis=0)[inside].mean() > 10
    assert 5 < kept < 25
