"""What tiles answered, put together: scores blended over overlaps, objects merged across borders.

Blending adds integers, so that no order of work changes a sum. Objects are merged as parts: what
one tile saw of an object, in pixels of the grid. The same two functions serve inside a block and,
in `stitch`, across blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from model.answer import Grounding
from model.region import Mask
from model.tile import AnalystTraits
from pipeline.grid import Tile, View, Window

SAME_AS_PROMPTED = 0.5
"""IoU from which an object found by phrase is the one that a prompt points at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one tile saw of an object; after merging, the whole of it."""

    label: str
    score: float
    mask: Mask
    """In pixels of the grid."""
    caption: str
    prompt_ids: tuple[str, ...]
    """Prompts that it answers; empty for an object found by phrase alone."""
    prompted: bool
    """Whether it came as the answer to a prompt. Such parts are never merged with one another."""
    tile: tuple[int, int]
    """Row and column of the tile that saw it."""
    view: Window
    """What that tile can answer for."""
    cut: bool
    """Whether it reaches the end of the view, and so may go on beyond."""
    at_home: bool
    """Whether its middle lies in the tile's own core."""


def to_part(grounding: Grounding, tile: Tile, seen: View, context_px: int) -> Part | None:
    """A tile's answer in pixels of the grid, cut to what can be answered for; None if nothing is left.

    Args:
        grounding: in pixels of the view.
        tile: that asked.
        seen: the tile's own view, or a wider one of a prompt that does not fit it.
        context_px: pixels at the view's border whose answers lack context.
    """
    view = seen.window.grown(-context_px * seen.factor)
    mask = grounding.mask.enlarged(seen.factor).moved(dx=seen.window.x0, dy=seen.window.y0)
    box = _window_of(mask)
    if (box & view) != box:
        clipped = mask.window(view.y0, view.x0, view.y1, view.x1)
        if not clipped.any():
            return None
        mask = Mask.from_array(clipped, y0=view.y0, x0=view.x0)
        box = _window_of(mask)
    centre = mask.centre
    return Part(
        label=grounding.label,
        score=grounding.score,
        mask=mask,
        caption=grounding.caption,
        prompt_ids=(grounding.prompt_id,) if grounding.prompt_id else (),
        prompted=bool(grounding.prompt_id),
        tile=(tile.row, tile.col),
        view=view,
        cut=box.y0 == view.y0 or box.x0 == view.x0 or box.y1 == view.y1 or box.x1 == view.x1,
        at_home=tile.core.y0 <= centre.y < tile.core.y1 and tile.core.x0 <= centre.x < tile.core.x1,
    )


def merge(parts: Sequence[Part], traits: AnalystTraits) -> list[list[Part]]:
    """Group parts that are one object.

    Parts of different tiles are, when they share more than `same_object_overlap` of the smaller one in
    the ground that both tiles see. The answer to a prompt joins the object that covers the same ground.
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
            found, asked = (b, a) if one.prompted else (a, b)
            shared, least, union = _overlap(one, other)
            if union and shared / union >= SAME_AS_PROMPTED:
                pointed[asked] = max(pointed.get(asked, (0.0, -1)), (shared / union, found))
        elif one.tile != other.tile:
            shared, least, _ = _overlap(one, other)
            if shared and shared > traits.same_object_overlap * least:
                joined.append((a, b))
    joined += [(asked, found) for asked, (_, found) in pointed.items()]
    rows, cols = (list(column) for column in zip(*joined, strict=True)) if joined else ([], [])
    graph = coo_matrix((np.ones(len(rows), bool), (rows, cols)), shape=(count, count))
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[Part]] = defaultdict(list)
    for part, number in zip(parts, group_of.tolist(), strict=True):
        groups[number].append(part)
    return list(groups.values())


def resolve(group: Sequence[Part], traits: AnalystTraits) -> Part | None:
    """The object that a group of parts is; None where it is not kept.

    A tile that saw it whole describes it, the surest one first, then the first by place. Where every
    tile saw a piece only, the pieces are joined.
    """
    found = [part for part in group if not part.prompted]
    asked = [part for part in group if part.prompted]
    prompt_ids = tuple(sorted(name for part in asked for name in part.prompt_ids))
    if not found:
        return asked[0] if len(asked) == 1 else None
    if len(found) == 1 and not found[0].at_home and not asked:
        return None  # the tile responsible for the place did not see it
    ranked = sorted(found, key=lambda part: (-part.score, part.tile))
    whole = [part for part in ranked if not part.cut]
    best = whole[0] if whole else replace(ranked[0], mask=_union([part.mask for part in ranked]))
    area = best.mask.area
    if best.score < traits.min_score or not traits.min_area_px <= area <= traits.max_area_px:
        return replace(asked[0], prompt_ids=prompt_ids) if asked else None
    caption = next((part.caption for part in asked if part.caption), best.caption)
    return replace(best, prompt_ids=prompt_ids, caption=caption)


def is_settled(group: Sequence[Part], own: Window, traits: AnalystTraits, halo_px: int) -> bool:
    """Whether no tile of another block can have seen a part of a group's object.

    Args:
        group: parts that tiles of one block saw.
        own: pixels of the block.
        traits: of the model.
        halo_px: of the grid.
    """
    inner = own.grown(-(halo_px - traits.context_px))
    return all((box := _window_of(part.mask)) & inner == box for part in group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Weighted scores of a window, not yet divided: what neighbouring blocks add to."""

    window: Window
    scores: NDArray[np.uint32]
    """(K, h, w), sum of weight times score."""
    weights: NDArray[np.uint32]
    """(h, w), sum of weights; 0 where no tile answered."""

    def divided(self) -> NDArray[np.uint8]:
        """Blended scores, (K, h, w), rounded half up; 0 where no tile answered."""
        blended = np.empty(self.scores.shape, np.uint8)
        for y0 in range(0, self.window.shape[0], 256):  # by strips: the 32 bit steps between weigh four times as much
            rows = slice(y0, y0 + 256)
            weights = np.maximum(self.weights[rows], 1)
            blended[:, rows] = (2 * self.scores[:, rows] + weights) // (2 * weights)
        return blended

    def part(self, window: Window) -> Sums:
        """The sums of a window inside this one; a view."""
        at = window.within(self.window)
        return Sums(window=window, scores=self.scores[(slice(None), *at)], weights=self.weights[at])

    def plus(self, others: Sequence[Sums]) -> Sums:
        """With what others have of the same ground added; reads past this window are dropped."""
        scores, weights = self.scores.copy(), self.weights.copy()
        for other in others:
            shared = self.window & other.window
            if not shared.empty:
                piece, at = other.part(shared), shared.within(self.window)
                scores[(slice(None), *at)] += piece.scores
                weights[at] += piece.weights
        return Sums(window=self.window, scores=scores, weights=weights)


