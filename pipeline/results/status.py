"""Computes the progress of a result from its ledger and status layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earthgptx.pipeline.results.query import Result
from earthgptx.pipeline.results.store import STATUS_WORDS, BlockState, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Progress of a result."""

    state: str
    """Job status as in openEO: created, queued, running, finished, error or canceled."""
    plan_id: str
    blocks: int
    """Number of committed blocks."""
    blocks_total: int
    """Number of blocks in the result's extent; those outside the plan never run."""
    failed_tiles: int
    """Number of quarantined tiles."""
    pixels: dict[str, float]
    """Share of the result's pixels per status (in words), 0..1; only statuses that occur."""


def state_of(result: Result) -> State:
    """Returns the progress of a result; reads its whole status layer."""
    blocks = total = failed = 0
    counts = np.zeros(len(Status), np.int64)
    for grid in result.grids:
        ledger = result.layer("blocks", grid)
        states = ledger["state"].values
        blocks, total = blocks + int((states == BlockState.COMMITTED).sum()), total + states.size
        failed += int(ledger["failed"].values.sum())
        status = result.layer("raster", grid)["status"]
        for time in range(status.sizes["time"]):
            for y0 in range(0, status.sizes["y"], 4096):
                piece = status.isel(time=time, y=slice(y0, y0 + 4096)).values
                counts += np.bincount(piece.ravel(), minlength=len(Status))[: len(Status)]
    shares = counts / max(counts.sum(), 1)
    return State(
        state=result.state,
        plan_id=str(result.attrs["plan_id"]),
        blocks=blocks,
        blocks_total=total,
        failed_tiles=failed,
        pixels={STATUS_WORDS[status]: float(shares[status]) for status in Status if counts[status]},
    )
