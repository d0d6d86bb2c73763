import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgptx.model.interface.answer import Grounding
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import AnalystTraits
from earthgptx.pipeline.job.grid import Tile, View, Window
from earthgptx.pipeline.objects.blend import Blend
from earthgptx.pipeline.objects.parts import Part, is_settled, merge, resolve, to_part

TILE, HALO, CONTEXT = 48, 12, 4
CORE = TILE - 2 * HALO


def traits(**changes: object) -> AnalystTraits:
    known: dict[str, object] = {
        "name": "t",
        "digest": "t",
        "context_px": CONTEXT,
        "tiles_per_batch": 1,
        "same_object_overlap": 0.5,
        "min_score": 0.5,
        "min_area_px": 1,
        "max_area_px": 10_000,
        **changes,
    }
    return AnalystTraits(**known)  # type: ignore[arg-type]


def tile(row: int, col: int) -> Tile:
    core = Window(row * CORE, col * CORE, (row + 1) * CORE, (col + 1) * CORE)
    return Tile(row, col, core.grown(HALO), core)


def seen(
    box: Window,
    where: Tile,
    *,
    score: float = 0.9,
    label: str = "ship",
    prompt: str = "",
    caption: str = "",
) -> Part | None:
    """What a tile says of an object that fills a box of the grid."""
    inside = box & where.window
    if inside.empty:
        return None
    mask = Mask.from_array(
        np.ones(inside.shape, bool), y0=inside.y0 - where.window.y0, x0=inside.x0 - where.window.x0
    )
    return to_part(
        Grounding(label=label, score=score, mask=mask, prompt_id=prompt, caption=caption),
        where,
        View(where.window),
        CONTEXT,
    )


def everyone_sees(box: Window, rows: int = 4, cols: int = 4) -> list[Part]:
    parts = [seen(box, tile(row, col)) for row in range(rows) for col in range(cols)]
    return [part for part in parts if part is not None]


