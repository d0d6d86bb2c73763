"""Reads the files of time slices' objects row group by row group, for what compares slices."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from earthgptx.pipeline.objects.finals import EDGES
from earthgptx.pipeline.objects.overlap import Shapes
from earthgptx.pipeline.results.object_table import OBJECTS, files_in, outlines_of
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.storage.fence import FencedBlobs

OPEN = 4
"""Files that are held open: on an object store each is in memory as a whole."""


class ObjectsDamaged(Exception):
    """The objects of a time slice are missing or damaged."""

    def __init__(self, at: int, reason: Exception) -> None:
        """Sets the position of the slice, and what was raised."""
        self.at = at
        super().__init__(f"{type(reason).__name__}: {' '.join(str(reason).split())}")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a slice's files."""

    slice: int
    """Position of the slice."""
    file: str
    number: int
    first: int
    """Place of its first row among the slice's objects."""
    bounds: tuple[float, float, float, float]
    """West, south, east and north of its outlines."""

    def meets(self, other: RowGroup) -> bool:
        """Whether outlines of two row groups may overlap."""
        west, south, east, north = self.bounds
        w, s, e, n = other.bounds
        return west <= e and w <= east and south <= n and s <= north


class ObjectGroups:
    """The objects of some time slices, by row groups; a context manager that closes their files."""

    def __init__(self, folder: FencedBlobs, rows: Sequence[SliceRow]) -> None:
        """Takes the folder of the files and the slices of a result."""
        self._folder, self._rows = folder, rows
        self._open: OrderedDict[str, tuple[ExitStack, pq.ParquetFile]] = OrderedDict()
        self._known: dict[int, list[RowGroup]] = {}

    def __enter__(self) -> ObjectGroups:
        return self

    def __exit__(self, *_: object) -> None:
        for stack, _file in self._open.values():
            stack.close()
        self._open.clear()

    def of(self, at: int) -> list[RowGroup]:
        """Returns the row groups of a slice.

        Raises:
            ObjectsDamaged: a file is missing or damaged.
        """
        if at not in self._known:
            found: list[RowGroup] = []
            first = 0
            for name in files_in(self._rows[at], OBJECTS):
                with _damage(at):
                    told = self._file(name).metadata
                    for number in range(told.num_row_groups):
                        group = told.row_group(number)
                        found.append(RowGroup(at, name, number, first, _bounds(group)))
                        first += group.num_rows
            self._known[at] = found
        return self._known[at]

    def table(self, group: RowGroup, columns: list[str] | None = None) -> pa.Table:
        """Returns a row group, or some columns of it.

        Raises:
            ObjectsDamaged: its file is missing or damaged.
        """
        with _damage(group.slice):
            return self._file(group.file).read_row_group(group.number, columns=columns)

    def shapes(self, group: RowGroup) -> tuple[Shapes, NDArray[np.int64]]:
        """Returns the objects of a row group, and their track ids.

        Raises:
            ObjectsDamaged: its file is missing or damaged.
        """
        table = self.table(group, ["object_id", "track_id", "label", "geometry"])
        labels = np.array([*table["label"].to_pylist(), None], object)[:-1]
        ids, tracks = (np.asarray(table[name].to_numpy()) for name in ("object_id", "track_id"))
        with _damage(group.slice):
            return Shapes(outlines_of(table), labels, ids), tracks

    def _file(self, name: str) -> pq.ParquetFile:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name][1]
        with ExitStack() as stack:
            file = stack.enter_context(self._folder.open(name))
            parquet = stack.enter_context(pq.ParquetFile(file))
            self._open[name] = stack.pop_all(), parquet
        if len(self._open) > OPEN:
            _, (oldest, _parquet) = self._open.popitem(last=False)
            oldest.close()
        return parquet


@contextmanager
def _damage(at: int) -> Iterator[None]:
    """Turns what comes of reading a damaged file into `ObjectsDamaged`."""
    try:
        yield
    except (FileNotFoundError, pa.ArrowException, shapely.GEOSException) as error:
        raise ObjectsDamaged(at, error) from error
    except OSError as error:
        if error.errno is not None:  # of the disk, not of pyarrow
            raise
        raise ObjectsDamaged(at, error) from error


def _bounds(group: Any) -> tuple[float, float, float, float]:
    """Returns west, south, east and north of the outlines of a row group, by its statistics."""
    told = {
        group.column(at).path_in_schema: group.column(at).statistics
        for at in range(group.num_columns)
    }
    west, south, east, north = (told[f"bbox.{edge}"] for edge in EDGES)
    return west.min, south.min, east.max, north.max
