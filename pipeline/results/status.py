"""Computes the progress of a result from its ledger and status layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.store import STATUS_WORDS, BlockState, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Progress of a result."""

    state: str
    """Job status as in openEO: created, queued, running, finished, error or canceled."""
    series: str
    slices: dict[str, int]
    """Number of time slices by what has become of them."""
    blocks: int
    """Number of committed blocks."""
    blocks_total: int
    """Number of blocks that Items show."""
    failed_tiles: int
    """Number of quarantined tiles."""
    pixels: dict[str, float]
    """Share of the result's pixels per status (in words), 0..1; only statuses that occur."""


def state_of(result: Result) -> State:
    """Returns the progress of a result; reads its whole status layer."""
    blocks = failed = 0
    counts = np.zeros(len(Status), np.int64)
    for grid in result.grids:
        ledger = result.group("blocks", grid)
        record = ledger["record"]
        blocks += int((record.sel(field="state").values == BlockState.COMMITTED).sum())
        failed += int(record.sel(field="failed").values.sum())
        status = result.layer("raster", grid)["status"]
        for time in range(status.sizes["time"]):
            for y0 in range(0, status.sizes["y"], 4096):
                piece = status.isel(time=time, y=slice(y0, y0 + 4096)).values
                counts += np.bincount(piece.ravel(), minlength=len(Status))[: len(Status)]
    shares = counts / max(counts.sum(), 1)
    return State(
        state=result.state,
        series=str(result.attrs["series"]),
        slices=dict(Counter(str(row.state) for row in result.rows)),
        blocks=blocks,
        blocks_total=sum(row.blocks for row in result.rows),
        failed_tiles=failed,
        pixels={STATUS_WORDS[status]: float(shares[status]) for status in Status if counts[status]},
    )
