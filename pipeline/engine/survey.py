"""Compares a plan with its output, before anything runs: what a run would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zarr

from earthgptx.pipeline.engine.growth import Left, work_of
from earthgptx.pipeline.engine.ledger import Ledger
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.slices import TimeSlice
from earthgptx.pipeline.results.slices_group import SliceRow, SliceState, read_slices
from earthgptx.pipeline.results.store import exists, mark_of, open_group

STATES = ("new", "changed", "unfinished", "done", "failed", "gone")
"""What a slice can be. Failed are those that are done but for quarantined tiles; gone those of
which the archive has no Item any more."""


@dataclass(frozen=True, slots=True)
class Share:
    """The slices of one state."""

    slices: int = 0
    blocks: int = 0
    """Blocks to infer."""
    tiles: int = 0
    """Tiles to infer."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run of a plan would do."""

    shares: dict[str, Share]
    """By one of `STATES`; only those that occur."""
    refusal: str
    """Why a run would not begin; empty if it would."""

    @property
    def blocks(self) -> int:
        """Blocks to infer."""
        return sum(share.blocks for share in self.shares.values())

    @property
    def tiles(self) -> int:
        """Tiles to infer."""
        return sum(share.tiles for share in self.shares.values())


def survey(plan: Plan) -> Survey:
    """Returns what a run of a plan would do; writes nothing.

    Raises:
        Outage: the storage of the output does not answer.
    """
    root, refusal = _open(plan)
    rows: list[SliceRow] = []
    if root is not None:
        try:
            rows = read_slices(root)
        except OutputError as error:
            root, refusal = None, str(error)
    placed = place(plan, rows)
    shares: dict[str, Share] = {}
    for at in range(len(placed.slices)):
        row = rows[at] if at < len(rows) else None
        state = state_of_slice(placed, at, row)
        blocks = tiles = 0
        if root is None or state == "new":
            blocks, tiles = len(placed.blocks_of(at)), placed.tiles_of(at)
        elif state in ("changed", "unfinished"):
            blocks, tiles = _to_infer(root, placed, at)
        before = shares.get(state, Share())
        shares[state] = Share(before.slices + 1, before.blocks + blocks, before.tiles + tiles)
    return Survey({state: shares[state] for state in STATES if state in shares}, refusal)


def place(plan: Plan, rows: Sequence[SliceRow]) -> Plan:
    """Returns a plan with its slices where the rows of an output have them."""
    return plan.placed([TimeSlice(row.name, row.start, ()) for row in rows])


def state_of_slice(plan: Plan, at: int, row: SliceRow | None) -> str:
    """Returns what a slice is, one of `STATES`.

    Args:
        plan: plan with its slices where the output has them.
        at: position of the slice.
        row: what the output says of it; None if it does not know it.
    """
    if row is None:
        return "new"
    if not plan.slices[at].items:
        if row.state == SliceState.GONE or (plan.items and _is_searched(plan, row)):
            return "gone"
        return "done" if row.finished else "unfinished"
    if row.finished and row.key == plan.content_of_slice(at):
        return "failed" if row.failed else "done"
    return "changed" if row.finished or row.state == SliceState.GONE else "unfinished"


def _is_searched(plan: Plan, row: SliceRow) -> bool:
    """Whether the plan's search covers all Items that a slice ever had."""
    start, end = plan.interval
    whole = (start is None or row.start >= start) and (end is None or row.end <= end)
    return whole or row.name in plan.emptied


def _open(plan: Plan) -> tuple[zarr.Group | None, str]:
    """Returns the root of a result of the plan's series; None, and a reason if there is another."""
    output = plan.spec.output
    try:
        if not exists(output):
            return None, ""
        root = open_group(output, unfinished=True)
    except OutputError as error:
        return None, str(error)
    if mark_of(root)["series"] != plan.series:
        return None, f"{output} holds the result of another series"
    return root, ""


def _to_infer(root: zarr.Group, plan: Plan, at: int) -> tuple[int, int]:
    """Returns the numbers of blocks and tiles of a slice that a run would infer."""
    keys = plan.blocks_of(at)
    left = Left(frames=set(keys), parts=set(keys), scores=set())
    wanted = {key: plan.content_of(key) for key in keys}
    work = work_of(wanted, Ledger(root, plan).of_slice(at), left)
    return len(work.infer), sum(plan.grids[key.grid].tile_count(key) for key in work.infer)
