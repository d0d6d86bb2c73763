"""What a run tells while it goes on, and at its end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one stage of a run."""

    stage: str
    """Stage: infer, stitch, overview or done. Of stitch and overview, time slices are counted."""
    done: int
    total: int
    tiles: int
    """Tiles inferred in this run."""


@dataclass(kw_only=True)
class RunReport:
    """Final report of a run."""

    output: str
    slices: int
    """Time slices that this run made or made again."""
    slices_before: int
    """Time slices of the plan that were finished and had not changed."""
    slices_gone: int
    """Time slices of which the archive has no Item any more, as this run has found."""
    blocks: int
    """Blocks of the plan, committed by this run or earlier ones."""
    blocks_before: int
    """Blocks committed by earlier runs."""
    tiles: int
    """Tiles inferred in this run."""
    empty_tiles: int
    """Tiles of this run outside the AOI, without data or masked, which are not inferred."""
    repeated_blocks: int
    """Times that a block was given to a replica again, after a failure."""
    failed_tiles: int
    """Tiles quarantined by this run or earlier ones."""
    passing_tiles: int
    """Those of them whose cause may pass."""
    failures: list[str]
    """Reasons for up to 10 failures in this run, one sentence each."""
    objects: int
    unanswered_prompts: int
    """Times that the tile of a visual prompt saw no valid pixel or failed, in this run's slices."""
    refused_prompts: dict[str, str]
    """Reason by prompt id."""
    seconds: float
    replica_seconds: float
    """Time of all replicas together, from when their processes ran."""
    cost: float | None
    """What they cost, if the job says what an hour of a replica does."""
