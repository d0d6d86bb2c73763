from __future__ import annotations

import pytest
import torch
from torch import Tensor

from earthgptx.model.network.box_refiner import BoxRefiner

WIDTH, SIDE = 8, 32


def scene(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of images with a rectangle each, the rectangles' edges, and edges that are a little
    off.
    """
    chance = torch.Generator().manual_seed(seed)
    low = torch.randint(4, 14, (count, 2), generator=chance)
    high = low + torch.randint(4, 14, (count, 2), generator=chance)
    pixels = torch.zeros(count, WIDTH, SIDE, SIDE)
    for image, (x0, y0, x1, y1) in enumerate(torch.cat([low, high], dim=1).tolist()):
        pixels[image, 0, y0:y1, x0:x1] = 4
    true = torch.cat([low, high], dim=1).float()
    sides = (high - low).float().repeat(1, 2)
    return pixels, true, true + sides * (torch.rand(count, 4, generator=chance) - 0.5) * 0.5


def random_refiner(seed: int) -> BoxRefiner:
    """A refiner whose corrections are not close to zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        look = BoxRefiner(WIDTH)
        torch.nn.init.normal_(look.change.weight)
    return look


def overlap(boxes: Tensor, true: Tensor) -> float:
    shared = (
        (torch.minimum(boxes, true)[:, 2:] - torch.maximum(boxes, true)[:, :2]).clamp(min=0).prod(1)
    )
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (boxes, true)]
    return float((shared / (areas[0] + areas[1] - shared)).mean())


def test_a_new_one_nearly_leaves_boxes_as_they_are_and_is_undecided() -> None:
    pixels, _, boxes = scene(3, 0)
    again, worth = BoxRefiner(WIDTH)(boxes, torch.zeros(3, WIDTH), [0, 1, 2], pixels)
    assert bool(((again - boxes).abs() < 0.1).all())
    assert worth.sigmoid().tolist() == pytest.approx([0.5] * 3, abs=0.01)


def test_it_learns_where_edges_are() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        look = BoxRefiner(WIDTH)
    ask = torch.eye(WIDTH)[:1]
    optimizer = torch.optim.AdamW(look.parameters(), 3e-3)
    for step in range(60):
        pixels, true, boxes = scene(32, step)
        again, _ = look(boxes, ask.expand(32, -1), list(range(32)), pixels)
        optimizer.zero_grad()
        (again - true).abs().mean().backward()
        optimizer.step()
    pixels, true, boxes = scene(64, 1000)
    again, _ = look(boxes, ask.expand(64, -1), list(range(64)), pixels)
    before, after = overlap(boxes, true), overlap(again.detach(), true)
    assert after > before + 0.15
    assert after > 0.8


def test_each_box_is_looked_at_on_its_own_image_in_any_order() -> None:
    look = random_refiner(1)
    pixels, _, boxes = scene(3, 0)
    owners = [2, 0, 2, 1, 2]
    ask = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))
    many = boxes[owners] + torch.arange(5)[:, None]
    together, worth = look(many, ask, owners, pixels)
    for at, image in enumerate(owners):
        alone, own = look(many[at : at + 1], ask[at : at + 1], [0], pixels[image : image + 1])
        assert alone[0].tolist() == pytest.approx(together[at].tolist(), abs=1e-4)
        assert own.detach()[0].item() == pytest.approx(worth.detach()[at].item(), abs=1e-4)


def test_beyond_the_edges_of_an_image_it_sees_zeros() -> None:
    look = random_refiner(4)
    chance = torch.Generator().manual_seed(5)
    pixels = torch.randn(2, WIDTH, 20, SIDE, generator=chance)
    ask = torch.randn(4, WIDTH, generator=chance)
    over = torch.tensor(
        [
            [-3.0, 2.5, 6.0, 9.0],
            [28.2, 15.0, 35.0, 23.0],
            [4.0, 3.0, 8.0, 9.0],
            [0.0, 0.0, 32.0, 20.0],
        ]
    )
    bordered = torch.nn.functional.pad(pixels, (40, 40, 40, 40))
    changed, worth = look(over, ask, [1, 0, 1, 0], pixels)
    moved, same = look(over + 40, ask, [1, 0, 1, 0], bordered)
    assert (moved - 40).flatten().tolist() == pytest.approx(changed.flatten().tolist(), abs=1e-3)
    assert same.tolist() == pytest.approx(worth.tolist(), abs=1e-3)


def test_boxes_of_nan_or_infinity_are_no_error_and_neither_are_none_at_all() -> None:
    look = BoxRefiner(WIDTH)
    pixels, _, boxes = scene(3, 0)
    broken = torch.tensor([[torch.nan] * 4, [-torch.inf, 0, torch.inf, 9], [1e30, 1, 2e30, 9]])
    _, worth = look(torch.cat([broken, boxes]), torch.zeros(6, WIDTH), [0, 1, 2, 0, 1, 2], pixels)
    assert bool(worth.isfinite().all())
    none, of_none = look(boxes[:0], torch.zeros(0, WIDTH), [], pixels)
    assert (none.shape, of_none.shape) == ((0, 4), (0,))


def test_features_between_cells_are_in_proportion() -> None:
    look = random_refiner(6)
    small = torch.randn(1, WIDTH, 1, 1, generator=torch.Generator().manual_seed(7))
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(SIDE + 0.0), indexing="ij")
    # Of a plane, bilinear samples are exact: twice the cells over the same ground, the same plane.
    coarse = small * (0.03 * (x + 0.5) - 0.05 * (y + 0.5))
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(2 * SIDE + 0.0), indexing="ij")
    fine = small * (0.03 * (x + 0.5) - 0.05 * (y + 0.5)) / 2
    box, ask = torch.tensor([[9.3, 8.1, 16.7, 14.2]]), torch.ones(1, WIDTH)
    changed, worth = look(box, ask, [0], coarse)
    doubled, same = look(2 * box, ask, [0], fine)
    assert (doubled / 2).flatten().tolist() == pytest.approx(changed.flatten().tolist(), abs=1e-3)
    assert same.tolist() == pytest.approx(worth.tolist(), abs=1e-3)


def test_a_box_has_sides_whatever_it_is_changed_to() -> None:
    look = BoxRefiner(WIDTH)
    torch.nn.init.constant_(look.change.bias, -9.0)
    look.change.bias.data[0:2] = 9
    pixels, _, boxes = scene(2, 0)
    again, _ = look(boxes, torch.zeros(2, WIDTH), [0, 1], pixels)
    assert bool((again[:, 2:] > again[:, :2]).all())
