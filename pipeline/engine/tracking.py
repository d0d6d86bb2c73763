"""Gives objects that stay from time slice to time slice one track id.

An object is compared with the objects of the last slice before its own that has an answer where
it lies: by orbits and clouds, that need not be the slice just before. If an outline of its label
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
import pyarrow.parquet as pq
import shapely
import zarr
from numpy.typing import NDArray

from earthgptx.model.interface.allocator import trim_allocator
from earthgptx.pipeline.errors import Outage
from earthgptx.pipeline.objects.finals import EDGES
from earthgptx.pipeline.objects.overlap import Pairs, Shapes, each_once, overlapping
from earthgptx.pipeline.results.object_table import OBJECTS, files_in, outlines_of
from earthgptx.pipeline.results.rows_group import new_version, put_files
from earthgptx.pipeline.results.seen import answered
from earthgptx.pipeline.results.slices_group import SliceRow, SliceTable
from earthgptx.pipeline.storage.fence import FencedBlobs

REACH = 16
"""Slices before its own in which an object is looked for."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a slice's files."""

    file: str
    number: int
    first: int
    """Place of its first row among the slice's objects."""
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Link:
    """Pairs of a slice's objects with those of one earlier slice."""

    slice: int
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

    def track(self, slices: Set[int] | None = None) -> None:
        """Makes the track ids of slices that are stale; changes their rows without saving them.

        Args:
            slices: positions of slices that are made, but not finished yet; None for all that are
                finished.

        Raises:
            Outage: the objects of a slice are missing or damaged; the next run mends them.
        """
        rows = self._table.rows
        for at, window in _windows(rows, slices or frozenset()):
            key = _key(rows, window)
            if (slices is None or at in slices) and rows[at].track_key != key:
                try:
                    self._make(at, window)
                except (FileNotFoundError, pa.ArrowException) as error:
                    raise Outage(
                        "the objects of a time slice are missing or damaged "
                        f"({type(error).__name__}); run the same command again"
                    ) from error
                self._table.change(at, track_key=key)

    def _make(self, at: int, window: Sequence[int]) -> None:
        """Writes the track ids of a slice, if they are others than those that it has."""
        row = self._table.rows[at]
        if not row.objects or (not window and not row.track_key):
            return  # a new slice's objects are on their own tracks
        tracks, before = self._tracks(at, window)
        if (tracks == before).all():
            return
        tables = self._with(row, tracks)
        version = new_version(self._root)
        self._table.change(at, **put_files(self._folder, row.name, tables, OBJECTS, version))
        first = row.first_object
        if first >= 0:
            array: Any = self._root["objects/track_id"]
            try:
                if array.shape[0] >= first + len(tracks):
                    array[first : first + len(tracks)] = tracks
            except (ValueError, RuntimeError):  # of the checksum or the codec
                self._table.change(at, first_object=-1)  # so that all are written again

    def _tracks(
        self, at: int, window: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the track id of each object of a slice, and the one that it has now, (N,)."""
        groups = self._groups(self._table.rows[at])
        earlier = {j: self._groups(self._table.rows[j]) for j in window}
        own, before, links = [], [], []
        for group in groups:
            shapes, tracks = self._shapes(group)
            own.append(shapes.ids)
            before.append(tracks)
            links += list(self._links(group, shapes, earlier))
            trim_allocator()
        found = np.concatenate(own)
        for link, kept in _chosen(links):
            found[link.pairs.new[kept]] = link.tracks[kept]
        return found, np.concatenate(before)

    def _links(
        self, group: _Group, shapes: Shapes, earlier: dict[int, list[_Group]]
    ) -> Iterator[_Link]:
        """Yields the pairs of a row group's objects, each with the last slice that saw its place.

        Args:
            group: a row group of the slice.
            shapes: its objects.
            earlier: row groups of earlier slices, the latest first.
        """
        lon, lat = shapely.get_coordinates(shapely.point_on_surface(shapes.outlines)).T
        left = np.arange(len(shapes.ids))
        for j, groups in earlier.items():
            seen = answered(self._root, j, lon[left], lat[left])
            here, left = left[seen], left[~seen]
            mine = Shapes(shapes.outlines[here], shapes.labels[here], shapes.ids[here])
            for other in groups if len(here) else ():
                if not _meet(group.bounds, other.bounds):
                    continue
                theirs, tracks = self._shapes(other)
                old, new, overlap = overlapping(theirs, mine)
                pairs = Pairs(old + other.first, here[new] + group.first, overlap)
                yield _Link(j, pairs, (theirs.ids[old], mine.ids[new]), tracks[old])
            if not len(left):
                return

    def _groups(self, row: SliceRow) -> list[_Group]:
        """Returns the row groups of a slice's files."""
        found: list[_Group] = []
        first = 0
        for name in files_in(row, OBJECTS):
            with self._folder.open(name) as file:
                told = pq.ParquetFile(file).metadata
            for number in range(told.num_row_groups):
                found.append(_Group(name, number, first, _bounds(told.row_group(number))))
                first += told.row_group(number).num_rows
        return found

    def _shapes(self, group: _Group) -> tuple[Shapes, NDArray[np.int64]]:
        """Returns the objects of a row group, and their track ids."""
        columns = ["object_id", "track_id", "label", "geometry"]
        with self._folder.open(group.file) as file, pq.ParquetFile(file) as parquet:
            table = parquet.read_row_group(group.number, columns=columns)
        labels = np.array([*table["label"].to_pylist(), None], object)[:-1]
        ids = np.asarray(table["object_id"].to_numpy())
        return Shapes(outlines_of(table), labels, ids), np.asarray(table["track_id"].to_numpy())

    def _with(self, row: SliceRow, tracks: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Yields a slice's row groups, with other track ids."""
        for group in self._groups(row):
            with self._folder.open(group.file) as file, pq.ParquetFile(file) as parquet:
                table = parquet.read_row_group(group.number)
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

    Of two pairs that share an object, the one of the larger overlap is, then that of lower ids.
    """
    if not links:
        return
    counts = [len(link.pairs.old) for link in links]
    overlap = np.concatenate([link.pairs.overlap for link in links])
    old_ids = np.concatenate([link.ids[0] for link in links])
    new_ids = np.concatenate([link.ids[1] for link in links])
    new = np.concatenate([link.pairs.new for link in links])
    kept = np.sort(each_once(old_ids, new, np.lexsort([new_ids, old_ids, -overlap])))
    ends = np.cumsum(counts)
    parts = np.split(kept, np.searchsorted(kept, ends[:-1]))
    for link, end, count, part in zip(links, ends, counts, parts, strict=True):
        yield link, part - (end - count)


def _bounds(group: Any) -> tuple[float, float, float, float]:
    """Returns west, south, east and north of the outlines of a row group, by its statistics."""
    told = {
        group.column(at).path_in_schema: group.column(at).statistics
        for at in range(group.num_columns)
    }
    west, south, east, north = (told[f"bbox.{edge}"] for edge in EDGES)
    return west.min, south.min, east.max, north.max


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]
