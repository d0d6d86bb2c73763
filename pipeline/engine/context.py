"""Context shared by all tasks of a run: plan, result, scratch and the fence around its writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import zarr

from earthgptx.pipeline.engine.scratch import Scratch
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.results.store import group_at, group_path, open_group
from earthgptx.pipeline.storage.blobs import is_versioned, open_blobs
from earthgptx.pipeline.storage.fence import Fence, parts_of


@dataclass(frozen=True)
class RunContext:
    """State that a replica needs to work on a run; all its writes check the lease."""

    plan: Plan
    root: zarr.Group | None
    """Root group of the result; None where each task gets a fork of it, see `in_fork`."""
    scratch: Scratch
    fence: Fence

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
        root = None if is_versioned(output) else open_group(output, fence)
        return cls(plan, root, Scratch(output, fence, plan.content_of), fence)

    def in_fork(self, session: Any) -> RunContext:
        """Returns the context of a task that writes into a fork of the result."""
        root = zarr.open_group(session.store, mode="r+", use_consolidated=False)
        return replace(self, root=root)

    def group(self, kind: str, grid: str) -> zarr.Group:
        """Returns a grid's group of one kind: `raster`, `tiles`, `blocks` or `overview`."""
        return self.group_at(group_path(self.plan, kind, grid))

    def group_at(self, path: str) -> zarr.Group:
        """Returns an existing group of the result."""
        assert self.root is not None, "a task that writes the result has its root"
        return group_at(self.root, path)
