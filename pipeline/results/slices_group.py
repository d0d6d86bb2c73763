"""The Zarr group `slices` of a result: which time slices it has, and what has become of each.

A slice keeps its position for ever: rasters have their slices in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.results.store import CODECS

CHUNK = 4096
"""Slices of a chunk."""
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
TIMES: dict[str, Any] = {
    "units": "microseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}


class SliceState(StrEnum):
    """What has become of a time slice."""

    RUNNING = "running"
    """Some of it is missing, or is being made again."""
    FINISHED = "finished"
    GONE = "gone"
    """The archive has no Item of it any more; it is in the store and left out by readers."""


@dataclass(frozen=True, slots=True)
class SliceRow:
    """A time slice of a result."""

    name: str
    start: datetime
    """Start of its day or month, or time of its first Item."""
    end: datetime
    """Time of its last Item."""
    items: int
    key: str
    """Content key of its Items."""
    blocks: int
    """Number of its blocks that Items show."""
    tiles: int
    """Number of its tiles that Items show."""
    failed: int = 0
    """Quarantined tiles."""
    passing: int = 0
    """Those of them whose cause may pass."""
    objects: int = 0
    first_object: int = -1
    """Row of its first object in the Zarr group `objects`; -1 if they are not there yet."""
    files: int = 0
    """Number of its files of objects."""
    bytes: int = 0
    """Size of its files of objects."""
    object_version: str = ""
    """Version in the names of these files."""
    object_digest: str = ""
    """Hash of its files of objects."""
    track_key: str = ""
    """Content key of the slices that its track ids follow from."""
    answers: int = 0
    """Visual prompts that its blocks were given."""
    unanswered: int = 0
    """Those of them whose tile saw no valid pixel or is quarantined."""
    first_answer: int = -1
    """Row of its first answer in the Zarr group `answers`; -1 if they are not there yet."""
    answer_files: int = 0
    """Number of its files of answers."""
    answer_bytes: int = 0
    """Size of its files of answers."""
    answer_version: str = ""
    """Version in the names of these files."""
    replies: int = 0
    """Replies to questions in words."""
    first_reply: int = -1
    """Row of its first reply in the Zarr group `replies`; -1 if they are not there yet."""
    reply_files: int = 0
    """Number of its files of replies."""
    reply_bytes: int = 0
    """Size of its files of replies."""
    reply_version: str = ""
    """Version in the names of these files."""
    state: str = SliceState.RUNNING

    @property
    def finished(self) -> bool:
        """Whether all of it is there."""
        return self.state == SliceState.FINISHED


COLUMNS = tuple(field.name for field in fields(SliceRow))
PLACES = (
    "first_object",
    "files",
    "bytes",
    "object_version",
    "object_digest",
    "track_key",
    "first_answer",
    "answer_files",
    "answer_bytes",
    "answer_version",
    "first_reply",
    "reply_files",
    "reply_bytes",
    "reply_version",
)
"""Columns that say where the objects and answers lie, and nothing of the slice."""
_TEXTS = (
    "name",
    "key",
    "object_version",
    "object_digest",
    "track_key",
    "answer_version",
    "reply_version",
    "state",
)
_MOMENTS = ("start", "end")


class SliceTable:
    """The rows of the group `slices`, in the order of the store; the driver alone writes them."""

    def __init__(self, root: zarr.Group) -> None:
        """Reads the table; one that does not exist is empty.

        Raises:
            OutputError: the names of the slices are damaged.
        """
        self._root = root
        self._saved, self.damaged = _read_columns(root)
        """The columns as they are stored; and the name of a damaged one, empty if there is none."""
        self.rows = _rows_of(self._saved, self.damaged)

    def change(self, at: int, **values: Any) -> None:
        """Changes a row, without saving it."""
        self.rows[at] = replace(self.rows[at], **values)

    def save(self) -> None:
        """Writes the table. A row says "running" while other columns than `PLACES` change."""
        wanted = _columns(self.rows)
        changed = [name for name in COLUMNS if not _equal(self._saved[name], wanted[name])]
        if not changed:
            return
        told = [name for name in changed if name not in PLACES]
        between = wanted["state"].copy()
        for at in range(len(self.rows)):
            if any(not _equal(self._saved[n][at : at + 1], wanted[n][at : at + 1]) for n in told):
                between[at] = SliceState.RUNNING
        if not _equal(self._saved["state"][: len(between)], between[: len(self._saved["state"])]):
            self._write("state", between[: len(self._saved["state"])])
        for name in changed:
            if name != "state":
                self._write(name, wanted[name])
        if told:
            self._write("state", wanted["state"])
        self._saved = wanted

    def _write(self, name: str, values: NDArray[Any]) -> None:
        path = f"slices/{name}"
        if path not in self._root:
            self._root.require_group("slices").create_array(
                name,
                shape=(0,),
                dtype=values.dtype,
                chunks=(CHUNK,),
                dimension_names=("slice",),
                compressors=CODECS,
                attributes=TIMES if name in _MOMENTS else None,
            )
        array: Any = self._root[path]
        if array.shape != values.shape:
            array.resize(values.shape)
        if len(values):
            array[...] = values


def read_slices(root: zarr.Group) -> list[SliceRow]:
    """Returns the rows of the group `slices`; none if it does not exist.

    Raises:
        OutputError: the group is damaged.
    """
    columns, damaged = _read_columns(root)
    if damaged:
        raise OutputError(
            f"slices/{damaged} of the result is damaged; run its job once over all of its time"
        )
    return _rows_of(columns, damaged)


def _read_columns(root: zarr.Group) -> tuple[dict[str, NDArray[Any]], str]:
    """Returns the columns that are stored, and the name of a damaged one, which is empty.

    Raises:
        OutputError: the names of the slices are damaged.
    """
    columns, damaged = _columns([]), ""
    for name in COLUMNS if "slices" in root else ():
        try:
            columns[name] = np.asarray(root[f"slices/{name}"][...])  # type: ignore[index]
        except (KeyError, ValueError, RuntimeError) as error:
            if name == "name":
                raise OutputError(
                    "slices/name of the result is damaged; run its job again with --overwrite"
                ) from error
            damaged = name
    return columns, damaged


def _rows_of(columns: dict[str, NDArray[Any]], damaged: str) -> list[SliceRow]:
    """Returns the rows of columns. If one is damaged, they all say "running".

    A kill may leave columns of unequal length: rows that are not in all of them do not count.
    """
    lists = {name: column.tolist() for name, column in columns.items()}
    lengths = [len(each) for each in lists.values() if each or not damaged]
    rows = []
    for at in range(min(lengths, default=0)):
        values = {n: each[at] if at < len(each) else _blank(n) for n, each in lists.items()}
        for name in _MOMENTS:
            values[name] = EPOCH + values[name] * MICROSECOND
        if damaged:
            values |= {"state": SliceState.RUNNING, "key": ""}
            values |= {"first_object": -1, "first_answer": -1, "first_reply": -1}
        rows.append(SliceRow(**values))
    return rows


def _blank(name: str) -> Any:
    return "" if name in _TEXTS else 0


def _columns(rows: Sequence[SliceRow]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in COLUMNS:
        values = [getattr(row, name) for row in rows]
        if name in _TEXTS:
            found[name] = np.array([str(each) for each in values], np.dtypes.StringDType())
        else:
            numbers = [(v - EPOCH) // MICROSECOND if name in _MOMENTS else v for v in values]
            found[name] = np.array(numbers, np.int64)
    return found


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and bool((one == other).all())
