"""Gathers the objects of one time slice from what its blocks have found.

Two passes over the files of the blocks. The first stitches what blocks have left open, and notes
where all objects lie. The second yields the rows of the result. The driver holds what is stitched,
the outlines of landmarks, and some numbers for each of the other objects.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from earthgptx.model.interface.allocator import trim_allocator
from earthgptx.pipeline.engine.scratch import Scratch, ScratchLost
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.objects.finals import FINAL, MASK, UNANSWERED, finals_table
from earthgptx.pipeline.objects.landmarks import LANDMARK_M, Landmarks, Placed
from earthgptx.pipeline.objects.measure import GroundedObject
from earthgptx.pipeline.objects.neighbours import neighbours
from earthgptx.pipeline.objects.stitch import OpenParts, PiecesByBlock, by_block, stitch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.completing import (
    NEAR,
    Origin,
    along_curve,
    completed,
    completed_answers,
    completed_replies,
)
from earthgptx.pipeline.results.object_table import ROW_GROUP, regrouped


class Gathering:
    """The objects and answers of a time slice."""

    def __init__(self, plan: Plan, at: int, scratch: Scratch) -> None:
        """Reads what the blocks of a slice have found, and stitches what they have left open.

        Args:
            plan: plan of the run.
            at: position of the slice.
            scratch: scratch of the run.

        Raises:
            ScratchLost: what some blocks have found is missing or damaged; names all of them.
        """
        self._scratch = scratch
        self._origin = Origin.of(plan, at)
        self._lost: list[BlockKey] = []
        self._labels: dict[str, int] = {}
        self._found: dict[BlockKey, int] = {}
        """Number of final objects, by block."""
        self._places: dict[BlockKey, _Places] = {}
        """Where they lie, by block, until neighbours are found."""
        self._asked: dict[BlockKey, int] = {}
        """Number of visual prompts, by block."""
        self._replied: dict[BlockKey, int] = {}
        """Number of replies about tiles and final objects, by block."""
        self.unanswered = 0
        """Prompts whose tile saw no valid pixel or is quarantined."""
        stitched = stitch(plan, at, self._open_parts(plan.blocks_of(at)))
        if self._lost:
            raise ScratchLost(self._lost)
        self.pieces: PiecesByBlock = by_block(plan, stitched)
        """Pieces of the stitched objects in each block."""
        self._stitched = self._placed(stitched)
        self._prompted = {
            name: each.object_id for each in stitched for name in each.part.prompt_ids
        }
        self.objects = sum(self._found.values()) + len(stitched)
        self.answers = sum(self._asked.values())
        self.replies = sum(self._replied.values())
        self.replies += sum(len(each.part.replies) for each in stitched)
        self._near = self._neighbours()
        self._places.clear()
        trim_allocator()

    @property
    def _nothing(self) -> pa.Table:
        return FINAL.empty_table().drop_columns(MASK)

    def blocks(self) -> set[BlockKey]:
        """Returns the blocks that show objects."""
        return {key for key, found in self._found.items() if found} | self.pieces.keys()

    def _open_parts(self, keys: tuple[BlockKey, ...]) -> Iterator[OpenParts]:
        """Yields what each block has left open; notes where its final objects lie."""
        for key in keys:
            try:
                found = self._scratch.get_objects(key)
            except ScratchLost:
                self._lost.append(key)
                continue
            self._found[key] = len(found.finals)
            self._places[key] = self._places_of(found.finals)
            self._asked[key] = len(found.answers)
            self._replied[key] = len(found.replies) + _count_replies(found.finals)
            outcomes = found.answers["outcome"].to_pylist()
            self.unanswered += sum(each in UNANSWERED for each in outcomes)
            yield key, found.settled, found.open

    def _places_of(self, finals: pa.Table) -> _Places:
        labels = [
            self._labels.setdefault(label, len(self._labels))
            for label in finals["label"].to_pylist()
        ]
        measures = ("lon", "lat", "length_m", "width_m")
        numbers = (finals[name].to_numpy() for name in measures)
        rows = np.flatnonzero(finals["length_m"].to_numpy() >= LANDMARK_M)
        outlines = shapely.from_wkb(finals["geometry"].take(pa.array(rows)).to_numpy())
        return _Places(np.column_stack([labels, *numbers]), rows, outlines)

    def _placed(self, stitched: list[GroundedObject]) -> dict[BlockKey, pa.Table]:
        """Returns the rows of the stitched objects, by the first block that shows them."""
        first: dict[int, BlockKey] = {}
        for key in sorted(self.pieces):
            for _, object_id, _ in self.pieces[key]:
                first.setdefault(object_id, key)
        groups: dict[BlockKey, list[GroundedObject]] = defaultdict(list)
        nowhere = next(iter(self._found), None)
        for each in stitched:
            place = first.get(each.object_id, nowhere)
            assert place is not None, "a stitched object comes of a block"
            groups[place].append(each)
        return {key: finals_table(group).drop_columns(MASK) for key, group in groups.items()}

    def _neighbours(self) -> dict[BlockKey, pa.Table]:
        """Returns the columns `NEAR` of each object, by block."""
        places = [
            _joined([found, self._places_of(self._stitched.get(key, self._nothing))])
            for key, found in self._places.items()
        ]
        if not places:
            return {}
        together = _joined(places)
        labels, *measures = together.objects.T
        names = sorted(self._labels)
        ranks = np.array([names.index(name) for name in self._labels], np.int64)
        kinds = ranks[labels.astype(np.int64)]
        landmarks = Landmarks(together.landmarks, together.outlines)
        found = neighbours(Placed(kinds, *measures), landmarks)
        names.append("")
        numbers = np.where(found.other >= 0, kinds[found.other], len(names) - 1)
        other = pa.DictionaryArray.from_arrays(numbers.astype(np.int32), names)
        columns = [found.same_m, found.same_deg, other]
        columns += [found.other_m, found.other_deg, found.landmark]
        table = pa.Table.from_arrays([pa.array(each) for each in columns], names=list(NEAR))
        starts = np.cumsum([0, *(len(each.objects) for each in places)]).tolist()
        return {
            key: table.slice(start, end - start)
            for key, (start, end) in zip(self._found, itertools.pairwise(starts), strict=True)
        }

    def tables(self) -> Iterator[pa.Table]:
        """Yields the rows of all objects, in tables of `ROW_GROUP` rows but for the last.

        Blocks come along a Hilbert curve, and so do the rows of each table.

        Raises:
            ScratchLost: what a block has found is missing or damaged.
        """
        for table in regrouped(self._by_block(), ROW_GROUP):
            yield completed(table, self._origin)
            trim_allocator()

    def _by_block(self) -> Iterator[pa.Table]:
        """Yields the objects of each block, with their neighbours."""
        for key in self._curve(key for key in self._found if len(self._near[key])):
            tables = [self._stitched[key]] if key in self._stitched else []
            if self._found[key]:
                tables.insert(0, self._scratch.get_finals(key).drop_columns(MASK))
            table = pa.concat_tables(tables)
            for name in NEAR:
                table = table.append_column(name, self._near[key][name])
            yield table

    def asked(self) -> Iterator[pa.Table]:
        """Yields the rows of all answers, a block's after the other's along a Hilbert curve.

        Raises:
            ScratchLost: what a block has found is missing or damaged.
        """
        blocks = self._curve(key for key, count in self._asked.items() if count)
        for table in regrouped(map(self._scratch.get_answers, blocks), ROW_GROUP):
            yield completed_answers(table, self._prompted, self._origin)

    def replied(self) -> Iterator[pa.Table]:
        """Yields the rows of all replies, a block's after the other's along a Hilbert curve.

        Raises:
            ScratchLost: what a block has found is missing or damaged.
        """
        stitched = {key for key, table in self._stitched.items() if _count_replies(table)}
        replied = {key for key, count in self._replied.items() if count}
        yield from regrouped(map(self._replies_of, self._curve(replied | stitched)), ROW_GROUP)

    def _replies_of(self, key: BlockKey) -> pa.Table:
        tiles, finals = self._scratch.get_replies(key)
        tables = [finals.drop_columns(MASK), self._stitched.get(key, self._nothing)]
        return completed_replies(tiles, pa.concat_tables(tables), self._origin)

    def _curve(self, keys: Iterable[BlockKey]) -> list[BlockKey]:
        """Returns blocks by grid, and along a Hilbert curve over its rows and columns."""
        found: list[BlockKey] = []
        for _, group in itertools.groupby(sorted(keys), key=lambda key: key.grid):
            members = list(group)
            places = np.array([(key.col, key.row) for key in members], float).T
            order = np.argsort(along_curve(*places), kind="stable")
            found += [members[at] for at in order]
        return found


@dataclass(frozen=True, slots=True)
class _Places:
    """Where N objects lie."""

    objects: NDArray[np.float64]
    """(N, 5) number of the label, longitude, latitude of the middle, length and width in metres."""
    landmarks: NDArray[np.int64]
    """(M,) positions of those that are landmarks."""
    outlines: NDArray[np.object_]
    """(M,) their outlines, lon/lat."""


def _joined(places: Sequence[_Places]) -> _Places:
    """Returns the objects of several places as those of one, in their order."""
    starts = np.cumsum([0, *(len(each.objects) for each in places)])
    rows = [start + each.landmarks for start, each in zip(starts[:-1], places, strict=True)]
    outlines = np.concatenate([each.outlines for each in places])
    return _Places(
        np.concatenate([each.objects for each in places]), np.concatenate(rows), outlines
    )


def _count_replies(objects: pa.Table) -> int:
    """Returns the number of replies about objects."""
    return int(pc.sum(pc.list_value_length(objects["replies"])).as_py() or 0)