@given(
    st.integers(0, 80),
    st.integers(0, 80),
    st.integers(1, 60),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_an_object_seen_by_several_tiles_is_one_whatever_the_order(
    y0: int, x0: int, h: int, w: int, dice: object
) -> None:
    box = Window(y0, x0, min(y0 + h, 96), min(x0 + w, 96))
    parts = everyone_sees(box)
    dice.shuffle(parts)  # type: ignore[attr-defined]
    # Any shared pixel joins: a thin strip of a large object is most of no part.
    groups = merge(parts, traits(same_object_overlap=0.0))
    assert len(groups) == 1
    whole = resolve(groups[0], traits())
    assert whole is not None
    assert whole.mask == Mask.from_array(np.ones(box.shape, bool), y0=box.y0, x0=box.x0)


def test_two_objects_of_one_tile_are_never_merged_and_labels_keep_apart() -> None:
    near = [seen(Window(30, 30, 36, 36), tile(1, 1)), seen(Window(36, 30, 40, 36), tile(1, 1))]
    labels = [seen(Window(30, 30, 36, 36), tile(1, 1), label=name) for name in ("ship", "tank")]
    for parts in (near, labels):
        assert len(merge([part for part in parts if part], traits(same_object_overlap=0.0))) == 2


def test_a_network_may_put_an_object_on_either_side_of_a_border() -> None:
    # Seen by both tiles, with outlines that differ by a pixel: one object, described by the surer
    # tile.
    left, right = tile(1, 0), tile(1, 1)
    one, other = (
        seen(Window(30, 20, 36, 30), left, score=0.7),
        seen(Window(30, 21, 36, 31), right, score=0.8),
    )
    assert one
    assert other
    [group] = merge([one, other], traits())
    assert resolve(group, traits()) == other


def test_what_only_a_neighbour_saw_in_its_halo_is_not_believed() -> None:
    stray = seen(Window(30, 26, 34, 30), tile(1, 0))
    assert stray
    assert not stray.at_home
    assert resolve([stray], traits()) is None


def test_an_answer_to_a_prompt_joins_the_object_that_it_points_at() -> None:
    found, asked = (
        seen(Window(30, 30, 36, 40), tile(1, 1)),
        seen(Window(30, 30, 36, 39), tile(1, 1), prompt="p1", caption="a tug"),
    )
    elsewhere = seen(Window(40, 28, 44, 30), tile(1, 1), prompt="p2")
    assert found
    assert asked
    assert elsewhere
    groups = merge([found, asked, elsewhere], traits())
    merged = [resolve(group, traits()) for group in groups]
    resolved = sorted((part for part in merged if part), key=lambda part: part.prompt_ids)
    assert len(resolved) == len(merged)
    assert [(part.prompt_ids, part.caption) for part in resolved if part] == [
        (("p1",), "a tug"),
        (("p2",), ""),
    ]


def test_two_prompts_on_one_place_get_an_answer_each() -> None:
    parts = [seen(Window(30, 30, 36, 40), tile(1, 1), prompt=name) for name in ("p1", "p2")]
    groups = merge([part for part in parts if part], traits())
    assert sorted(part.prompt_ids for group in groups if (part := resolve(group, traits()))) == [
        ("p1",),
        ("p2",),
    ]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"min_score": 0.95}, False),
        ({"min_area_px": 61}, False),
        ({"max_area_px": 59}, False),
    ],
)
def test_rules_are_judged_on_the_whole_object(change: dict[str, object], kept: bool) -> None:
    [group] = merge(everyone_sees(Window(20, 40, 26, 50)), traits())
    assert (resolve(group, traits(**change)) is not None) == kept


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.permutations(list(itertools.product(range(3), range(3)))))
def test_blending_is_a_weighted_mean_and_no_order_changes_it(
    seed: int, order: list[tuple[int, int]]
) -> None:
    noise = np.random.default_rng(seed)
    answers = {
        at: noise.integers(0, 256, (2, TILE, TILE)).astype(np.uint8)
        for at in itertools.product(range(3), range(3))
    }
    region = Window(0, 0, 3 * CORE, 3 * CORE).grown(HALO)
    whole, shuffled = (Blend(region, 2, TILE, CONTEXT) for _ in range(2))
    for at in answers:
        whole.add(tile(*at), answers[at])
    for at in order:
        shuffled.add(tile(*at), answers[at])
    blended = whole.sums.divided()
    assert np.array_equal(blended, shuffled.sums.divided())
    covered = whole.sums.weights > 0
    assert covered[HALO:-HALO, HALO:-HALO].all(), "every pixel of a core has an answer"
    equal = Blend(region, 1, TILE, CONTEXT)
    for at in answers:
        equal.add(tile(*at), np.full((1, TILE, TILE), 77, np.uint8))
    assert (equal.sums.divided()[0][covered] == 77).all()


@given(st.integers(1, 3))
def test_sums_of_neighbouring_blocks_add_up_to_those_of_one(split: int) -> None:
    noise = np.random.default_rng(split)
    answers = {
        at: noise.integers(0, 256, (1, TILE, TILE)).astype(np.uint8)
        for at in itertools.product(range(2), range(4))
    }
    region = Window(0, 0, 2 * CORE, 4 * CORE)
    whole = Blend(region.grown(HALO), 1, TILE, CONTEXT)
    west, east = Window(0, 0, 2 * CORE, split * CORE), Window(0, split * CORE, 2 * CORE, 4 * CORE)
    blends = [Blend(own.grown(HALO), 1, TILE, CONTEXT) for own in (west, east)]
    for at, answer in answers.items():
        whole.add(tile(*at), answer)
        blends[at[1] >= split].add(tile(*at), answer)
    expected = whole.sums.crop(west).divided()
    around = blends[1].frame(east, HALO)
    ours = blends[0].sums.crop(west).divided()
    for piece in blends[0].frame(west, HALO):
        window = piece.window & west
        if not window.empty:
            ours[(slice(None), *window.within(west))] = piece.crop(window).plus(around).divided()
    assert np.array_equal(ours, expected)


def test_an_object_near_the_blocks_border_waits_for_the_neighbours() -> None:
    own = Window(0, 0, 4 * CORE, 4 * CORE)
    inner, border = seen(Window(40, 40, 44, 44), tile(1, 1)), seen(Window(0, 40, 4, 44), tile(0, 1))
    assert inner
    assert border
    assert is_settled([inner], own, traits(), HALO)
    assert not is_settled([inner, border], own, traits(), HALO)
