"""What is large is seen on the halved image too, and comes back in pixels of the whole one."""

import itertools
from dataclasses import astuple

import numpy as np
import pytest
import torch

from earthgptx.model.evaluation.metrics import box_iou
from earthgptx.model.inference import pyramid
from earthgptx.model.inference.session import Session
from earthgptx.model.interface.region import Box
from earthgptx.model.network.earthgptx import EarthGPTX
from tests.model.lessons import NAMES, SIDE, samples

LARGE_PX = 44


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Twice as large as what was learned: half of it is what was learned."""
    learned = np.stack([sample.pixels for sample in samples()])
    return torch.from_numpy(learned.repeat(2, axis=2).repeat(2, axis=3))


def test_large_objects_are_taken_from_both_in_pixels_of_the_whole_and_once(
    taught: EarthGPTX, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "LARGE_PX", LARGE_PX)
    modalities, phrases = [sample.modality for sample in samples()], [[name] for name in NAMES]
    learned = torch.from_numpy(np.stack([sample.pixels for sample in samples()]))
    halved = Session(taught, learned, modalities).find(phrases)
    found = pyramid.find(Session(taught, pixels, modalities), pixels, modalities, phrases)
    taken = 0
    for [both], [coarse] in zip(found, halved, strict=True):
        boxes = [one.box for one in both.instances if one.box is not None]
        assert all(box_iou(one, other) <= 0.5 for one, other in itertools.combinations(boxes, 2))
        for small in coarse.instances:
            assert small.box is not None
            box = Box(*(2 * edge for edge in astuple(small.box)))
            if max(box.x1 - box.x0, box.y1 - box.y0) < LARGE_PX:
                continue
            [hit] = [one for one in both.instances if one.box and box_iou(one.box, box) > 0.5]
            assert hit.score >= small.score
            if hit.box == box:
                taken += 1
                assert hit.mask is not None
                assert small.mask is not None
                assert hit.mask.area == 4 * small.mask.area
                assert (hit.mask.y0, hit.mask.x0) == (2 * small.mask.y0, 2 * small.mask.x0)
    assert taken >= 4


def test_small_ones_are_those_of_the_whole_image_and_the_ground_is_of_both(
    taught: EarthGPTX, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "LARGE_PX", 10 * SIDE)
    modalities, phrases = [sample.modality for sample in samples()], [[name] for name in NAMES]
    session = Session(taught, pixels, modalities)
    learned = torch.from_numpy(np.stack([sample.pixels for sample in samples()]))
    fine, coarse = session.find(phrases), Session(taught, learned, modalities).find(phrases)
    for both, one, other in zip(
        pyramid.find(session, pixels, modalities, phrases), fine, coarse, strict=True
    ):
        assert both[0].instances == one[0].instances
        doubled = other[0].scores.repeat(2, axis=0).repeat(2, axis=1)
        assert np.abs(both[0].scores - (0.75 * one[0].scores + 0.25 * doubled)).max() <= 0.5


def test_sides_that_halve_to_no_whole_token_are_padded_and_cut_again(tiny: EarthGPTX) -> None:
    step = tiny.config.token_px
    pixels = torch.randint(0, 255, (1, 3, 3 * step, 5 * step), dtype=torch.uint8)
    [[found]] = pyramid.find(Session(tiny, pixels, ["sar"]), pixels, ["sar"], [["ship"]], least=0.0)
    assert found.scores.shape == (3 * step, 5 * step)
    for one in found.instances:
        assert one.box is not None
        assert one.box.x1 <= 5 * step
        assert one.box.y1 <= 3 * step
    assert pyramid.find(Session(tiny, pixels, ["sar"]), pixels, ["sar"], [[]]) == [[]]


def test_a_name_is_as_likely_as_on_both_levels(tiny: EarthGPTX) -> None:
    pixels = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    halved = (
        pixels.float()
        .unflatten(3, (32, 2))
        .unflatten(2, (32, 2))
        .mean(dim=(3, 5))
        .round()
        .to(torch.uint8)
    )
    names, question = ("ship", "tank", "dock"), "what is this?"
    both = pyramid.choose(
        Session(tiny, pixels, ["sar", "optical"]), pixels, ["sar", "optical"], question, names
    )
    one, other = (
        Session(tiny, each, ["sar", "optical"]).choose(question, names) for each in (pixels, halved)
    )
    for image, shares in enumerate(both):
        assert sum(shares.values()) == pytest.approx(1)
        wanted = np.array([one[image][name] * other[image][name] for name in names]) ** 0.5
        assert [shares[name] for name in names] == pytest.approx(wanted / wanted.sum(), abs=1e-5)
