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
from shapely.geometry.base import BaseGeometry

from earthgptx.pipeline.job.grid import Grid
from earthgptx.pipeline.job.lonlat import box_centre
from earthgptx.pipeline.objects.measure import GroundedObject, measured
from earthgptx.pipeline.objects.parts import connected
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.projection import to_lonlat

SAME_ACROSS_ZONES = 0.3
"""Share of the smaller of two objects, found in the grids of two zones, from which they are one;
counted on the ground that both grids search. Less may be rounding: two ships side by side."""
ROUNDING_PX = 3
"""Distance in pixels that the outlines of one object may have in two grids."""


def is_owned(found: GroundedObject, grid: Grid) -> bool:
    """Returns whether an object belongs to its grid.

    It does if its centre lies in the grid's zone, or within two pixels of it, since the grids of
    two zones round differently; or if it answers a visual prompt, which only this grid was asked.
    """
    if grid.zone is None or found.part.prompt_ids:
        return True
    middle, doubt = box_centre(found.geometry), 2 * abs(grid.transform[0]) / 111_000
    west, south, east, north = grid.zone
    return west - doubt <= middle.x < east + doubt and south <= middle.y < north


def is_apart(found: GroundedObject, plan: Plan) -> bool:
    """Returns whether no other grid of the series can show a part of an object.

    A grid of a CRS that is no UTM zone shows the whole AOI, and so may show any object.
    """
    if len(plan.lattices) == 1:
        return True
    grid = plan.grids[found.grid]
    if grid.zone is None or not plan.zones_only:
        return False
    west, south, east, north = found.geometry.bounds
    margin = (plan.reach_px + 2 * ROUNDING_PX) * abs(grid.transform[0]) / 110_000
    wide = margin / max(float(np.cos(np.deg2rad(max(abs(south), abs(north))))), 0.01)
    first, low, last, high = grid.zone
    return (
        first + wide < west and east < last - wide and low + margin < south < north < high - margin
    )


def once_across_zones(
    objects: Sequence[GroundedObject], grids: dict[str, Grid], overlap: float
) -> list[GroundedObject]:
    """Returns the objects of all grids, each once.

    A grid keeps the objects that belong to it. Of two kept ones that are the same, the
    higher-scoring one stays, or the first grid's if equal, with the prompts of both. If it reaches
    the end of what its grid or tile searches, and the other one reaches further, they are united.
    Answers to two prompts stay two objects. What a grid shows of an object that another one keeps
    is its mask there. Of two that neither grid keeps, the higher-scoring one stays.

    Args:
        objects: objects of all grids.
        grids: grids by name.
        overlap: `same_object_overlap` of the model, if it exceeds `SAME_ACROSS_ZONES`.
    """
    ranked = sorted(objects, key=lambda each: (-each.part.score, each.grid, each.object_id))
    searched = {name: to_lonlat(grid.search_area, grid.crs) for name, grid in grids.items()}
    inner = {name: each.buffer(-_degrees(each, grids[name])) for name, each in searched.items()}
    kept = [is_owned(each, grids[each.grid]) for each in ranked]
    merged = _Merged()
    pairs = [
        (a, b, share)
        for a, b, share in _pairs(ranked, searched)
        if share >= max(SAME_ACROSS_ZONES, overlap)
        and not (ranked[a].part.prompted and ranked[b].part.prompted)
    ]
    # First those that a grid keeps; then those that neither keeps.
    for a, b, share in [pair for pair in pairs if kept[pair[0]] or kept[pair[1]]]:
        keeper, other = (a, b) if kept[a] else (b, a)
        if keeper in merged.taken or other in merged.taken:
            continue
        one, two = ranked[keeper], ranked[other]
        may_go_on = one.part.cut or not inner[one.grid].covers(one.geometry)
        if (may_go_on and _reaches_further(two, one, grids)) or other in merged.pieces:
            merged.join(keeper, other)
        elif kept[other]:
            merged.take(keeper, other)
        else:
            merged.show(keeper, other, share)
    for a, b, _ in pairs:
        if not (kept[a] or kept[b] or merged.is_known(a) or merged.is_known(b)):
            kept[a] = True
            merged.take(a, b)
    shown = merged.by_keeper()
    return [
        _united(
            [ranked[at] for at in group],
            [ranked[other] for other in sorted(each for at in group for each in shown.get(at, ()))],
        )
        for group in connected(len(ranked), merged.joined)
        if any(kept[at] for at in group) and group[0] not in merged.taken
    ]


