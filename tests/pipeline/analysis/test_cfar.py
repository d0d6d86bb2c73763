from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point
from earthgptx.model.interface.tile import TileInput
from earthgptx.pipeline.analysis.cfar import GUARD_PX, RING_PX, BoxSums, Cfar, cfar_scores
from earthgptx.pipeline.analyst import check_output


def tile(pixels: np.ndarray, **more: Any) -> TileInput:
    everywhere = np.ones(pixels.shape, bool)
    fields: dict[str, Any] = {
        "pixels": np.stack([pixels] * 3),
        "valid": everywhere,
        "wanted": everywhere,
        "modality": "sar",
        "metres_per_pixel": 10.0,
        "phrases": ("ship",),
        "prompts": (),
        "describe": False,
        **more,
    }
    return TileInput(names=fields["phrases"], **fields)


def sea(side: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(10, 30, (side, side)).astype(np.uint8)


@given(st.integers(0, RING_PX), st.integers(0, 2**32 - 1))
def test_box_sums_are_exact(radius: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 700**2, (9, 13)).astype(np.uint32)
    sums = BoxSums(values).within(radius)
    for row, col in ((0, 0), (4, 6), (8, 12)):
        window = values[
            max(row - radius, 0) : row + radius + 1, max(col - radius, 0) : col + radius + 1
        ]
        assert sums[row, col] == window.sum(dtype=np.uint64) % 2**32


def test_the_score_is_what_its_definition_says() -> None:
    pixels = sea()
    pixels[100, 100] = 90
    at = (100, 100)
    distance = np.maximum(*np.abs(np.mgrid[:200, :200] - 100))
    ring = pixels[(distance > GUARD_PX) & (distance <= RING_PX)] * 3.0
    cell = pixels[99:102, 99:102].mean() * 3
    expected = (cell - ring.mean()) / (ring.std() + 3 * 8.0) * 128 / 3.0
    scores = cfar_scores(
        np.stack([pixels] * 3), np.ones(pixels.shape, bool), floor=8.0, max_background=256
    )
    assert scores[at] == int(np.clip(expected, 0, 255)) > 0


def test_a_ship_is_outlined_and_the_tile_border_is_left_to_the_neighbour() -> None:
    pixels = sea()
    pixels[90:96, 100:120] = 220
    pixels[5:9, 5:9] = 220
    [answer] = Cfar.load().analyse([tile(pixels)])
    [found] = [g for g in answer.groundings if g.score >= 0.8]
    assert found.label == "ship"
    assert found.mask.window(90, 100, 96, 120).all()
    assert found.mask.area < 2 * 6 * 20
    assert answer.scores[0, :RING_PX].max() == 0


def test_bright_land_is_no_place_for_a_ship_but_for_another_target() -> None:
    pixels = np.random.default_rng(0).integers(70, 90, (200, 200)).astype(np.uint8)
    pixels[90:96, 100:120] = 255
    ship, target = (
        Cfar.load().analyse([tile(pixels, phrases=(phrase,))])[0]
        for phrase in ("ship", "bright target")
    )
    assert not ship.groundings
    assert target.groundings


def test_flat_and_invalid_ground_raise_no_alarm() -> None:
    flat = np.full((200, 200), 50, np.uint8)
    assert Cfar.load().analyse([tile(flat)])[0].scores.max() == 0
    nothing = np.zeros((200, 200), bool)
    assert Cfar.load().analyse([tile(flat, valid=nothing, wanted=nothing)])[0].scores.max() == 0


@pytest.mark.parametrize(
    ("place", "present"),
    [
        (Point(110.5, 92.5), True),
        (Point(110.5, 98.0), True),
        (Point(60.0, 60.0), False),
        (Box(95, 85, 125, 100), True),
        (Mask.from_array(np.ones((12, 24), bool), y0=87, x0=98), True),
        (Box(50, 50, 60, 60), False),
    ],
)
def test_every_kind_of_prompt_is_answered_once(place: Point | Box | Mask, present: bool) -> None:
    pixels = sea()
    pixels[90:96, 100:120] = 220
    question = tile(pixels, prompts=(VisualPrompt(id="p", place=place),))
    [answer] = Cfar.load().analyse([question])
    check_output(answer, question)
    [one] = [g for g in answer.groundings if g.prompt_id == "p"]
    assert one.label == "ship"
    assert one.present == present
    assert (one.score >= 0.5) == present
