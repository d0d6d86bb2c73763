"""Drives a scheduler with a replica pool until all tasks are done, or the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.tasks import (
    Done,
    Failed,
    Kind,
    Lost,
    Order,
    Start,
    Stop,
    Task,
    Trouble,
)

if TYPE_CHECKING:
    from earthgptx.pipeline.engine.pool import ReplicaPool


log = structlog.get_logger()

WAIT_S = 1.0
"""Longest time between two decisions."""


def drive(
    scheduler: Scheduler,
    pool: ReplicaPool,
    *,
    on_done: Callable[[Task, Any], None],
    payloads: Mapping[Task, Any] | None = None,
) -> None:
    """Does all tasks of a scheduler.

    Args:
        scheduler: tasks and replicas of the run.
        pool: hosts the replicas.
        on_done: called with each task that ends, and its result.
        payloads: what tasks need besides the plan and scratch.

    Raises:
        PipelineError: the run ends before its tasks are done.
    """
    scheduler.resume(time.monotonic())
    while True:
        for order in scheduler.decide(time.monotonic()):
            _carry_out(order, pool, {} if payloads is None else payloads)
        if scheduler.ending is not None:
            raise scheduler.ending
        if scheduler.finished:
            return
        now = time.monotonic()
        wake = min(scheduler.wake_at or now + WAIT_S, now + WAIT_S)
        for event, result in pool.poll(max(wake - now, 0.0)):
            _tell(event)
            scheduler.handle(event, time.monotonic())
            if isinstance(event, Done) and event.piece is None:
                on_done(event.task, result)


def _carry_out(order: Order, pool: ReplicaPool, payloads: Mapping[Task, Any]) -> None:
    if isinstance(order, Start):
        pool.start(order.replica)
    elif isinstance(order, Stop):
        log.warning("a replica is replaced", why=order.reason)
        pool.stop(order.replica, order.trouble)
    else:
        pool.assign(order, payloads.get(order.task))


def _tell(event: object) -> None:
    """Logs what an operator wants to know; a first failure that is tried again is no news."""
    if isinstance(event, Lost):
        log.warning("a replica is lost and replaced", why=event.failure.reason)
    elif isinstance(event, Failed) and event.failure.trouble in (Trouble.STORAGE, Trouble.INPUT):
        log.warning("a task is done again", task=str(event.task), why=event.failure.reason)
    elif isinstance(event, Failed) and event.task.kind == Kind.INFER and event.piece is None:
        log.info("imagery is read again", task=str(event.task), why=event.failure.reason)
