"""Forks of a versioned result: what tasks write into, and see of one another.

A task sees what was committed when it got its fork. What it needs of other tasks is committed
before.
"""

from __future__ import annotations

import zarr

from earthgptx.pipeline.engine.tasks import Kind, Task
from earthgptx.pipeline.results.store import branch_of, save


class Forks:
    """Gives tasks forks of a result, and merges what they have written."""

    def __init__(self, root: zarr.Group) -> None:
        """Takes the root group of a result; if it is not versioned, there are no forks."""
        self._root, self._branch = root, branch_of(root)
        self._pending: set[Kind] = set()
        """Kinds of the tasks whose writes are not committed yet."""

    def give(self, task: Task, *, border: bool) -> bytes:
        """Returns a fork for a task, with all that the task reads; empty if there are none.

        Args:
            task: the task.
            border: whether it commits the border of a block that is committed already.
        """
        if self._branch is None:
            return b""
        if self._pending & _read_by(task, border=border):
            self.save()
        return self._branch.fork()

    def take(self, task: Task, fork: bytes) -> None:
        """Takes what a task has written into its fork."""
        if self._branch is not None and fork:
            self._branch.merge(fork)
            self._pending.add(task.kind)

    def save(self) -> None:
        """Commits what was written."""
        save(self._root, "under way")
        self._pending = set()


def _read_by(task: Task, *, border: bool) -> set[Kind]:
    """Returns the kinds of tasks whose writes a task reads."""
    match task.kind:
        case Kind.COMMIT:
            return {Kind.COMMIT} if border else set()
        case Kind.OVERVIEW if task.factor > 2:
            return {Kind.COMMIT, Kind.OVERVIEW}
        case _:
            return {Kind.COMMIT}
