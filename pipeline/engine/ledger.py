"""Ledger of the committed blocks of an output.

The ledger is the group `blocks` of the store. Each entry is one chunk, written after all other data
of its block. Every commit checks the token of the run's lease, so that a worker that was wrongly
considered dead cannot commit into a later run.
"""

from __future__ import annotations

import numpy as np
import zarr

from earthgptx.pipeline.engine.lease import check
from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import BlockState, array_at, group_path


def commit(
    root: zarr.Group,
    plan: Plan,
    key: BlockKey,
    scratch: Scratch,
    token: str,
    *,
    tiles: int,
    failed: int,
) -> None:
    """Marks a block as committed, after all its other data is written.

    Raises:
        RunLost: another run holds the output.
    """
    check(scratch, token)
    blocks = group_path(plan, "blocks", key.grid)
    at = (key.time, key.row, key.col)
    for name, value in (("tiles", tiles), ("failed", failed), ("state", BlockState.COMMITTED)):
        array_at(root, f"{blocks}/{name}")[at] = value


def committed(root: zarr.Group, plan: Plan) -> set[BlockKey]:
    """Returns the blocks of a plan that are committed."""
    found: set[BlockKey] = set()
    for name in plan.grids:
        state = array_at(root, f"{group_path(plan, 'blocks', name)}/state")[...]
        at = np.argwhere(np.asarray(state) == BlockState.COMMITTED)
        found.update(BlockKey(name, *place) for place in at.tolist())
    return found & plan.block_set


def failed_tiles(root: zarr.Group, plan: Plan) -> int:
    """Returns the number of quarantined tiles in the committed blocks."""
    paths = [f"{group_path(plan, 'blocks', name)}/failed" for name in plan.grids]
    return sum(int(np.asarray(array_at(root, path)[...]).sum()) for path in paths)
