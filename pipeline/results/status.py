"""Computes the progress of a result from its ledger and status layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.store import STATUS_WORDS, BlockState, Status

ROWS = 4096
"""Rows of pixels that are read at once."""


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
    for grid in result.grids:
        ledger = result.group("blocks", grid)
        record = ledger["record"]
        blocks += int((record.sel(field="state").values == BlockState.COMMITTED).sum())
        failed += int(record.sel(field="failed").values.sum())
    finished = [row for row in result.rows if row.finished]
    counts = sum(pixels_of(result, finished).values(), np.zeros(len(Status), np.int64))
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


def pixels_of(result: Result, slices: Sequence[SliceRow]) -> dict[str, NDArray[np.int64]]:
    """Returns the number of pixels by `Status` of each of some finished slices, by its name."""
    counts = {row.name: np.zeros(len(Status), np.int64) for row in slices}
    shown = result.slices_in_time if slices else []
    for grid in result.grids if slices else ():
        status = result.layer("raster", grid)["status"]
        # A zone that a run has just begun may have fewer slices.
        for at, row in enumerate(shown[: status.sizes["time"]]):
            for y0 in range(0, status.sizes["y"] if row.name in counts else 0, ROWS):
                piece = status.isel(time=at, y=slice(y0, y0 + ROWS)).values
                counts[row.name] += np.bincount(piece.ravel(), minlength=len(Status))[: len(Status)]
    return counts
