"""Context shared by all tasks of a run: plan, result, scratch and lease token."""

from __future__ import annotations

from dataclasses import dataclass

import zarr

from earthgptx.pipeline.engine.lease import check
from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import group_at, group_path, open_group


@dataclass(frozen=True)
class RunContext:
    """State that a replica needs to work on a run."""

    plan: Plan
    root: zarr.Group
    """Root group of the result."""
    scratch: Scratch
    token: str
    """Token of the run's lease."""

    @classmethod
    def open(cls, plan: Plan, output: str, token: str) -> RunContext:
        """Opens the result of a run.

        Args:
            plan: plan of the run.
            output: URL of the result.
            token: token of the run's lease.

        Raises:
            OutputError: the output holds no result of earthgptx.
        """
        return cls(plan, open_group(output), Scratch(output), token)

    def group(self, kind: str, grid: str) -> zarr.Group:
        """Returns a grid's group of one kind: `raster`, `tiles`, `blocks` or `overview`."""
        return group_at(self.root, group_path(self.plan, kind, grid))

    def check_lease(self) -> None:
        """Checks that the run still holds the lease; call this before writing.

        Raises:
            RunLost: another run holds the output.
        """
        check(self.scratch, self.token)
