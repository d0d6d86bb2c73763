from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from earthgptx.model.network.object_selector import ObjectSelector

WIDTH, SPOKEN, MOST, WORDS = 8, 12, 6, 3
ORDERS = ("leftmost", "rightmost", "topmost", "lowest", "largest", "smallest")


def fresh(seed: int = 0) -> ObjectSelector:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ObjectSelector(WIDTH, SPOKEN, 2)


def candidates(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, boxes, heights and presence of up to six candidates a phrase, two at least."""
    chance = torch.Generator().manual_seed(seed)
    middle = 0.1 + 0.8 * torch.rand(count, MOST, 2, generator=chance)
    sides = 0.01 + 0.09 * torch.rand(count, MOST, 2, generator=chance)
    present = torch.arange(MOST) < torch.randint(2, MOST + 1, (count, 1), generator=chance)
    under = torch.randn(count, MOST, WIDTH, generator=chance)
    return (
        under,
        torch.cat([middle - sides, middle + sides], dim=-1),
        0.5 + 0 * middle[..., 0],
        present,
    )


def meant(boxes: Tensor, present: Tensor, order: Tensor) -> Tensor:
    """Which candidate each phrase speaks of, by its number in `ORDERS`."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    area = (x1 - x0) * (y1 - y0)
    by = torch.stack([-x0 - x1, x0 + x1, -y0 - y1, y0 + y1, area, -area], dim=1)
    return by[torch.arange(len(order)), order].masked_fill(~present, -torch.inf).argmax(dim=1)


def test_it_learns_what_leftmost_and_largest_mean() -> None:
    choice = fresh()
    lexicon = torch.randn(len(ORDERS), SPOKEN, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(choice.parameters(), 3e-3)

    def asked(count: int, seed: int) -> tuple[Tensor, Tensor]:
        under, boxes, heights, present = candidates(count, seed)
        order = torch.randint(len(ORDERS), (count,), generator=torch.Generator().manual_seed(seed))
        phrases = lexicon[order][:, None].expand(-1, WORDS, -1)
        spoken = torch.ones(count, WORDS, dtype=torch.bool)
        return choice(phrases, spoken, under, boxes, heights, present), meant(boxes, present, order)

    for step in range(250):
        scored, true = asked(64, step)
        optimizer.zero_grad()
        functional.cross_entropy(scored, true).backward()
        optimizer.step()
    scored, true = asked(512, 10_000)
    assert float((scored.argmax(dim=1) == true).float().mean()) > 0.8


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), order=st.permutations(range(MOST)))
def test_it_does_not_matter_in_which_order_candidates_come(seed: int, order: list[int]) -> None:
    choice = fresh()
    under, boxes, heights, present = candidates(2, seed)
    phrases, spoken = torch.randn(2, WORDS, SPOKEN), torch.ones(2, WORDS, dtype=torch.bool)
    with torch.inference_mode():
        scored = choice(phrases, spoken, under, boxes, heights, present)
        turned = choice(
            phrases, spoken, under[:, order], boxes[:, order], heights[:, order], present[:, order]
        )
    assert_close(turned, scored[:, order], atol=1e-4, rtol=0)


def test_what_is_not_there_is_not_chosen_and_says_nothing() -> None:
    choice = fresh()
    under, boxes, heights, present = candidates(4, 3)
    phrases = torch.randn(4, WORDS, SPOKEN)
    spoken = torch.tensor([[True, True, False]]).expand(4, -1)
    with torch.inference_mode():
        scored = choice(phrases, spoken, under, boxes, heights, present)
        other = choice(
            torch.where(spoken[..., None], phrases, 7.0),
            spoken,
            torch.where(present[..., None], under, 7.0),
            torch.where(present[..., None], boxes, 1.0),
            torch.where(present, heights, 1.0),
            present,
        )
    assert bool(scored[~present].isneginf().all())
    assert not present.all()
    assert_close(other[present], scored[present], atol=1e-5, rtol=0)


def test_each_phrase_has_its_own_candidates() -> None:
    choice = fresh()
    under, boxes, heights, present = candidates(3, 5)
    phrases, spoken = torch.randn(3, WORDS, SPOKEN), torch.ones(3, WORDS, dtype=torch.bool)
    with torch.inference_mode():
        together = choice(phrases, spoken, under, boxes, heights, present)
        for at in range(3):
            mine = slice(at, at + 1)
            alone = choice(
                phrases[mine], spoken[mine], under[mine], boxes[mine], heights[mine], present[mine]
            )
            assert_close(alone[0], together[at], atol=1e-4, rtol=0)
