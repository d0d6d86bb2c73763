"""Makes objects that the grids of two UTM zones show one object.

Each grid searches its own zone and a halo past the border. An object that reaches less than the
halo past the border is seen whole by the grid of the zone that holds its centre, which keeps it. A
longer one is seen in pieces, which are united.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import shapely
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.objects.measure import GroundedObject, measured
from earthgptx.pipeline.planning.projection import to_lonlat

SAME_ACROSS_ZONES = 0.3
"""Share of the smaller of two objects, found in the grids of two zones, from which they are one;
counted on the ground that both grids search. Less may be rounding: two ships side by side."""
ROUNDING_PX = 3
"""Distance in pixels that the outlines of one object may have in two grids."""


def is_owned(found: GroundedObject, grid: Grid) -> bool:
    """Returns whether an object's centre lies in the zone of its grid, or within two pixels of it.

    The grids of two zones round differently.
    """
    if grid.zone is None:
        return True
    middle, doubt = found.geometry.envelope.centroid, 2 * abs(grid.transform[0]) / 111_000
    west, south, east, north = grid.zone
    return west - doubt <= middle.x < east + doubt and south <= middle.y < north


def once_across_zones(
    objects: Sequence[GroundedObject], grids: dict[str, Grid], overlap: float
) -> list[GroundedObject]:
    """Returns the objects of all grids, each once.

    A grid keeps the objects whose centre lies in its zone. Of two kept ones that are the same, the
    higher-scoring one stays, or the first grid's if equal; if the other one reaches further, they
    are united. A united object has the score, id and caption of its highest-scoring piece. What a
    grid shows of an object that another one keeps is its mask there.

    Args:
        objects: objects of all grids.
        grids: grids by name.
        overlap: `same_object_overlap` of the model, if it exceeds `SAME_ACROSS_ZONES`.
    """
    ranked = sorted(objects, key=lambda each: (-each.part.score, each.grid, each.object_id))
    kept = [is_owned(each, grids[each.grid]) for each in ranked]
    dropped: set[int] = set()
    joined: list[tuple[int, int]] = []
    shown: dict[int, tuple[float, int]] = {}
    for a, b, share in _pairs(ranked, grids):
        if share < max(SAME_ACROSS_ZONES, overlap) or a in dropped or b in dropped:
            continue
        if kept[a] and kept[b] and _reaches_further(ranked[b], ranked[a], grids):
            joined.append((a, b))
        elif kept[a] and kept[b]:
            dropped.add(b)
            shown[b] = (share, a)
        elif kept[a] or kept[b]:
            keeper, other = (a, b) if kept[a] else (b, a)
            shown[other] = max(shown.get(other, (0.0, -1)), (share, keeper))
    groups = _groups(len(ranked), [pair for pair in joined if not dropped & set(pair)])
    elsewhere: dict[int, list[int]] = defaultdict(list)
    for other, (_, keeper) in sorted(shown.items()):
        elsewhere[keeper].append(other)
    return [
        _united(
            [ranked[at] for at in group],
            [ranked[other] for at in group for other in elsewhere[at]],
        )
        for group in groups
        if kept[group[0]] and group[0] not in dropped
    ]


def _reaches_further(other: GroundedObject, one: GroundedObject, grids: dict[str, Grid]) -> bool:
    """Whether an object reaches further than another one, by more than rounding."""
    metres = ROUNDING_PX * abs(grids[one.grid].transform[0])
    shrunk = max(np.cos(np.deg2rad(one.geometry.bounds[1])), 0.01)
    degrees = metres / (111_000 * shrunk)
    return not one.geometry.buffer(degrees).covers(other.geometry)


def _pairs(
    ranked: Sequence[GroundedObject], grids: dict[str, Grid]
) -> Iterator[tuple[int, int, float]]:
    """Yields pairs of one label and time slice, of different grids, that share ground.

    Yields the positions in the ranking, in its order, and the shared area over that of the smaller
    one, on the ground that both grids search.
    """
    shapes = np.array([each.geometry for each in ranked], object)
    searched = {name: to_lonlat(grid.search_area, grid.crs) for name, grid in grids.items()}
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    for a, b in sorted(zip(first.tolist(), second.tolist(), strict=True)):
        one, other = ranked[a], ranked[b]
        if (
            a >= b
            or one.grid == other.grid
            or one.time != other.time
            or one.part.label != other.part.label
        ):
            continue
        both = shapely.intersection(shapes[a], shapes[b]).area
        least = min(
            shapes[a].intersection(searched[other.grid]).area,
            shapes[b].intersection(searched[one.grid]).area,
        )
        yield a, b, both / least if least else 0.0


def _groups(count: int, joined: list[tuple[int, int]]) -> list[list[int]]:
    """Returns the positions of the objects that are one, the lowest first."""
    rows, cols = (list(each) for each in zip(*joined, strict=True)) if joined else ([], [])
    graph = coo_matrix((np.ones(len(rows), bool), (rows, cols)), shape=(count, count))
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for at, number in enumerate(group_of.tolist()):
        groups[number].append(at)
    return list(groups.values())


def _united(pieces: Sequence[GroundedObject], shown: Sequence[GroundedObject]) -> GroundedObject:
    """Returns one object of pieces, of which the first gives score, id and caption.

    Args:
        pieces: kept pieces.
        shown: what other grids show of them.
    """
    best = pieces[0]
    masks = tuple((each.grid, each.part.mask) for each in (*pieces[1:], *shown))
    if len(pieces) == 1:
        return replace(best, elsewhere=masks)
    prompt_ids = tuple(sorted({name for each in pieces for name in each.part.prompt_ids}))
    caption = next((each.part.caption for each in pieces if each.part.caption), "")
    outline = shapely.union_all([each.geometry for each in pieces])
    return replace(
        measured(best, outline),
        part=replace(best.part, prompt_ids=prompt_ids, caption=caption),
        elsewhere=masks,
    )
