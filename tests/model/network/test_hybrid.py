"""The hybrid block against the paper's formulas, and the spatial-aware encoder before it."""

import torch
from torch import Tensor

from earthgptx.model.interface.config import preset
from earthgptx.model.interface.prompt import VisualPrompt
from earthgptx.model.interface.region import Box, Point
from earthgptx.model.network.earthgptx import EarthGPTX
from earthgptx.model.network.hybrid import Attention, HybridBlock
from earthgptx.model.network.spatial_encoder import SpatialEncoder, waves
from tests.model.lessons import samples

TINY = preset("tiny")


def attention(part: Attention, x: Tensor, context: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, head by head, for one image."""
    heads = []
    width = part.query.out_features // part.heads
    for head in range(part.heads):
        at = slice(head * width, (head + 1) * width)
        q, k, v = part.query(x)[:, at], part.key(context)[:, at], part.value(context)[:, at]
        heads.append(torch.softmax(q @ k.T / width**0.5, dim=-1) @ v)
    out: Tensor = part.out(torch.cat(heads, dim=-1))
    return out


def test_the_block_is_the_papers_formulas() -> None:
    torch.manual_seed(0)
    block = HybridBlock(TINY, 30)
    image, prompts = torch.randn(1, 30, 4, 6), torch.randn(1, 5, 64)
    fused, tokens = block(image, prompts, torch.ones(1, 5, dtype=torch.bool))

    grid = torch.tensor([[(x + 0.5) / 6, (y + 0.5) / 4] for y in range(4) for x in range(6)])
    v_img = block.enter(image[0].flatten(1).T) + block.place(waves(grid))
    n = block.norm_image(v_img)
    v_sa = v_img + attention(block.self_image, n, n)
    e_ff = block.feed_prompt(prompts[0])
    h_ca = v_sa + attention(block.cross, block.norm_cross(v_sa), e_ff)
    n = block.norm_both(h_ca)
    v_p = h_ca + attention(block.self_both, n, n)

    assert torch.allclose(fused[0].flatten(1).T, v_p, atol=1e-5)
    pooled = v_p.reshape(2, 2, 3, 2, 64).mean(dim=(1, 3)).reshape(6, 64)
    assert torch.allclose(tokens[0], block.project(pooled), atol=1e-5)


def test_absent_prompts_change_nothing_and_no_prompt_is_no_cross_attention() -> None:
    torch.manual_seed(0)
    block = HybridBlock(TINY, 30)
    image, prompts = torch.randn(2, 30, 4, 4), torch.randn(2, 5, 64, requires_grad=True)
    present = torch.tensor([[True] * 3 + [False] * 2, [False] * 5])
    fused, _ = block(image, prompts, present)
    three, _ = block(image[:1], prompts[:1, :3], present[:1, :3])
    none, _ = block(image[1:], prompts[1:, :0], present[1:, :0])
    assert torch.allclose(fused[0], three[0], atol=1e-5)
    assert torch.allclose(fused[1], none[0], atol=1e-5)
    fused.sum().backward()
    assert prompts.grad is not None
    assert torch.isfinite(prompts.grad).all()
    assert prompts.grad[0, :3].abs().sum() > 0
    assert prompts.grad[0, 3:].abs().sum() == prompts.grad[1].abs().sum() == 0


def test_what_is_said_of_a_prompt_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    encoder = SpatialEncoder(TINY).eval()
    canvas, boxes = torch.rand(3, 2, 8, 8), torch.rand(3, 4)
    together = encoder(canvas, boxes)
    assert together.shape == (3, 17, 64)
    for number in range(3):
        assert torch.allclose(
            encoder(canvas[number : number + 1], boxes[number : number + 1])[0],
            together[number],
            atol=1e-5,
        )


def test_one_canvas_of_one_prompt_is_the_papers_one_prompt_form(tiny: EarthGPTX) -> None:
    sample = samples(1)[0]
    pixels = torch.from_numpy(sample.pixels)[None]
    prompt = VisualPrompt(id="x", place=Box(20, 30, 60, 70))
    with torch.inference_mode():
        alone = tiny.encode(pixels, ["sar"], [[prompt]])
        others = tiny.encode(
            pixels.expand(2, -1, -1, -1),
            ["sar", "sar"],
            [[prompt], [prompt, VisualPrompt(id="y", place=Point(100.0, 100.0))]],
        )
    assert torch.allclose(alone.prefix[0], others.prefix[0], atol=1e-4), (
        "an image in a batch is the image alone"
    )
    assert not torch.allclose(alone.prefix[0], others.prefix[1], atol=1e-4), (
        "prompts of one image are seen together"
    )
    features = tiny.encoders(pixels).image
    canvas, boxes, present = tiny._canvas([[prompt]], 128, 128, torch.float32)
    with torch.inference_mode():
        tokens = tiny.spatial(canvas[0], boxes[0])[None, 0]
        _, paper = tiny.hybrid(features, tokens, torch.ones(1, 17, dtype=torch.bool))
    assert torch.allclose(alone.prefix[0, 2:], paper[0], atol=1e-4)
    assert present.all()


def test_how_large_a_pixel_is_is_told_beside_the_sensor_and_changes_nothing_of_its_mark(
    tiny: EarthGPTX,
) -> None:
    pixels = torch.from_numpy(samples(1)[0].pixels)[None]
    with torch.inference_mode():
        told = [
            tiny.encode(pixels, ["sar"], metres=[metres]).prefix[0]
            for metres in (None, 1.0, 2.0, 500.0)
        ]
    for one in told[1:]:
        assert torch.equal(one[0], told[0][0])
        assert torch.equal(one[2:], told[0][2:])
        assert not torch.allclose(one[1], told[0][1], atol=1e-3)
    assert not torch.allclose(told[1][1], told[2][1], atol=1e-3)
