"""Masks of instances on the cells that they may cover are those on all cells."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgptx.model.checkpoint.weights import untrained
from earthgptx.model.network.perception import OUTSIDE, Judged, Perception

ROWS, COLS = 12, 16
EDGE = st.floats(-6, 24, width=32) | st.integers(-12, 40).map(lambda halves: halves / 2)


@pytest.fixture(scope="module")
def perception() -> Perception:
    return untrained("tiny").perception


@settings(max_examples=60)
@given(
    boxes=st.lists(st.tuples(EDGE, EDGE, EDGE, EDGE), min_size=1, max_size=5),
    drawn=st.booleans(),
    half=st.booleans(),
)
def test_windows_hold_what_may_be_covered(
    perception: Perception,
    boxes: list[tuple[float, float, float, float]],
    drawn: bool,
    half: bool,
) -> None:
    noise = torch.Generator().manual_seed(len(boxes))
    width = perception.fused.out_channels
    kind = torch.bfloat16 if half else torch.float32
    pixels = torch.randn((2, width, ROWS, COLS), generator=noise).to(kind)
    queries = torch.randn((len(boxes), width), generator=noise).to(kind)
    predicted = torch.tensor(boxes, dtype=torch.float32)
    judged = Judged(queries, (predicted,), torch.zeros(len(boxes)))
    images = [at % 2 for at in range(len(boxes))]
    within = None
    if drawn:
        within = predicted.flip(0).clone()
        within[0] = float("nan")
    with torch.inference_mode():
        everywhere = perception.instance_masks(judged, images, pixels, within)
        windows = perception.masks_within(judged, images, pixels, within)
    for whole, (y0, x0, window) in zip(everywhere, windows, strict=True):
        rows, cols = window.shape
        found = torch.full_like(whole, OUTSIDE)
        found[y0 : y0 + rows, x0 : x0 + cols] = window
        covered = (whole > OUTSIDE).numpy()
        assert np.array_equal((found > OUTSIDE).numpy(), covered)
        assert torch.allclose(found, whole, atol=0.2 if half else 1e-3)