class Blend:
    """The scores of a block's tiles, blended with weights that fall towards a tile's border, never to 0."""

    def __init__(self, window: Window, phrases: int, tile_px: int, context_px: int) -> None:
        """Start with nothing over a window.

        Args:
            window: of the block and its halo.
            phrases: K.
            tile_px: side of a tile.
            context_px: pixels at a tile's border that carry no weight, since they lack context.
        """
        self.sums = Sums(
            window=window,
            scores=np.zeros((phrases, *window.shape), np.uint32),
            weights=np.zeros(window.shape, np.uint32),
        )
        ramp = np.minimum(np.arange(tile_px), np.arange(tile_px)[::-1]) - context_px + 1
        side = np.clip(ramp, 0, 64).astype(np.uint32)
        self._weight = side[:, None] * side[None, :]

    def add(self, tile: Tile, scores: NDArray[np.uint8]) -> None:
        """Add a tile's scores, (K, tile_px, tile_px)."""
        at = tile.window.within(self.sums.window)
        self.sums.weights[at] += self._weight
        for number, plane in enumerate(scores):
            if plane.any():
                self.sums.scores[number][at] += self._weight * plane

    def frame(self, own: Window, halo_px: int) -> list[Sums]:
        """Sums that a neighbour needs or adds to: a band of a halo's width on either side of the block's border."""
        outer, inner = self.sums.window, own.grown(-halo_px)
        if inner.empty:
            return [self.sums]
        pieces = (
            Window(outer.y0, outer.x0, inner.y0, outer.x1),
            Window(inner.y1, outer.x0, outer.y1, outer.x1),
            Window(inner.y0, outer.x0, inner.y1, inner.x0),
            Window(inner.y0, inner.x1, inner.y1, outer.x1),
        )
        return [self.sums.part(piece) for piece in pieces]


def _window_of(mask: Mask) -> Window:
    return Window(mask.y0, mask.x0, mask.y0 + mask.height, mask.x0 + mask.width)


def _bounds(mask: Mask) -> tuple[float, float, float, float]:
    # A little smaller than its pixels: masks that only touch do not overlap.
    return mask.x0 + 0.25, mask.y0 + 0.25, mask.x0 + mask.width - 0.25, mask.y0 + mask.height - 0.25


def _overlap(one: Part, other: Part) -> tuple[int, int, int]:
    """Pixels shared, pixels of the smaller, pixels of the union; in the ground that both tiles see."""
    seen = one.view & other.view
    both = Window(
        min(one.mask.y0, other.mask.y0), min(one.mask.x0, other.mask.x0),
        max(one.mask.y0 + one.mask.height, other.mask.y0 + other.mask.height),
        max(one.mask.x0 + one.mask.width, other.mask.x0 + other.mask.width),
    ) & seen  # fmt: skip
    if both.empty:
        return 0, 0, 0
    a = one.mask.window(both.y0, both.x0, both.y1, both.x1)
    b = other.mask.window(both.y0, both.x0, both.y1, both.x1)
    shared, sizes = int((a & b).sum()), (int(a.sum()), int(b.sum()))
    return shared, min(sizes), sum(sizes) - shared


def _union(masks: Sequence[Mask]) -> Mask:
    y0, x0 = min(mask.y0 for mask in masks), min(mask.x0 for mask in masks)
    y1, x1 = max(mask.y0 + mask.height for mask in masks), max(mask.x0 + mask.width for mask in masks)
    union = np.zeros((y1 - y0, x1 - x0), bool)
    for mask in masks:
        union[mask.y0 - y0 : mask.y0 - y0 + mask.height, mask.x0 - x0 : mask.x0 - x0 + mask.width] |= mask.to_array()
    return Mask.from_array(union, y0=y0, x0=x0)
