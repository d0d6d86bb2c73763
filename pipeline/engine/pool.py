"""Replica pool: Ray actors that serve one run after another.

Hands out tasks, replaces replicas that die or hang, and stops the run when processes keep dying on
the same block.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import ray
import structlog
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from earthgptx.pipeline.engine.replica import Replica
from earthgptx.pipeline.errors import PipelineError, RunFailed
from earthgptx.pipeline.job.grid import BlockKey
from earthgptx.pipeline.job.spec import Engine
from earthgptx.pipeline.planning.plan import Plan

log = structlog.get_logger()

IN_FLIGHT = 2
"""Tasks per replica: one block is inferred while another is read or written."""
DEATHS_PER_BLOCK = 12
"""Process deaths tolerated per block. One more stops the run: a single tile cannot be the cause."""
BLOCK_LIMIT_S = 1800.0
"""Time limit per task in s.

A replica counts as hung, and is replaced, when a task takes more than `IN_FLIGHT` times as long.
"""
START_LIMIT_S = 600.0
"""Time in s that a replica may take to start and load the model."""


@dataclass
class _Worker:
    actor: Any
    loading: Any
    started: float
    loaded: float | None = None
    tasks: dict[Any, _Task] = field(default_factory=dict)

    def late(self, limit_s: float) -> str:
        """Returns why the replica counts as hung, or empty text; loading has a separate limit."""
        now = time.monotonic()
        if self.loaded is None and ray.wait([self.loading], timeout=0)[0]:
            self.loaded = now
        if self.loaded is None:
            return (
                f"not started in {START_LIMIT_S:.0f} s"
                if now - self.started > START_LIMIT_S
                else ""
            )
        most_s = limit_s * IN_FLIGHT
        hung = any(now - max(task.started, self.loaded) > most_s for task in self.tasks.values())
        return f"no answer for {most_s:.0f} s" if hung else ""


@dataclass(frozen=True)
class _Task:
    kind: str
    key: BlockKey
    started: float
    args: tuple[object, ...] = ()


class ReplicaPool:
    """Context manager that runs replicas on Ray.

    Uses the Ray instance to which the process is connected, else the cluster at RAY_ADDRESS, else
    starts a local one. Runs that share a pool share its processes and their loaded model.
    """

    def __init__(self, engine: Engine, *, limit_s: float = BLOCK_LIMIT_S) -> None:
        """Sets the number of replicas; the first run starts them.

        Args:
            engine: number of replicas, and GPUs per replica.
            limit_s: time limit per task in s, see `BLOCK_LIMIT_S`.
        """
        self._engine, self._limit_s = engine, limit_s
        self._owns_ray = False
        self._args: tuple[object, str, str]
        self._deaths: Counter[BlockKey] = Counter()
        self._again: list[_Task] = []
        self._workers: list[_Worker] = []
        # The pool replaces actors itself: Ray's retries cannot tell a tile that kills its process
        # from a chance failure.
        self._remote = ray.remote(Replica).options(
            max_concurrency=IN_FLIGHT + 1,
            max_restarts=0,
            num_cpus=1,
            num_gpus=engine.gpus_per_replica,
        )

    def __enter__(self) -> Self:
        if ray.is_initialized():
            return self
        self._owns_ray = True
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        else:
            cpus = max(os.cpu_count() or 1, self._engine.replicas)
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._owns_ray:
            ray.shutdown()

    @contextmanager
    def serving(self, plan: Plan, output: str, token: str) -> Iterator[None]:
        """Serves a run with replicas that have loaded its model.

        All replicas are killed when the run fails.

        Args:
            plan: plan of the run.
            output: URL of the result.
            token: token of the run's lease.

        Raises:
            RunFailed: the replicas do not start in time.
        """
        try:
            self._begin(plan, output, token)
            yield
        except BaseException:
            self.stop()  # the tasks in flight belong to this run
            raise

    def _begin(self, plan: Plan, output: str, token: str) -> None:
        self._args = (ray.put(plan), output, token)
        self._deaths.clear()
        for worker in self._workers:
            worker.loading = worker.actor.begin.remote(*self._args)
        for number, worker in enumerate(self._workers):
            try:
                ray.get(worker.loading, timeout=START_LIMIT_S)
            except (RayActorError, ActorUnavailableError, GetTimeoutError):
                # The replica has died or hung since the last run.
                ray.kill(worker.actor)
                self._workers[number] = self._start()
            except RayTaskError as error:
                raise _cause(error) from error
        count = min(self._engine.replicas, max(len(plan.blocks), 1))
        self._workers += [self._start() for _ in range(count - len(self._workers))]
        try:
            ray.get([worker.loading for worker in self._workers], timeout=START_LIMIT_S)
        except GetTimeoutError:
            raise RunFailed(
                f"{count} replicas with {self._engine.gpus_per_replica} GPUs each "
                f"did not start in {START_LIMIT_S:.0f} s; "
                f"the cluster has {ray.cluster_resources()}"
            ) from None
        except RayTaskError as error:
            raise _cause(error) from error

    @property
    def busy(self) -> bool:
        """Whether any task is running or has to be resubmitted."""
        return bool(self._again) or any(worker.tasks for worker in self._workers)

    @property
    def has_room(self) -> bool:
        """Whether a replica can take another task now."""
        return not self._again and any(len(worker.tasks) < IN_FLIGHT for worker in self._workers)

    def submit(self, kind: str, key: BlockKey, *args: object) -> None:
        """Submits a task to the replica with the fewest tasks."""
        worker = min(self._workers, key=lambda one: len(one.tasks))
        options = {"careful": True} if kind == "infer" and self._deaths[key] else {}
        ref = getattr(worker.actor, kind).remote(key, *args, **options)
        worker.tasks[ref] = _Task(kind, key, time.monotonic(), args)

    def collect(self) -> list[tuple[str, BlockKey, object]]:
        """Returns kind, block and result of each task that has ended since the last call.

        Resubmits the tasks of replicas that died. Waits up to 1 s for a task to end.

        Raises:
            PipelineError: a task raised an error, or too many processes died on one block.
            OSError: a task could not read or write.
        """
        again, self._again = self._again, []
        for task in again:
            self.submit(task.kind, task.key, *task.args)
        refs = [ref for worker in self._workers for ref in worker.tasks]
        if not refs:
            return []
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0) if len(refs) > 1 else ([], [])
        if not ready:
            ready, _ = ray.wait(refs, timeout=1.0)
        ended = []
        for number, worker in enumerate(self._workers):
            for ref in [ref for ref in ready if ref in worker.tasks]:
                task = worker.tasks[ref]
                try:
                    ended.append((task.kind, task.key, ray.get(ref)))
                    del worker.tasks[ref]
                except (RayActorError, ActorUnavailableError) as error:
                    self._replace(number, str(error).splitlines()[0])
                    break
                except RayTaskError as error:
                    raise _cause(error) from error
            if why := self._workers[number].late(self._limit_s):
                ray.kill(self._workers[number].actor)
                self._replace(number, why)
        return ended

    def stop(self) -> None:
        """Kills all replicas and drops the tasks in flight."""
        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers, self._again = [], []

    def _replace(self, number: int, why: str) -> None:
        dead = self._workers[number]
        blocks = sorted({task.key for task in dead.tasks.values() if task.kind == "infer"})
        log.warning("a replica died and is replaced", why=why, blocks=[str(key) for key in blocks])
        for key in blocks:
            self._deaths[key] += 1
            if self._deaths[key] > DEATHS_PER_BLOCK:
                raise RunFailed(
                    f"block {key}: {DEATHS_PER_BLOCK} processes died on it ({why}). "
                    "Finished blocks are kept"
                )
        self._again += dead.tasks.values()
        self._workers[number] = self._start()

    def _start(self) -> _Worker:
        actor: Any = self._remote.remote(*self._args)
        return _Worker(actor, actor.load.remote(), time.monotonic())


def _cause(error: RayTaskError) -> Exception:
    """Returns the error that a task raised; `RunFailed` unless a PipelineError or OSError."""
    cause: Exception = error.cause if isinstance(error.cause, Exception) else error
    return (
        cause
        if isinstance(cause, PipelineError | OSError)
        else RunFailed(f"a worker failed: {type(cause).__name__}: {cause}")
    )
