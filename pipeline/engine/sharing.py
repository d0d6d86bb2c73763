"""Lets runs of one process share a Ray. Loads none itself: a run may have nothing to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Shared:
    """Whether runs of this process share a Ray that one of them has started."""

    replicas = 0
    """Replicas of the largest of these runs; 0 if each run has its own."""
    theirs = False
    """Whether the Ray was there before them."""


@contextmanager
def shared_ray(replicas: int) -> Iterator[None]:
    """Lets runs share a Ray: the first that needs one starts it, and it ends with this context.

    Args:
        replicas: number of replicas of the largest run.
    """
    _Shared.theirs, _Shared.replicas = _is_there(), replicas
    try:
        yield
    finally:
        _Shared.replicas = 0
        if not _Shared.theirs and _is_there():
            from earthgptx.pipeline.engine.cluster import disconnect

            disconnect()


def shared_replicas() -> int:
    """Returns the replicas of the largest run that shares a Ray; 0 if each has its own."""
    return _Shared.replicas


def may_end_ray() -> bool:
    """Whether runs share a Ray that one of them has started: if it is dead, the next starts one."""
    return _Shared.replicas > 0 and not _Shared.theirs


def _is_there() -> bool:
    """Whether this process is connected to a Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
