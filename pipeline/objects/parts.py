"""Merges the parts of objects that overlapping tiles saw.

Takes one part per grounding, in pixels of the grid, and gives merged objects. `merge` and `resolve`
are used within a block and, by `stitch`, across blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely

from earthgptx.model.interface.answer import Grounding, Reply
from earthgptx.model.interface.region import Mask
from earthgptx.model.interface.tile import AnalystTraits
from earthgptx.pipeline.job.grid import Tile, View, Window
from earthgptx.pipeline.objects.spans import union

SAME_AS_PROMPTED = 0.5
"""IoU from which an object found by phrase and the answer to a prompt are the same object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one tile saw of an object; after merging, the whole object."""

    label: str
    score: float
    """Confidence, 0..1."""
    mask: Mask
    """In pixels of the grid."""
    caption: str
    """Caption by the model; empty for none."""
    prompt_ids: tuple[str, ...]
    """Ids of the visual prompts that it answers; empty for an object found by phrase alone."""
    prompted: bool
    """Whether it is the answer to a visual prompt. Two such parts are never merged directly."""
    tile: tuple[int, int]
    """Row and column of the tile that saw it."""
    scope: Window
    """Pixels for which the model's answers were used: the view without its context."""
    cut: bool
    """Whether it touches the border of `scope`, so that the object may continue outside."""
    at_home: bool
    """Whether its centre lies in the tile's core."""
    item: str = ""
    """Collection and id of the Item that most of its pixels show, of a merged object those of its
    best part; empty in a median."""
    prompt_kind: str = ""
    """Kind of the first visual prompt that it answers, see `VisualPrompt.kind`; empty for none."""
    present: bool = True
    """False for the answer to a prompt that marks no object, which is not merged."""
    replies: tuple[Reply, ...] = ()
    """Replies to the questions about objects."""


def to_part(
    grounding: Grounding, tile: Tile, view: View, context_px: int, prompt_kind: str = ""
) -> Part | None:
    """Converts a grounding to pixels of the grid and clips it to the view without its context.

    Args:
        grounding: grounding in pixels of the view.
        tile: tile that the question was about.
        view: the tile itself, or a wider view for a prompt that does not fit into the tile.
        context_px: width of the strip at the view's border whose answers lack context, in pixels
            of the view.
        prompt_kind: kind of the visual prompt that it answers; empty for none.

    Returns:
        The part; None if no pixel is left after clipping.
    """
    scope = view.window.grown(-context_px * view.factor)
    mask = grounding.mask.enlarged(view.factor).moved(dx=view.window.x0, dy=view.window.y0)
    box = window_of(mask)
    if (box & scope) != box:
        clipped = mask.window(scope.y0, scope.x0, scope.y1, scope.x1)
        if not clipped.any():
            return None
        mask = Mask.from_array(clipped, y0=scope.y0, x0=scope.x0)
        box = window_of(mask)
    centre = mask.centre
    return Part(
        label=grounding.label,
        score=grounding.score,
        mask=mask,
        caption=grounding.caption,
        prompt_ids=(grounding.prompt_id,) if grounding.prompt_id else (),
        prompted=bool(grounding.prompt_id),
        prompt_kind=prompt_kind,
        present=grounding.present,
        replies=grounding.replies,
        tile=(tile.row, tile.col),
        scope=scope,
        cut=box.y0 == scope.y0 or box.x0 == scope.x0 or box.y1 == scope.y1 or box.x1 == scope.x1,
        at_home=tile.core.y0 <= centre.y < tile.core.y1 and tile.core.x0 <= centre.x < tile.core.x1,
    )


def merge(parts: Sequence[Part], traits: AnalystTraits) -> list[list[Part]]:
    """Groups the parts that belong to the same object.

    Only parts with the same label are merged. Two parts of different tiles are one object if they
    share more than `same_object_overlap` of the smaller part, counted in the area that both tiles
    see. The answer to a prompt joins the part found by phrase with which it has the highest IoU,
    from `SAME_AS_PROMPTED` up.
    """
    count = len(parts)
    if count == 0:
        return []
    boxes = shapely.box(*np.array([_bounds(part.mask) for part in parts], float).T)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    joined: list[tuple[int, int]] = []
    pointed: dict[int, tuple[float, int]] = {}
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        one, other = parts[a], parts[b]
        if a >= b or one.label != other.label or (one.prompted and other.prompted):
            continue
        if one.prompted or other.prompted:
            found, prompted = (b, a) if one.prompted else (a, b)
            shared, least, union = _overlap(one, other)
            if union and shared / union >= SAME_AS_PROMPTED:
                pointed[prompted] = max(pointed.get(prompted, (0.0, -1)), (shared / union, found))
        elif one.tile != other.tile:
            shared, least, _ = _overlap(one, other)
            if shared and shared > traits.same_object_overlap * least:
                joined.append((a, b))
    joined += [(prompted, found) for prompted, (_, found) in pointed.items()]
    return [[parts[at] for at in group] for group in connected(count, joined)]


