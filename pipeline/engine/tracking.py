"""Gives objects that stay from time slice to time slice one track id.

An object is compared with the objects of the last slice before its own that has an answer where it
lies: by orbits and clouds, that need not be the slice just before. If an outline of its label
overlaps there, it goes on that object's track; else a track begins, with its own id. What a slice
is given follows from the slices before it by time alone, so that it does not depend on the order in
which they arrived: where one comes late, those behind it are tracked again until nothing changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
import zarr
from numpy.typing import NDArray

from earthgptx.model.interface.allocator import trim_allocator
from earthgptx.pipeline.engine.object_groups import ObjectGroups, ObjectsDamaged, RowGroup
from earthgptx.pipeline.errors import Outage
from earthgptx.pipeline.objects.overlap import Pairs, Shapes, each_once, overlapping
from earthgptx.pipeline.results.object_table import OBJECTS
from earthgptx.pipeline.results.rows_group import new_version, put_files
from earthgptx.pipeline.results.seen import answered
from earthgptx.pipeline.results.slices_group import SliceRow, SliceTable
from earthgptx.pipeline.storage.fence import FencedBlobs

REACH = 16
"""Slices before its own in which an object is looked for."""


@dataclass(frozen=True, slots=True)
class _Link:
    """Pairs of a slice's objects with those of one earlier slice."""

    pairs: Pairs
    """`old` counts the objects of the earlier slice, `new` those of the slice."""
    ids: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Ids of the pairs' objects, old and new."""
    tracks: NDArray[np.int64]
    """Track of the old object of each pair."""


def stale(rows: Sequence[SliceRow]) -> dict[int, str]:
    """Returns the finished slices whose track ids are to be made again, the earliest first.

    Each with the hash of what they follow from besides its own objects.
    """
    keys = {at: _key(rows, window) for at, window in _windows(rows, frozenset())}
    return {at: key for at, key in keys.items() if rows[at].track_key != key}


