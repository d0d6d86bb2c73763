"""Replica pool: the adapter between the scheduler and Ray.

Starts and kills replicas as Ray actors, hands them tasks, and turns what Ray reports into events.
Decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from earthgptx.pipeline.engine.asking import ModelSick
from earthgptx.pipeline.engine.cluster import connect, disconnect, replica_memory
from earthgptx.pipeline.engine.commit import ShardLost
from earthgptx.pipeline.engine.forks import Forks
from earthgptx.pipeline.engine.metrics import Metrics
from earthgptx.pipeline.engine.replica import Replica
from earthgptx.pipeline.engine.scratch import ScratchLost
from earthgptx.pipeline.engine.sharing import may_end_ray, shared_replicas
from earthgptx.pipeline.engine.staff import SLOTS
from earthgptx.pipeline.engine.tasks import (
    Assign,
    Done,
    Event,
    Failed,
    Failure,
    Kind,
    Lost,
    Pulse,
    Ready,
    Task,
    Trouble,
    Up,
)
from earthgptx.pipeline.errors import (
    JobError,
    Outage,
    OutputError,
    PipelineError,
    RunFailed,
    RunLost,
    SourceError,
)
from earthgptx.pipeline.job.sections import Engine
from earthgptx.pipeline.planning.plan import Plan

PULSE_S = 1.0
"""Seconds between two questions to a replica how it is."""
ALIVE_S = 5.0
"""Seconds between two looks at the cluster while no replica runs."""
ANSWER_S = 20.0
"""Seconds that the cluster may take to say which of its machines are alive."""


@dataclass
class _Hand:
    """A replica's actor, and what is expected from it."""

    actor: Any
    waiting: dict[Any, tuple[str, Assign | None]] = field(default_factory=dict)
    """By reference: hello, load, pulse or task, and the order of a task."""
    up: bool = False
    ready: bool = False
    asked: float = 0.0