def connected(count: int, joined: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Returns the positions 0 to `count` in groups that pairs connect, each in rising order."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, cols = (list(column) for column in zip(*joined, strict=True)) if joined else ([], [])
    graph = coo_matrix((np.ones(len(rows), bool), (rows, cols)), shape=(count, count))
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for at, number in enumerate(group_of.tolist()):
        groups[number].append(at)
    return list(groups.values())


def resolve(group: Sequence[Part], traits: AnalystTraits) -> Part | None:
    """Merges a group of parts into one object.

    Takes the highest-scoring part that is not cut, and the first by tile row and column among
    equals. If all parts are cut, joins their masks. Answers to prompts are kept whatever their
    score and size. They add their ids; their caption and replies replace those found by phrase.

    Returns:
        The merged object. None if it answers no prompt and is dropped: its score or area is outside
        the limits of `traits`, or only one tile saw it and its centre is outside that tile's core.
    """
    found = [part for part in group if not part.prompted]
    prompted = [part for part in group if part.prompted]
    prompt_ids = tuple(sorted(name for part in prompted for name in part.prompt_ids))
    if not found:
        return prompted[0] if len(prompted) == 1 else None
    if len(found) == 1 and not found[0].at_home and not prompted:
        return None  # the tile whose core holds its centre did not see it
    ranked = sorted(found, key=lambda part: (-part.score, part.tile))
    whole = [part for part in ranked if not part.cut]
    best = whole[0] if whole else replace(ranked[0], mask=union([part.mask for part in ranked]))
    area = best.mask.area
    if best.score < traits.min_score or not traits.min_area_px <= area <= traits.max_area_px:
        return replace(prompted[0], prompt_ids=prompt_ids) if prompted else None
    caption = next((part.caption for part in prompted if part.caption), best.caption)
    replies = next((part.replies for part in prompted if part.replies), best.replies)
    kind = prompted[0].prompt_kind if prompted else ""
    return replace(best, prompt_ids=prompt_ids, caption=caption, prompt_kind=kind, replies=replies)


def is_settled(group: Sequence[Part], own: Window, traits: AnalystTraits, halo_px: int) -> bool:
    """Whether no tile of another block can have seen a part of a group's object.

    Args:
        group: parts of one object, seen by tiles of one block.
        own: window of the block without its halo.
        traits: traits of the analyst.
        halo_px: width of the halo in pixels.
    """
    inner = own.grown(-(halo_px - traits.context_px))
    return all((box := window_of(part.mask)) & inner == box for part in group)


def window_of(mask: Mask) -> Window:
    """Returns the bounding window of a mask."""
    return Window(mask.y0, mask.x0, mask.y0 + mask.height, mask.x0 + mask.width)


def _bounds(mask: Mask) -> tuple[float, float, float, float]:
    # Slightly smaller than the pixels, so that masks that only touch do not intersect.
    return mask.x0 + 0.25, mask.y0 + 0.25, mask.x0 + mask.width - 0.25, mask.y0 + mask.height - 0.25


def _overlap(one: Part, other: Part) -> tuple[int, int, int]:
    """Returns areas of intersection, smaller part and union, in pixels that both tiles see."""
    seen = one.scope & other.scope
    both = (
        Window(
            min(one.mask.y0, other.mask.y0),
            min(one.mask.x0, other.mask.x0),
            max(one.mask.y0 + one.mask.height, other.mask.y0 + other.mask.height),
            max(one.mask.x0 + one.mask.width, other.mask.x0 + other.mask.width),
        )
        & seen
    )
    if both.empty:
        return 0, 0, 0
    a = one.mask.window(both.y0, both.x0, both.y1, both.x1)
    b = other.mask.window(both.y0, both.x0, both.y1, both.x1)
    shared, sizes = int((a & b).sum()), (int(a.sum()), int(b.sum()))
    return shared, min(sizes), sum(sizes) - shared
