"""The board: the tasks of a run, what each waits for, and which is next."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from earthgptx.pipeline.engine.blame import Trial
from earthgptx.pipeline.engine.tasks import Guilty, Kind, Suspect, Task, Trouble


@dataclass
class Entry:
    """A task and what has become of it."""

    task: Task
    order: int
    needs: frozenset[Task]
    pieces: int
    state: str = "waiting"
    """waiting, ready, paused, running, trial, opinion or done."""
    missing: set[Task] = field(default_factory=set)
    failures: Counter[Trouble] = field(default_factory=Counter)
    deaths: int = 0
    """Replicas that died with it since it was tried tile by tile."""
    all_deaths: int = 0
    trials: int = 0
    trial: Trial | None = None
    trying: int | None = None
    """Tile that a replica is trying."""
    canaries: int = 0
    """Healthy tiles to try before its next one."""
    guilty: dict[int, Guilty] = field(default_factory=dict)
    opinions: dict[int, Suspect] = field(default_factory=dict)
    """Tiles on which one replica failed and another has not been asked."""
    refuted: bool = False
    answered_by: int = -1
    avoid: set[int] = field(default_factory=set)

    @property
    def rank(self) -> tuple[int, int]:
        """Tasks that end a block come before those that begin one."""
        return (self.task.kind == Kind.INFER, self.order)


class Board:
    """Keeps the tasks of a run in order of what they need."""

    def __init__(self) -> None:
        """Starts without tasks."""
        self.entries: dict[Task, Entry] = {}
        self.open = 0
        """Tasks that are not done."""
        self.apart: dict[Task, None] = {}
        """Tasks that are tried tile by tile, or wait for a second opinion; in order."""
        self._dependents: dict[Task, list[Task]] = defaultdict(list)
        self._ready: list[tuple[tuple[int, int], Task]] = []
        self._paused: list[tuple[float, Task]] = []

    def add(self, task: Task, needs: Iterable[Task], *, pieces: int, done: bool) -> None:
        """Adds a task, or adds it again to have it done again; see `Scheduler.add`."""
        entry = Entry(task, len(self.entries), frozenset(needs), pieces)
        self.entries[task] = entry
        if done:
            entry.state = "done"
            return
        self.open += 1
        for need in entry.needs:
            self._dependents[need].append(task)
        self.wait(entry)

    @property
    def wake_at(self) -> float | None:
        """When the next pause ends; None if there is none."""
        return self._paused[0][0] if self._paused else None

    @property
    def has_ready(self) -> bool:
        """Whether a task is ready."""
        while self._ready and self.entries[self._ready[0][1]].state != "ready":
            heapq.heappop(self._ready)  # left over from before it was put apart
        return bool(self._ready)

    def pop(self) -> Entry:
        """Takes the next task that is ready; see `has_ready`."""
        return self.entries[heapq.heappop(self._ready)[1]]

    def pause(self, entry: Entry, until: float) -> None:
        """Has a task tried again at a time."""
        entry.state = "paused"
        heapq.heappush(self._paused, (until, entry.task))

    def wake(self, now: float) -> None:
        """Makes the tasks ready whose pause is over."""
        while self._paused and self._paused[0][0] <= now:
            entry = self.entries[heapq.heappop(self._paused)[1]]
            if entry.state == "paused":
                self.make_ready(entry)

    def wait(self, entry: Entry) -> None:
        """Has a task wait for what it needs; makes it ready if all of that is done."""
        entry.missing = {need for need in entry.needs if self.entries[need].state != "done"}
        entry.state = "waiting"
        if not entry.missing:
            self.make_ready(entry)

    def make_ready(self, entry: Entry) -> None:
        """Makes a task ready, or puts it apart if it is tried tile by tile."""
        if entry.trial is not None:
            entry.state, entry.trying = "trial", None
            self.apart[entry.task] = None
            return
        entry.state = "ready"
        heapq.heappush(self._ready, (entry.rank, entry.task))

    def accept(self, entry: Entry) -> None:
        """Counts a task as done and frees those that waited for it."""
        entry.state = "done"
        entry.opinions.clear()
        self.apart.pop(entry.task, None)
        self.open -= 1
        for task in self._dependents.get(entry.task, ()):
            waiting = self.entries[task]
            if waiting.state == "waiting":
                waiting.missing.discard(entry.task)
                if not waiting.missing:
                    self.make_ready(waiting)

    def redo(self, entry: Entry, lost: Iterable[Task]) -> None:
        """Has tasks done again whose results are lost, and then the one that needs them."""
        for task in lost:
            other = self.entries[task]
            if other.state == "done":
                self.open += 1
                for need in other.needs:
                    self._dependents[need].append(task)
                self.wait(other)
            self._dependents[task].append(entry.task)
        entry.needs |= set(lost)
        self.wait(entry)
