"""Replicas on Ray, for one run after another: hands out tasks, replaces the dead, gives up what kills again and again."""

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

from pipeline.errors import PipelineError, RunFailed
from pipeline.grid import BlockKey
from pipeline.job import Engine
from pipeline.plan import Plan
from pipeline.replica import Replica

log = structlog.get_logger()

IN_FLIGHT = 2
"""Blocks a replica holds: one being inferred, one being read or written."""
DEATHS_PER_BLOCK = 12
"""After so many deaths of processes on one block the run stops: it is not one tile's fault."""
BLOCK_LIMIT_S = 1800.0
"""A task that takes longer is taken for hung; its replica is replaced."""
START_LIMIT_S = 600.0
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**22), "MALLOC_ARENA_MAX": "2"}
"""glibc's own rules keep the arrays of finished blocks: a replica would grow by half over a long run."""


@dataclass
class _Worker:
    actor: Any
    loading: Any
    started: float
    loaded: float | None = None
    tasks: dict[Any, _Task] = field(default_factory=dict)

    def late(self, limit_s: float) -> str:
        """Why it is taken for hung, if it is; loading a model has a time of its own."""
        now = time.monotonic()
        if self.loaded is None and ray.wait([self.loading], timeout=0)[0]:
            self.loaded = now
        if self.loaded is None:
            return f"not started in {START_LIMIT_S:.0f} s" if now - self.started > START_LIMIT_S else ""
        most_s = limit_s * IN_FLIGHT
        hung = any(now - max(task.started, self.loaded) > most_s for task in self.tasks.values())
        return f"no answer for {most_s:.0f} s" if hung else ""


@dataclass(frozen=True)
class _Task:
    kind: str
    key: BlockKey
    started: float
    args: tuple[object, ...] = ()


class Crew:
    """Replicas, and the Ray that they run on: the one that is there (also by RAY_ADDRESS), else one of our own.

    A context manager. Runs that share a crew share its processes and the model that these have loaded.
    """

    def __init__(self, engine: Engine, *, limit_s: float = BLOCK_LIMIT_S) -> None:
        """Say how many replicas there are to be; the first run starts them.

        Args:
            engine: the replicas' number and GPUs.
            limit_s: a task that takes longer is taken for hung; its replica is replaced.
        """
        self._engine, self._limit_s = engine, limit_s
        self._owns_ray = False
        self._args: tuple[object, str, str]
        self._deaths: Counter[BlockKey] = Counter()
        self._again: list[_Task] = []
        self._workers: list[_Worker] = []
        resources = {"num_gpus": engine.gpus_per_replica, "num_cpus": 1, "runtime_env": {"env_vars": MALLOC}}
        # The engine replaces actors itself: Ray's own retries cannot tell a tile that kills from bad luck.
        self._remote = ray.remote(Replica).options(max_concurrency=IN_FLIGHT + 1, max_restarts=0, **resources)

    def __enter__(self) -> Self:
        if ray.is_initialized():
            return self
        self._owns_ray = True
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        else:
            cpus = max(os.cpu_count() or 1, self._engine.replicas)
            ray.init(num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        if self._owns_ray:
            ray.shutdown()

    @contextmanager
    def at_work(self, plan: Plan, output: str, token: str) -> Iterator[None]:
        """On a run; its replicas are there, with their model loaded. A run that is broken off leaves none behind.

        Args:
            plan: of the run.
            output: URL of the result.
            token: of the run's lease.

        Raises:
            RunFailed: they do not start in time.
        """
        try:
            self._begin(plan, output, token)
            yield
        except BaseException:
            self.dismiss()  # what is under way is this run's
            raise

    def _begin(self, plan: Plan, output: str, token: str) -> None:
        self._args = (ray.put(plan), output, token)
        self._deaths.clear()
        for worker in self._workers:
            worker.loading = worker.actor.begin.remote(*self._args)
        for number, worker in enumerate(self._workers):
            try:
                ray.get(worker.loading, timeout=START_LIMIT_S)
            except (RayActorError, ActorUnavailableError, GetTimeoutError):  # died or hung since the last run
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
                f"{count} replicas with {self._engine.gpus_per_replica} GPUs each did not start in {START_LIMIT_S:.0f} s; "
                f"the cluster has {ray.cluster_resources()}"
            ) from None
        except RayTaskError as error:
            raise _cause(error) from error

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._again) or any(worker.tasks for worker in self._workers)

    @property
    def has_room(self) -> bool:
        """Whether a replica could take a task now."""
        return not self._again and any(len(worker.tasks) < IN_FLIGHT for worker in self._workers)

    def submit(self, kind: str, key: BlockKey, *args: object) -> None:
        """Give a task to the replica that has least to do."""
        worker = min(self._workers, key=lambda one: len(one.tasks))
        options = {"careful": True} if kind == "infer" and self._deaths[key] else {}
        ref = getattr(worker.actor, kind).remote(key, *args, **options)
        worker.tasks[ref] = _Task(kind, key, time.monotonic(), args)

    def collect(self) -> list[tuple[str, BlockKey, object]]:
        """What has ended since the last call; waits a second at most for something.

        Raises:
            PipelineError: a task failed in a way that another try does not mend.
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

    def dismiss(self) -> None:
        """End the replicas, with all that is under way."""
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
                    f"block {key}: {DEATHS_PER_BLOCK} processes died on it ({why}). Finished blocks are kept"
                )
        self._again += dead.tasks.values()
        self._workers[number] = self._start()

    def _start(self) -> _Worker:
        actor: Any = self._remote.remote(*self._args)
        return _Worker(actor, actor.load.remote(), time.monotonic())


def _cause(error: RayTaskError) -> Exception:
    """What a task really raised."""
    cause: Exception = error.cause if isinstance(error.cause, Exception) else error
    return (
        cause
        if isinstance(cause, PipelineError | OSError)
        else RunFailed(f"a worker failed: {type(cause).__name__}: {cause}")
    )
