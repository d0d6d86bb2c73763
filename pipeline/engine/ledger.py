"""Ledger of the blocks of an output: which are committed, and what they have seen.

The ledger is the array `blocks/record` of the store: a record a block, a chunk a time slice. The
driver alone writes it, every few seconds; what is not written yet is done again by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from earthgptx.pipeline.engine.scratch import FailedTiles
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.layout import LEDGER
from earthgptx.pipeline.results.store import BlockState, array_for, group_path

_STATE = LEDGER.index("state")
FLUSH_S = 3.0
"""Seconds between two writes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of a block."""

    tiles: int
    failed: FailedTiles
    content: str = ""
    """Content key of what the block had seen when it was committed."""
    committed: bool = True
    """False while it has to be committed again, as what is around it has changed."""


class Ledger:
    """Records of the blocks, by time slice; a slice is read when it is asked for."""

    def __init__(self, root: zarr.Group, plan: Plan) -> None:
        """Reads nothing yet."""
        self._root, self._plan = root, plan
        self._slices: dict[tuple[str, int], NDArray[np.uint64]] = {}
        """Records (row, col, field) by grid and slice."""
        self._dirty: set[tuple[str, int]] = set()
        self._flushed = time.monotonic()

    def of_slice(self, at: int) -> dict[BlockKey, Entry]:
        """Returns the entries of a slice's blocks; those of a damaged chunk are missing."""
        found = {}
        for name in self._plan.grids:
            records = self._records(name, at)
            for row, col in np.argwhere(records[..., _STATE] != BlockState.NONE).tolist():
                key = BlockKey(name, at, row, col)
                found[key] = self.of(key)
        return found

    def of(self, key: BlockKey) -> Entry:
        """Returns a block's entry."""
        state, content, tiles, failed, passing = map(
            int, self._records(key.grid, key.time)[key.row, key.col]
        )
        committed = state == BlockState.COMMITTED
        return Entry(tiles, FailedTiles(failed, passing), f"{content:016x}", committed)

    def note(self, key: BlockKey, entry: Entry) -> None:
        """Notes that a block is committed, or only has been; `flush` writes it."""
        state = BlockState.COMMITTED if entry.committed else BlockState.OPEN
        counts = (entry.tiles, entry.failed.failed, entry.failed.passing)
        self._put(key, (state, int(entry.content or "0", 16), *counts))

    def reopen(self, keys: Iterable[BlockKey]) -> None:
        """Notes that blocks have to be committed again, though they have seen what there is."""
        for key in keys:
            self.note(key, replace(self.of(key), committed=False))

    def open(self, keys: Iterable[BlockKey]) -> None:
        """Notes that something is written of blocks, or will be, and that it does not count."""
        for key in keys:
            self._put(key, (BlockState.OPEN, 0, 0, 0, 0))

    def clear(self, keys: Iterable[BlockKey]) -> None:
        """Notes that nothing is written of blocks."""
        for key in keys:
            self._put(key, (BlockState.NONE, 0, 0, 0, 0))

    @property
    def due(self) -> bool:
        """Whether something is to be written now."""
        return bool(self._dirty) and time.monotonic() - self._flushed > FLUSH_S

    def flush(self) -> None:
        """Writes what has changed.

        Raises:
            RunLost: another run holds the output.
        """
        for name, at in sorted(self._dirty):
            self._array(name, at)[at] = self._slices[name, at]
        self._dirty = set()
        self._flushed = time.monotonic()

    def drop(self, at: int) -> None:
        """Forgets what is in memory of a slice, once it is written."""
        for name in self._plan.grids:
            self._slices.pop((name, at), None)

    def _put(self, key: BlockKey, record: tuple[int, ...]) -> None:
        self._records(key.grid, key.time)[key.row, key.col] = record
        self._dirty.add((key.grid, key.time))

    def _array(self, name: str, at: int) -> Any:
        return array_for(self._root, f"{group_path(self._plan, 'blocks', name)}/record", at)

    def _records(self, name: str, at: int) -> NDArray[np.uint64]:
        if (name, at) not in self._slices:
            try:
                found = np.array(self._array(name, at)[at])
            except (ValueError, RuntimeError):  # damaged: what it said is done again
                shape = (*self._plan.grids[name].blocks_shape, len(LEDGER))
                found = np.zeros(shape, np.uint64)
            self._slices[name, at] = found
        return self._slices[name, at]
