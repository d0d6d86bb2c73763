"""An image in memory is tiled and put together as a scene is."""

import numpy as np
import pytest

from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analysis.cfar import Cfar
from earthgptx.workflows.whole_image import find_in_image


def test_an_object_is_found_once_wherever_tiles_meet() -> None:
    noise = np.random.default_rng(0)
    pixels = noise.integers(10, 30, (3, 900, 1300)).astype(np.uint8)
    truth = []
    # In the middle of tiles, on their borders (every 384 px) and across a corner of four.
    for y, x in ((200, 200), (380, 600), (500, 764), (376, 376), (850, 1250)):
        pixels[:, y : y + 12, x : x + 16] = 230
        truth.append((x, y, x + 16, y + 12))

    def ask(tile: np.ndarray, valid: np.ndarray) -> TileInput:
        return TileInput(
            pixels=tile,
            valid=valid,
            wanted=valid,
            modality="sar",
            metres_per_pixel=1.0,
            phrases=("target",),
            prompts=(),
            names=(),
            describe=False,
        )

    found = find_in_image(Cfar(), Cfar.traits(), pixels, ask)
    assert len(found) == len(truth)
    for (_, box, _), expected in zip(
        sorted(found, key=lambda each: each[1].x0), sorted(truth), strict=True
    ):
        assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(expected, abs=2)
    assert {label for label, _, _ in found} == {"target"}
