"""How far a result is, counted from its own ledger and status layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.ledger import BlockState
from pipeline.query import Result
from pipeline.store import STATUS_WORDS, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A result's state."""

    state: str
    """One of openEO's: created, queued, running, finished, error, canceled."""
    plan_id: str
    blocks: int
    """Committed."""
    blocks_total: int
    """Of the result's extent; those that hold nothing that was asked for are never run."""
    failed_tiles: int
    pixels: dict[str, float]
    """Share of the result's pixels by what is known of them."""


def state_of(result: Result) -> State:
    """Count a result; reads the coarsest overview that is written, or the status layer."""
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
        state=result.state, plan_id=str(result.attrs["plan_id"]), blocks=blocks, blocks_total=total, failed_tiles=failed,
        pixels={STATUS_WORDS[status]: float(shares[status]) for status in Status if counts[status]},
    )  # fmt: skip
