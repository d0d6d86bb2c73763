"""A simulated cluster that obeys the scheduler: seeded, with a clock of its own."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from earthgptx.pipeline.engine.scheduler import Scheduler
from earthgptx.pipeline.engine.staff import Limits
from earthgptx.pipeline.engine.tasks import (
    Assign,
    Done,
    Failed,
    Failure,
    Kind,
    Lost,
    Order,
    Pulse,
    Ready,
    Start,
    Step,
    Stop,
    Suspect,
    Task,
    Trouble,
    Up,
)
from earthgptx.pipeline.job.grid import BlockKey


@dataclass(frozen=True)
class World:
    """What goes wrong in a simulated run, and how often."""

    rows: int = 4
    cols: int = 4
    pieces: int = 4
    tile_s: float = 0.1
    start_s: float = 3.0
    deaths_per_s: float = 0.0
    """Rate at which a replica dies by chance."""
    node_losses_per_s: float = 0.0
    source_fails: float = 0.0
    """Probability that a block's imagery cannot be read this time."""
    source_down_until: float = 0.0
    storage_fails: float = 0.0
    lost_inputs: float = 0.0
    """Probability that a commit finds its scratch lost."""
    failed_starts: float = 0.0
    flaky: bool = False
    """Whether the first replica fails on a third of the tiles, and no other."""
    sick_after: float = 0.0
    """Rate at which a replica begins to fail on everything."""
    guilty: dict[tuple[BlockKey, int], str] = field(default_factory=dict)
    """Tiles that fail wherever they are tried: raise, kill, hang or memory."""