class Tracking:
    """Writes the track ids of time slices into the files and rows of their objects."""

    def __init__(self, root: zarr.Group, folder: FencedBlobs, table: SliceTable) -> None:
        """Takes the root group of a result, the folder of its objects, and its slices."""
        self._root, self._folder, self._table = root, folder, table
        self._doubted = False
        """Whether a shard that says what was seen is damaged, of those read for a slice."""

    def track(self, slices: Set[int] | None = None) -> None:
        """Makes the track ids of slices that are stale.

        Args:
            slices: positions of slices that are made, but not finished yet, whose rows are changed
                without being saved; None for all that are finished.

        Raises:
            Outage: the objects of a slice are missing or damaged; the next run mends them.
        """
        rows = self._table.rows
        for at, window in _windows(rows, slices or frozenset()):
            key = _key(rows, window)
            if (slices is not None and at not in slices) or rows[at].track_key == key:
                continue
            self._doubted = False
            try:
                written = self._make(at, window)
            except ObjectsDamaged as error:
                self._have_mended(error.at)
                raise Outage(
                    f"the objects of {rows[error.at].name} are damaged ({error}); run the same "
                    "command again, which writes them anew"
                ) from error
            # Made again by the next run, if what was seen could not be read.
            self._table.change(at, track_key="" if self._doubted else key)
            if rows[at].finished and written:
                self._table.save()

    def _have_mended(self, at: int) -> None:
        """Notes that the files of a slice have another size than they have, so that no run
        believes them.
        """
        if self._table.rows[at].finished:
            self._table.change(at, bytes=-1)
            self._table.save()

    def _make(self, at: int, window: Sequence[int]) -> bool:
        """Writes the track ids of a slice, if they are others than those that it has."""
        row = self._table.rows[at]
        torn = row.finished and not row.object_digest
        if not row.objects or (not window and not row.track_key and not torn):
            return False  # a new slice's objects are on their own tracks
        with ObjectGroups(self._folder, self._table.rows) as groups:
            tracks, before = self._tracks(groups, at, window)
            if (tracks == before).all() and not torn:
                return False
            if row.finished:  # a kill leaves a slice that says so until it is written as a whole
                self._table.change(at, track_key="", object_digest="")
                self._table.save()
            tables = self._with(groups, at, tracks)
            version = new_version(self._root)
            told = put_files(self._folder, row.name, tables, OBJECTS, version)
        self._put_rows(at, tracks)
        self._table.change(at, **told)
        return True

    def _put_rows(self, at: int, tracks: NDArray[np.int64]) -> None:
        """Writes the track ids of a slice into the Zarr group, if it has the slice's rows."""
        first = self._table.rows[at].first_object
        if first < 0:
            return
        array: Any = self._root["objects/track_id"]
        try:
            if array.shape[0] >= first + len(tracks):
                array[first : first + len(tracks)] = tracks
        except (ValueError, RuntimeError):  # of the checksum or the codec
            self._table.change(at, first_object=-1)  # so that all are written again

    def _tracks(
        self, groups: ObjectGroups, at: int, window: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the track id of each object of a slice, and the one that it has now, (N,)."""
        own, before, links = [], [], []
        for group in groups.of(at):
            shapes, tracks = groups.shapes(group)
            own.append(shapes.ids)
            before.append(tracks)
            links += list(self._links(groups, group, shapes, window))
            trim_allocator()
        found = np.concatenate(own)
        for link, kept in _chosen(links):
            found[link.pairs.new[kept]] = link.tracks[kept]
        return found, np.concatenate(before)

    def _links(
        self, groups: ObjectGroups, group: RowGroup, shapes: Shapes, window: Sequence[int]
    ) -> Iterator[_Link]:
        """Yields the pairs of a row group's objects, each with the last slice that saw its place.

        Args:
            groups: objects of the result.
            group: a row group of the slice.
            shapes: its objects.
            window: positions of earlier slices, the latest first.
        """
        lon, lat = shapely.get_coordinates(shapely.point_on_surface(shapes.outlines)).T
        left = np.arange(len(shapes.ids))
        for earlier in window:
            seen, whole = answered(self._root, earlier, lon[left], lat[left])
            self._doubted |= not whole
            here, left = left[seen], left[~seen]
            mine = Shapes(shapes.outlines[here], shapes.labels[here], shapes.ids[here])
            for other in groups.of(earlier) if len(here) else ():
                if group.meets(other):
                    theirs, tracks = groups.shapes(other)
                    old, new, overlap = overlapping(theirs, mine)
                    pairs = Pairs(old + other.first, here[new] + group.first, overlap)
                    yield _Link(pairs, (theirs.ids[old], mine.ids[new]), tracks[old])
            if not len(left):
                return

    def _with(self, groups: ObjectGroups, at: int, tracks: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Yields a slice's row groups, with other track ids."""
        for group in groups.of(at):
            table = groups.table(group)
            place = table.schema.get_field_index("track_id")
            values = pa.array(tracks[group.first : group.first + len(table)])
            yield table.set_column(place, "track_id", values)


def _windows(rows: Sequence[SliceRow], more: Set[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yields each slice that is made, by time, with those before it, the latest first."""
    there = [at for at, row in enumerate(rows) if row.finished or at in more]
    there.sort(key=lambda at: (rows[at].start, rows[at].name))
    for number, at in enumerate(there):
        yield at, tuple(reversed(there[max(number - REACH, 0) : number]))


def _key(rows: Sequence[SliceRow], window: Sequence[int]) -> str:
    """Returns a hash of all that the track ids of a slice follow from, besides its own objects."""
    told = [
        f"{row.key} {row.failed} {row.passing} {row.object_digest}"
        for row in (rows[at] for at in window)
    ]
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()


def _chosen(links: Sequence[_Link]) -> Iterator[tuple[_Link, NDArray[np.int64]]]:
    """Yields links with those of their pairs that are kept.

    Of two pairs that share an object or a track, the one of the larger overlap is, then that of
    lower ids.
    """
    if not links:
        return
    overlap = np.concatenate([link.pairs.overlap for link in links])
    old_ids = np.concatenate([link.ids[0] for link in links])
    new_ids = np.concatenate([link.ids[1] for link in links])
    tracks = np.concatenate([link.tracks for link in links])
    new = np.concatenate([link.pairs.new for link in links])
    kept = np.sort(each_once(tracks, new, np.lexsort([new_ids, old_ids, -overlap])))
    counts = [len(link.tracks) for link in links]
    ends = np.cumsum(counts)
    parts = np.split(kept, np.searchsorted(kept, ends[:-1]))
    for link, end, count, part in zip(links, ends, counts, parts, strict=True):
        yield link, part - (end - count)
