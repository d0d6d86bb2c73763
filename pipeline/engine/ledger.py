"""Ledger of the committed blocks of an output.

The ledger is the group `blocks` of the store. Each entry is one chunk per array; the state is
written after all other data of its block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from earthgptx.pipeline.engine.scratch import FailedTiles
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.layout import LEDGER
from earthgptx.pipeline.results.store import BlockState, array_at, group_path


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of a committed block."""

    tiles: int
    failed: FailedTiles


def commit(root: zarr.Group, plan: Plan, key: BlockKey, entry: Entry) -> None:
    """Marks a block as committed, after all its other data is written.

    Raises:
        RunLost: another run holds the output.
    """
    values = {
        "tiles": entry.tiles,
        "failed": entry.failed.failed,
        "passing": entry.failed.passing,
        "state": BlockState.COMMITTED,
    }
    blocks = group_path(plan, "blocks", key.grid)
    for name in LEDGER:
        array_at(root, f"{blocks}/{name}")[key.time, key.row, key.col] = values[name]


def reopen(root: zarr.Group, plan: Plan, keys: Iterable[BlockKey]) -> None:
    """Marks blocks as not committed, so that they are committed again whatever happens."""
    for key in sorted(keys):
        state = array_at(root, f"{group_path(plan, 'blocks', key.grid)}/state")
        state[key.time, key.row, key.col] = BlockState.OPEN


def committed(root: zarr.Group, plan: Plan) -> dict[BlockKey, Entry]:
    """Returns the committed blocks of a plan. A damaged entry counts as not committed."""
    found: dict[BlockKey, Entry] = {}
    for name in plan.grids:
        blocks = group_path(plan, "blocks", name)
        arrays = {each: array_at(root, f"{blocks}/{each}") for each in LEDGER}
        try:
            whole = {each: np.asarray(array[...]) for each, array in arrays.items()}
        except (ValueError, RuntimeError):
            keys = [key for key in plan.blocks if key.grid == name]
            found.update(_one_by_one(arrays, keys))
            continue
        for place in np.argwhere(whole["state"] == BlockState.COMMITTED).tolist():
            at = tuple(place)
            found[BlockKey(name, *at)] = _entry({each: whole[each][at] for each in LEDGER})
    return {key: entry for key, entry in found.items() if key in plan.block_set}


def _one_by_one(arrays: dict[str, Any], keys: list[BlockKey]) -> dict[BlockKey, Entry]:
    found = {}
    for key in keys:
        at = (key.time, key.row, key.col)
        try:
            values = {name: np.asarray(array[at]) for name, array in arrays.items()}
        except (ValueError, RuntimeError):
            continue
        if values["state"] == BlockState.COMMITTED:
            found[key] = _entry(values)
    return found


def _entry(values: dict[str, np.ndarray]) -> Entry:
    return Entry(int(values["tiles"]), FailedTiles(int(values["failed"]), int(values["passing"])))
