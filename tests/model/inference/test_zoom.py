"""A small object is outlined on a crop; the crop lies where its prompt does, and so does what is
seen in it.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.model.inference.analyst import EarthGPTXAnalyst
from earthgptx.model.inference.answers import Instance
from earthgptx.model.inference.session import Session
from earthgptx.model.inference.zoom import SmallPrompt, extent, is_small, segment_small
from earthgptx.model.interface.errors import ModelError
from earthgptx.model.interface.prompt import Place, VisualPrompt
from earthgptx.model.interface.region import Box, Mask, Point, Scribble
from earthgptx.model.interface.tile import TileInput
from earthgptx.model.interface.zoom_sizes import CROP_PX
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.encoded import Around
from tests.model.lessons import samples

SIDE = 192


def speck(y: int, x: int) -> Mask:
    return Mask.from_array(np.ones((3, 4), bool), y0=y, x0=x)


@pytest.mark.parametrize(
    "place",
    [
        Point(100.5, 60.5),
        Box(98, 58, 103, 63),
        speck(59, 99),
        Scribble((Point(98, 60), Point(103, 61)), 2),
    ],
)
def test_a_small_object_is_outlined_where_it_is(tiny: EarthGPTX, place: Place) -> None:
    prompt = VisualPrompt(id="p", place=place)
    pixels = torch.randint(0, 255, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    [seen] = segment_small(
        tiny, pixels, ["sar", "sar"], [SmallPrompt(1, prompt, prompt.box(SIDE, SIDE))]
    )
    if seen.mask is not None:
        box = seen.mask.box
        assert 60 - 16 <= box.y0 < box.y1 <= 60 + 17
        assert 100 - 16 <= box.x0 < box.x1 <= 100 + 17


def test_a_point_is_small_where_what_it_shows_is_and_a_box_where_it_is_itself() -> None:
    point = VisualPrompt(id="p", place=Point(40.5, 40.5))
    drawn = VisualPrompt(id="b", place=Box(40, 40, 46, 46))

    def judged(box: Box) -> Instance:
        return Instance(mask=None, score=0.5, presence=1.0, box=box)

    assert is_small(extent(point, judged(Box(35, 38, 45, 43)), SIDE, SIDE))
    assert not is_small(extent(point, judged(Box(20, 20, 60, 60)), SIDE, SIDE))
    assert is_small(extent(drawn, judged(Box(20, 20, 60, 60)), SIDE, SIDE))
    beside = extent(point, judged(Box(44, 38, 50, 43)), SIDE, SIDE)
    assert (beside.x0, beside.x1) == (40, 50), (
        "a crop that does not hold its prompt shows another object"
    )


def test_a_crop_is_what_lies_around_its_prompt_and_alone_as_among_others(taught: EarthGPTX) -> None:
    pixels = torch.randint(0, 60, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    pixels[0, :, 80:84, 40:45] = 220
    near, far = (
        SmallPrompt(0, prompt, prompt.box(SIDE, SIDE))
        for prompt in (
            VisualPrompt(id=name, place=Point(x, y))
            for name, x, y in (("n", 42.0, 82.0), ("f", 150.0, 9.0))
        )
    )
    together = segment_small(taught, pixels, ["optical"], [far, near])
    [alone] = segment_small(taught, pixels, ["optical"], [near])
    assert alone.score == pytest.approx(together[1].score, abs=1e-4)
    moved = pixels.clone()
    moved[0, :, :, 120:] = 0  # beyond the crop, but not beyond what lies around it
    [other] = segment_small(taught, moved, ["optical"], [near])
    # The score alone may be the same number: it is near its end.
    assert (other.score, other.box) != (alone.score, alone.box)


@given(
    y0=st.integers(0, 60),
    x0=st.integers(0, 60),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    factor=st.sampled_from([0.5, 1.0, 2.0, 2.5]),
)
def test_every_kind_of_prompt_is_zoomed_to_the_same_place(
    y0: int, x0: int, height: int, width: int, factor: float
) -> None:
    mask = Mask.from_array(np.ones((height, width), bool), y0=y0, x0=x0)
    side = 256
    one, other = (
        VisualPrompt(id="p", place=place).zoomed(0, 0, factor, side, side).box(side, side)
        for place in (mask, mask.box)
    )
    for low, high in (
        (one.x0, other.x0),
        (one.y0, other.y0),
        (one.x1, other.x1),
        (one.y1, other.y1),
    ):
        assert low == pytest.approx(high, abs=max(factor, 1.0))


def test_a_small_object_has_the_words_of_its_tile_and_the_outline_of_its_crop(
    tiny: EarthGPTX,
) -> None:
    everywhere = np.ones((SIDE, SIDE), bool)
    prompts = (
        VisualPrompt(id="small", place=speck(50, 50)),
        VisualPrompt(id="large", place=Box(20, 20, 90, 90)),
    )
    tile = TileInput(
        pixels=np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8),
        valid=everywhere,
        wanted=everywhere,
        modality="sar",
        metres_per_pixel=1.0,
        phrases=(),
        prompts=prompts,
        names=("ship", "tank"),
        describe=False,
    )
    [answer] = EarthGPTXAnalyst(tiny).analyse([tile])
    small, large = (
        next(each for each in answer.groundings if each.prompt_id == name)
        for name in ("small", "large")
    )
    pixels = torch.from_numpy(tile.pixels)[None]
    [[far, other]] = Session(tiny, pixels, ["sar"], [prompts], metres=[1.0]).refer(("ship", "tank"))
    [near] = segment_small(
        tiny, pixels, ["sar"], [SmallPrompt(0, prompts[0], prompts[0].box(SIDE, SIDE))], [1.0]
    )
    assert near.score != pytest.approx(far.instance.score, abs=1e-3)
    assert (small.label, small.caption.removesuffix(" ...")) == (far.label, far.caption)
    assert small.score == pytest.approx(near.score, abs=1e-5)
    assert large.score == pytest.approx(other.instance.score, abs=1e-5)


def test_one_prompt_has_the_papers_form_and_many_have_it_apart(tiny: EarthGPTX) -> None:
    sample = samples(1)[0]
    pixels = torch.from_numpy(sample.pixels)[None]
    with torch.inference_mode():
        apart = tiny.encode_apart(pixels, ["sar"], [sample.prompts])
        assert len(apart.prefix) == len(sample.prompts)
        for number, prompt in enumerate(sample.prompts):
            alone = tiny.encode(pixels, ["sar"], [[prompt]])
            assert torch.allclose(alone.prefix[0], apart.prefix[number], atol=1e-5)
            assert torch.allclose(
                alone.regions[0][prompt.id], apart.regions[number][prompt.id], atol=1e-5
            )
        together = tiny.encode(pixels, ["sar"], [sample.prompts])
        assert not torch.allclose(together.prefix[0], apart.prefix[0], atol=1e-5)


def test_a_wider_view_is_read_after_the_image(tiny: EarthGPTX) -> None:
    sample = samples(1)[0]
    pixels = torch.from_numpy(sample.pixels)[None]
    wide = torch.randint(0, 255, (1, 3, CROP_PX // 2, CROP_PX // 2), dtype=torch.uint8)
    with torch.inference_mode():
        plain = tiny.encode(pixels, ["sar"])
        wider = tiny.encode(pixels, ["sar"], around=Around(wide, [()]))
    count = (CROP_PX // 2 // tiny.config.token_px) ** 2
    assert wider.prefix.shape[1] == plain.prefix.shape[1] + 1 + count
    assert torch.allclose(wider.prefix[:, : plain.prefix.shape[1]], plain.prefix, atol=1e-5)
    with pytest.raises(ModelError, match="1 images, 1 modalities and 0 lists"):
        tiny.encode(pixels, ["sar"], around=Around(wide, []))
