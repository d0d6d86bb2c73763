"""Context shared by all tasks of a run: plan, result, scratch and the fence around its writes."""

from __future__ import annotations

from dataclasses import dataclass

import zarr

from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import group_at, group_path, open_group
from earthgptx.pipeline.storage.blobs import open_blobs
from earthgptx.pipeline.storage.fence import Fence, parts_of


@dataclass(frozen=True)
class RunContext:
    """State that a replica needs to work on a run; all its writes check the lease."""

    plan: Plan
    root: zarr.Group
    """Root group of the result."""
    scratch: Scratch

    @classmethod
    def open(cls, plan: Plan, token: str) -> RunContext:
        """Opens the result of a run.

        Args:
            plan: plan of the run.
            token: token of the run's lease.

        Raises:
            OutputError: the output holds no result of earthgptx.
            Outage: the storage does not answer.
        """
        output = plan.spec.output
        fence = Fence(open_blobs(parts_of(output)), token)
        return cls(plan, open_group(output, fence), Scratch(output, fence, plan.content_of))

    def group(self, kind: str, grid: str) -> zarr.Group:
        """Returns a grid's group of one kind: `raster`, `tiles`, `blocks` or `overview`."""
        return group_at(self.root, group_path(self.plan, kind, grid))