class _Merged:
    """Which objects are one; positions in the ranking."""

    def __init__(self) -> None:
        self.joined: list[tuple[int, int]] = []
        self.pieces: set[int] = set()
        """Objects that are a piece of a larger one, as `joined` says."""
        self.taken: dict[int, int] = {}
        """Objects that another one, which stays, is the same as."""
        self._shown: dict[int, tuple[float, int]] = {}
        self._keepers: set[int] = set()

    def join(self, keeper: int, other: int) -> None:
        """Notes that two objects are pieces of one."""
        self.joined.append((keeper, other))
        self.pieces |= {keeper, other}

    def take(self, keeper: int, other: int) -> None:
        """Notes that two objects are the same, and which one stays."""
        self.taken[other] = keeper
        self._keepers.add(keeper)

    def show(self, keeper: int, other: int, share: float) -> None:
        """Notes what another grid shows of an object; of several objects, that of most share."""
        self._shown[other] = max(self._shown.get(other, (0.0, -1)), (share, keeper))

    def is_known(self, at: int) -> bool:
        """Whether something is noted of an object."""
        return at in self.pieces or at in self._shown or at in self.taken or at in self._keepers

    def by_keeper(self) -> dict[int, list[int]]:
        """Returns what other grids show, by the object that it is, or is a piece of."""
        shown = {at: keeper for at, (_, keeper) in self._shown.items() if at not in self.pieces}
        found: dict[int, list[int]] = defaultdict(list)
        for other, keeper in (shown | self.taken).items():
            found[keeper].append(other)
        return found


def _reaches_further(other: GroundedObject, one: GroundedObject, grids: dict[str, Grid]) -> bool:
    """Whether an object reaches further than another one, by more than rounding."""
    rounding = _degrees(one.geometry, grids[one.grid])
    return not one.geometry.buffer(rounding).covers(other.geometry)


def _degrees(geometry: BaseGeometry, grid: Grid) -> float:
    """Returns the distance that counts as rounding, in degrees of longitude."""
    _, south, _, north = geometry.bounds
    shrunk = max(float(np.cos(np.deg2rad(max(abs(south), abs(north))))), 0.01)
    return ROUNDING_PX * abs(grid.transform[0]) / (111_000 * shrunk)


def _pairs(
    ranked: Sequence[GroundedObject], searched: dict[str, BaseGeometry]
) -> Iterator[tuple[int, int, float]]:
    """Yields pairs of one label and time slice, of different grids, that share ground.

    Yields the positions in the ranking, in its order, and the shared area over that of the smaller
    one, on the ground that both grids search.
    """
    shapes = np.array([each.geometry for each in ranked], object)
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


def _united(pieces: Sequence[GroundedObject], shown: Sequence[GroundedObject]) -> GroundedObject:
    """Returns one object of pieces: the first gives score and id.

    Caption and replies are those of the first piece that has any.

    Args:
        pieces: pieces, highest-scoring first.
        shown: what other grids show of them.
    """
    best, everything = pieces[0], (*pieces, *shown)
    if len(everything) == 1:
        return best
    prompt_ids = tuple(sorted({name for each in everything for name in each.part.prompt_ids}))
    caption = next((each.part.caption for each in everything if each.part.caption), "")
    replies = next((each.part.replies for each in everything if each.part.replies), ())
    united = replace(
        best,
        part=replace(best.part, prompt_ids=prompt_ids, caption=caption, replies=replies),
        elsewhere=tuple((each.grid, each.part.mask) for each in everything[1:]),
    )
    if len(pieces) == 1:
        return united
    return measured(united, shapely.union_all([each.geometry for each in pieces]))