class Cluster:
    """Does what a scheduler orders; replicas take time, fail and die as the world says."""

    def __init__(self, world: World, limits: Limits, seed: int) -> None:
        self.world, self.random, self.now = world, random.Random(seed), 0.0
        self.scheduler = Scheduler(limits)
        self._events: list[tuple[float, int, object]] = []
        self._alive: dict[int, dict[tuple[Task, int | None], None]] = {}
        self._busy: dict[int, float] = {}
        self._hung: dict[int, tuple[float, Task]] = {}
        self._number = 0
        self.done: Counter[Task] = Counter()
        self.inferred: Counter[Task] = Counter()
        self.quarantined: dict[tuple[BlockKey, int], str] = {}
        self.deaths, self.busy_s = 0, 0.0
        self._build()

    def _build(self) -> None:
        world = self.world
        keys = [BlockKey("g", 0, r, c) for r in range(world.rows) for c in range(world.cols)]
        for key in keys:
            self.scheduler.add(Task(Kind.INFER, key), pieces=world.pieces)
        for key in keys:
            around = [key, *(each for each in key.neighbours() if each in keys)]
            self.scheduler.add(Task(Kind.COMMIT, key), [Task(Kind.INFER, n) for n in around])
        self.keys = keys

    def run(self, limit_s: float = 1e6) -> None:
        """Runs until all tasks are done or the run has ended."""
        while not self.scheduler.finished and self.scheduler.ending is None:
            for order in self.scheduler.decide(self.now):
                self._obey(order)
            if self.scheduler.ending is not None or self.scheduler.finished:
                break
            self._advance()
            assert self.now < limit_s, "the run does not end"

    def _advance(self) -> None:
        """Goes on to the next event, or a second."""
        self._events.sort(key=lambda each: each[:2])
        until = self.now + 1.0
        if self.scheduler.wake_at is not None:
            until = min(until, max(self.scheduler.wake_at, self.now + 1e-6))
        if self._events and self._events[0][0] <= until:
            self.now = self._events[0][0]
            while self._events and self._events[0][0] <= self.now:
                event = self._events.pop(0)[2]
                self._deliver(event)
        else:
            self.now = until
        for number in self._alive:
            steps: tuple[Step, ...] = ()
            if number in self._hung:
                steps = (Step("ask", self.now - self._hung[number][0]),)
            pulse = Pulse(number, steps, self.world.tile_s)
            self.scheduler.handle(pulse, self.now)

    def _deliver(self, event: object) -> None:
        replica = event.replica  # type: ignore[attr-defined]
        if replica not in self._alive and not isinstance(event, Lost):
            return
        if isinstance(event, Lost):
            if replica not in self._alive:
                return
            self._drop(replica)
            self.deaths += 1
        if isinstance(event, Done | Failed):
            if (event.task, event.piece) not in self._alive[replica]:
                return
            del self._alive[replica][event.task, event.piece]
            if isinstance(event, Done) and event.piece is None:
                self.done[event.task] += 1
        self.scheduler.handle(event, self.now)  # type: ignore[arg-type]

    def _drop(self, replica: int) -> None:
        self._alive.pop(replica, None)
        self._hung.pop(replica, None)

    def _at(self, seconds: float, event: object) -> None:
        self._number += 1
        self._events.append((self.now + seconds, self._number, event))

    def _obey(self, order: Order) -> None:
        if isinstance(order, Stop):
            self._drop(order.replica)
        elif isinstance(order, Start):
            self._start(order.replica)
        else:
            self._work(order)

    def _start(self, replica: int) -> None:
        world = self.world
        self._alive[replica] = {}
        self._busy[replica] = self.now + world.start_s
        if self.random.random() < world.failed_starts:
            self._at(world.start_s / 2, Lost(replica, Failure(Trouble.DIED, "did not start")))
            return
        self._at(world.start_s / 2, Up(replica))
        self._at(world.start_s, Ready(replica))
        for rate, trouble in (
            (world.deaths_per_s, Trouble.DIED),
            (world.node_losses_per_s, Trouble.NODE),
        ):
            if rate:
                after: float = world.start_s + self.random.expovariate(rate)
                self._at(after, Lost(replica, Failure(trouble, "by chance")))
        if world.sick_after:
            sick = self.random.expovariate(world.sick_after)
            self._sick_at = getattr(self, "_sick_at", {})
            self._sick_at[replica] = self.now + world.start_s + sick

    def _work(self, order: Assign) -> None:
        world, replica, task = self.world, order.replica, order.task
        assert replica in self._alive, "an order to a replica that is gone"
        self._alive[replica][task, order.piece] = None
        fail = self._failure(order)
        if fail is not None:
            self._at(0.05, Failed(replica, task, fail, order.piece))
            return
        if task.kind != Kind.INFER:
            self._at(0.02, Done(replica, task))
            return
        if order.piece is None:
            self.inferred[task] += 1
        skip = {each.piece for each in order.skip}
        pieces = [order.piece] if order.piece is not None else range(world.pieces)
        start = begin = max(self._busy[replica], self.now)
        suspects: list[Suspect] = []
        tiles = 0
        for piece in pieces:
            if piece in skip:
                continue
            kind = world.guilty.get((task.key, piece))
            if kind in ("kill", "memory"):
                trouble = Trouble.DIED if kind == "kill" else Trouble.MEMORY
                self._at(begin - self.now, Lost(replica, Failure(trouble, kind)))
                return
            if kind == "sick":
                self._at(
                    begin - self.now,
                    Failed(replica, task, Failure(Trouble.SICK, "assert"), order.piece),
                )
                return
            if kind == "hang":
                self._hung[replica] = (begin, task)
                return
            begin += world.tile_s
            flaky = world.flaky and replica == 0 and self.random.random() < 0.3
            tiles += int(kind != "raise" and not flaky)
            if kind == "raise" or flaky:
                suspects.append(Suspect(piece, "raises", tiles > 0))
        self._busy[replica] = begin
        self.busy_s += begin - start
        for each in order.skip:
            self.quarantined[task.key, each.piece] = each.cause
        if order.piece is not None:
            error = "raises" if suspects else ""
            self._at(begin - self.now, Done(replica, task, order.piece, tiles, error=error))
            return
        for place in [each for each in self.quarantined if each[0] == task.key]:
            if self.quarantined[place] == "model":
                del self.quarantined[place]  # what was answered before counts no more
        for suspect in suspects:
            self.quarantined[task.key, suspect.piece] = "model"
        self._at(begin - self.now, Done(replica, task, None, tiles, tuple(suspects)))

    def _failure(self, order: Assign) -> Failure | None:
        world, task, dice = self.world, order.task, self.random
        if task.kind == Kind.INFER:
            if self.now > getattr(self, "_sick_at", {}).get(order.replica, 1e18):
                return Failure(Trouble.SICK, "CUDA error")
            down = self.now < world.source_down_until or dice.random() < world.source_fails
            if down and not order.last:
                return Failure(Trouble.SOURCE, "503")
        if dice.random() < world.storage_fails:
            return Failure(Trouble.STORAGE, "slow down")
        if task.kind == Kind.COMMIT and dice.random() < world.lost_inputs:
            around = [task.key, *(each for each in task.key.neighbours() if each in self.keys)]
            lost = dice.sample(around, dice.randint(1, len(around)))
            return Failure(Trouble.INPUT, "torn", tuple(Task(Kind.INFER, key) for key in lost))
        return None