class ReplicaPool:
    """Context manager that runs replicas on Ray.

    Uses the Ray instance to which the process is connected, else the cluster at RAY_ADDRESS, else
    starts a local one. Runs that share a pool share its processes and their loaded model.
    """

    def __init__(self, engine: Engine) -> None:
        """Sets what replicas need; a run starts them."""
        self._engine = engine
        self._owns_ray = False
        self._args: tuple[Plan, str]
        self._metrics: Metrics
        self._forks: Forks
        self._hands: dict[int, _Hand] = {}
        self._spare: list[_Hand] = []
        """Replicas of an earlier run."""
        self._alive_at = 0.0

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            self._owns_ray = True
            connect(self._engine.most)
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop_all()
        # One in which a run has failed may be dead, and is left to nobody.
        if (self._owns_ray and not shared_replicas()) or (any(raised) and may_end_ray()):
            disconnect()

    def begin(self, plan: Plan, token: str, forks: Forks) -> int:
        """Begins a run; returns the number of replicas that earlier runs have left.

        Args:
            plan: plan of the run.
            token: token of the run's lease.
            forks: what tasks write into, if the result is versioned.
        """
        self._args, self._forks = (plan.for_replicas(), token), forks
        self._metrics = Metrics(plan.spec.name)
        self._spare += self._hands.values()
        self._hands = {}
        # Ray's own restarts and retries are off: they cannot tell a tile that kills from bad luck.
        self._remote = ray.remote(Replica).options(
            max_concurrency=SLOTS + 2,
            max_restarts=0,
            num_cpus=1,
            num_gpus=self._engine.gpus_per_replica,
            memory=replica_memory(plan),
        )
        return len(self._spare)

    def adopt(self, number: int) -> None:
        """Takes a replica of an earlier run into this one, under this number."""
        hand = self._spare.pop()
        hand.waiting, hand.ready, hand.up = {}, False, True
        self._hands[number] = hand
        hand.waiting[hand.actor.begin.remote(*self._args)] = ("load", None)

    def start(self, number: int) -> None:
        """Starts a replica."""
        actor: Any = self._remote.remote(*self._args)
        hand = self._hands[number] = _Hand(actor)
        hand.waiting[actor.hello.remote()] = ("hello", None)
        hand.waiting[actor.load.remote()] = ("load", None)

    def stop(self, number: int, trouble: Trouble | None = None) -> None:
        """Kills a replica.

        Args:
            number: number of the replica.
            trouble: kind of the failure for which it is killed, if nobody has told of it.
        """
        hand = self._hands.pop(number, None)
        if hand is not None:
            _kill(hand.actor)
        if trouble is not None:
            self._metrics.note(Lost(number, Failure(trouble, "")))
        self._tell_replicas()

    def stop_all(self) -> None:
        """Kills all replicas."""
        for hand in (*self._hands.values(), *self._spare):
            _kill(hand.actor)
        were_told = bool(self._hands)
        self._hands, self._spare = {}, []
        if were_told:
            self._tell_replicas()

    def assign(self, order: Assign, payload: Any = None) -> None:
        """Gives a replica a task.

        Args:
            order: the task.
            payload: what the task needs besides the plan and scratch.
        """
        hand, task = self._hands[order.replica], order.task
        if order.piece is not None:
            ref = hand.actor.probe.remote(task, order.piece)
        elif task.kind == Kind.INFER:
            ref = hand.actor.infer.remote(task, last=order.last, skip=order.skip)
        else:
            border = task.kind == Kind.COMMIT and bool(payload)
            ref = hand.actor.do.remote(task, payload, self._forks.give(task, border=border))
        hand.waiting[ref] = ("task", order)

    def poll(self, timeout_s: float) -> list[tuple[Event, object]]:
        """Returns what has happened: events, each with the result of its task or None.

        Waits up to `timeout_s` for the first.

        Raises:
            Outage: no machine of the cluster is alive.
        """
        self._ask_pulses()
        self._look_at_cluster()
        where = {ref: number for number, hand in self._hands.items() for ref in hand.waiting}
        if not where:
            time.sleep(timeout_s)
            return []
        refs = list(where)
        ready, _ = ray.wait(refs, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        found = []
        for ref in ready:
            hand = self._hands.get(where[ref])
            if hand is not None and ref in hand.waiting:
                found += self._outcome(where[ref], hand, ref)
        self._tell_replicas()
        return found

    def _tell_replicas(self) -> None:
        self._metrics.replicas(Counter(_state(hand) for hand in self._hands.values()))

    def _outcome(self, number: int, hand: _Hand, ref: Any) -> list[tuple[Event, object]]:
        what, order = hand.waiting.pop(ref)
        try:
            value = ray.get(ref)
        except RayTaskError as raised:
            error = raised.cause if isinstance(raised.cause, Exception) else raised
            failure = _failure_of(error)
        except RayError as lost:
            return [self._gone(number, _loss(lost))]
        else:
            return self._success(number, hand, what, order, value)
        if order is None:  # the model cannot be loaded, or the run cannot be opened
            final = failure.final or (failure.trouble == Trouble.BUG and not _may_pass(error))
            return [self._gone(number, replace(failure, final=final))]
        failed = Failed(number, order.task, failure, order.piece)
        self._metrics.note(failed)
        return [(failed, None)]

    def _success(
        self, number: int, hand: _Hand, what: str, order: Assign | None, value: Any
    ) -> list[tuple[Event, object]]:
        if what == "hello":
            hand.up = True
            return [(Up(number), None)]
        if what == "load":
            hand.up = hand.ready = True
            return [(Ready(number), None)]
        if what == "pulse":
            return [(Pulse(number, *value), None)]
        assert order is not None
        if order.piece is not None:
            tiles, error = value
            return [(Done(number, order.task, order.piece, tiles, error=error), value)]
        if order.task.kind == Kind.INFER:
            report, effort = value
            done = Done(number, order.task, None, report.done, report.suspects)
            self._metrics.note(done, report, effort)
            return [(done, report)]
        entry, fork, effort = value
        self._forks.take(order.task, fork)
        done = Done(number, order.task)
        self._metrics.note(done, entry, effort)
        return [(done, entry)]

    def _gone(self, number: int, failure: Failure) -> tuple[Event, object]:
        _kill(self._hands.pop(number).actor)
        lost = Lost(number, failure)
        self._metrics.note(lost)
        return lost, None

    def _ask_pulses(self) -> None:
        now = time.monotonic()
        for hand in self._hands.values():
            asked = any(what == "pulse" for what, _ in hand.waiting.values())
            if hand.ready and not asked and now - hand.asked >= PULSE_S:
                hand.asked = now
                hand.waiting[hand.actor.pulse.remote()] = ("pulse", None)

    def _look_at_cluster(self) -> None:
        """Raises `Outage` if no replica runs and no machine is alive."""
        now = time.monotonic()
        if any(hand.up for hand in self._hands.values()) or now - self._alive_at < ALIVE_S:
            return
        self._alive_at = now
        answer: list[bool] = []

        def look() -> None:
            with suppress(Exception):
                answer.append(any(node["Alive"] for node in ray.nodes()))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(ANSWER_S)
        if not answer or not answer[0]:
            raise Outage(
                "Ray has no machine left that answers; finished blocks are kept, run the same "
                "command again when Ray is back"
            )


def _state(hand: _Hand) -> str:
    return "ready" if hand.ready else "loading" if hand.up else "starting"


def _kill(actor: Any) -> None:
    with suppress(Exception):  # it may be dead, and so may Ray
        ray.kill(actor)


def _loss(error: RayError) -> Failure:
    """Returns why a replica is gone."""
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError) or "low on memory" in text:
        return Failure(Trouble.MEMORY, "its process ran out of memory")
    if "node has died" in text or "node died" in text or "node is dead" in text:
        return Failure(Trouble.NODE, "its machine is gone")
    if isinstance(error, RayActorError | ActorUnavailableError | GetTimeoutError):
        return Failure(Trouble.DIED, "its process died")
    return Failure(Trouble.DIED, f"{type(error).__name__}: {text[:200]}")


def _may_pass(error: Exception) -> bool:
    """Whether a model that could not be loaded may be loaded by another try."""
    if isinstance(error, FileNotFoundError | ImportError):
        return False
    return isinstance(error, OSError) or "OutOfMemory" in type(error).__name__


def _failure_of(error: Exception) -> Failure:
    """Returns the failure of a task that raised an error."""
    reason = str(error)
    match error:
        case ScratchLost():
            lost = tuple(Task(Kind.INFER, key) for key in error.keys)
            return Failure(Trouble.INPUT, reason, lost)
        case ShardLost():
            return Failure(Trouble.INPUT, reason, error.tasks)
        case ModelSick():
            return Failure(Trouble.SICK, reason)
        case SourceError(passing=True):
            return Failure(Trouble.SOURCE, reason)
        case RunLost() | OutputError() | JobError():
            return Failure(Trouble.BUG, reason, error=error, final=True)
        case MemoryError():
            ended = RunFailed(f"a worker ran out of memory: {reason or 'MemoryError'}")
            return Failure(Trouble.MEMORY, "its process ran out of memory", error=ended)
        case Outage():
            return Failure(Trouble.STORAGE, reason, error=error, waited=error.waited)
        case PipelineError():
            return Failure(Trouble.BUG, reason, error=error)
    return Failure(
        Trouble.BUG,
        f"{type(error).__name__}: {error}",
        error=RunFailed(f"a worker failed: {type(error).__name__}: {error}"),
    )
