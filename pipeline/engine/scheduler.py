"""Scheduler: decides which replica does which task. Pure: no Ray, no clock, no files.

`handle` takes events, `decide` gives orders; both are told the time. Four rules:

- A task is ready when the tasks that it needs are done.
- A task that fails is tried again, after a pause and within the budget of its kind of failure.
- A block on which replicas die is put aside until nothing else is ready, and then tried tile by
  tile (see `blame`).
- A replica that fails where others succeed, or does not answer, is replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from earthgptx.pipeline.engine.blame import MOST_TRIALS, Trial, is_guilty
from earthgptx.pipeline.engine.board import Board, Entry
from earthgptx.pipeline.engine.budgets import (
    BUDGET,
    CANARIES,
    DEATHS,
    LETHAL,
    PAUSE_S,
    SICK,
    STRIKES,
    TRIALS,
    WAITED,
)
from earthgptx.pipeline.engine.staff import Limits, Member, Staff
from earthgptx.pipeline.engine.tasks import (
    Assign,
    Done,
    Event,
    Failed,
    Failure,
    Guilty,
    Kind,
    Lost,
    Order,
    Pulse,
    Ready,
    Stop,
    Suspect,
    Task,
    Trouble,
    Up,
)
from earthgptx.pipeline.errors import Outage, PipelineError, RunFailed


class Scheduler:
    """State machine of a run's tasks and replicas."""

    def __init__(self, limits: Limits) -> None:
        """Starts without tasks and without replicas."""
        self.staff = Staff(limits)
        self.ending: PipelineError | None = None
        """Why the run ends before its tasks are done; None while it goes on."""
        self._board = Board()
        self._survived = self._deaths = 0
        self._sick: set[int] = set()
        """Replicas on which the model failed on everything since a tile was answered."""
        self._answers = False
        """Whether the model has ever answered a tile of this plan."""
        self._healthy: tuple[Task, int] | None = None
        """A tile that was answered."""
        self.assigned: Counter[Task] = Counter()
        """How often each task was given to a replica as a whole."""

    def vouch(self, task: Task | None) -> None:
        """Notes that an earlier run had answers of the model.

        Args:
            task: a block whose tiles were all answered, for canaries; None if there is none.
        """
        self._answers = True
        if task is not None:
            self._healthy = (task, 0)

    def add(
        self, task: Task, needs: Iterable[Task] = (), *, pieces: int = 1, done: bool = False
    ) -> None:
        """Adds a task, or adds it again to have it done again.

        Args:
            task: task to do.
            needs: tasks that have to be done before it; they must have been added.
            pieces: number of its tiles.
            done: whether an earlier run did it.
        """
        self._board.add(task, needs, pieces=pieces, done=done)

    @property
    def finished(self) -> bool:
        """Whether all tasks are done."""
        return self._board.open == 0

    def is_done(self, task: Task) -> bool:
        """Whether a task is done."""
        return self._board.entries[task].state == "done"

    @property
    def lost(self) -> int:
        """Replicas that died or were killed."""
        return self._deaths

    @property
    def repeated(self) -> int:
        """How often a block was given to a replica to infer after the first time."""
        counts = [n for task, n in self.assigned.items() if task.kind == Kind.INFER]
        return sum(counts) - len(counts)

    @property
    def wake_at(self) -> float | None:
        """Time of the next decision that no event calls for; None if there is none."""
        return self._board.wake_at

    def handle(self, event: Event, now: float) -> None:
        """Takes an event. Events of replicas that are gone, or of tasks that they no longer have,
        are ignored.
        """
        member = self.staff.members.get(event.replica)
        if member is None:
            return
        match event:
            case Up():
                self.staff.up(member, now)
            case Ready():
                self.staff.ready(member, now)
            case Pulse():
                self.staff.pulse(member, event, now)
            case Lost(failure=failure):
                self._lose(member, failure, now)
            case Done() if (event.task, event.piece) in member.running:
                member.running.remove((event.task, event.piece))
                self._done(member, event)
            case Failed() if (event.task, event.piece) in member.running:
                member.running.remove((event.task, event.piece))
                self._failed(member, event, now)

    def decide(self, now: float) -> list[Order]:
        """Returns what is to be done now; nothing if the run has ended."""
        orders: list[Order] = []
        for member, failure in self.staff.overdue(now):
            orders.append(Stop(member.number, failure.reason, failure.trouble))
            self._lose(member, failure, now)
        for number in self.staff.dismissed(now):
            orders.append(Stop(number, "fails on what other replicas can do"))
        if self.finished:
            return orders
        self.ending = self.ending or self.staff.overspent(now)
        self.ending = self.ending or self.staff.shortage(self._board.open, now)
        if self.ending:
            return orders
        orders += self.staff.recruit(self._board.open, now)
        self._board.wake(now)
        return orders + self._hand_out(now)

    def check_cost(self, now: float) -> None:
        """Ends the run if it may cost no more; for where no decision is asked for a while.

        Raises:
            CostReached: it may not.
        """
        ending = self.staff.overspent(now)
        if ending is not None:
            raise ending

    def resume(self, now: float) -> None:
        """Forgets the silence of replicas while nobody listened."""
        self.staff.resume(now)

    # Giving out work

    def _hand_out(self, now: float) -> list[Order]:
        orders: list[Order] = []
        for task in list(self._board.apart):
            entry = self._board.entries[task]
            if entry.state == "opinion":
                orders += self._ask_others(entry, now)
        while self._board.has_ready and (member := self.staff.with_room()):
            entry = self._board.pop()
            task = entry.task
            if member.number in entry.avoid:
                member = self.staff.with_room(entry.avoid) or member
            entry.state = "running"
            self.assigned[task] += 1
            member.running.add((task, None))
            skip = tuple(entry.guilty.values())
            orders.append(Assign(member.number, task, last=_is_last(entry), skip=skip))
        if not self._board.has_ready:
            orders += self._try_apart()
        return orders

    def _try_apart(self) -> list[Order]:
        """Tries tiles of blocks on which replicas died, one tile on an otherwise idle replica."""
        orders: list[Order] = []
        for task in list(self._board.apart):
            entry = self._board.entries[task]
            if entry.state != "trial" or entry.trial is None or entry.trial.next is None:
                continue
            member = self.staff.idle()
            if member is None:
                break
            member.alone = True
            if entry.canaries and self._healthy is not None:
                entry.canaries -= 1
                member.running.add(self._healthy)
                orders.append(Assign(member.number, *self._healthy, last=True))
                continue
            entry.state, entry.trying = "running", entry.trial.next
            member.running.add((task, entry.trying))
            orders.append(Assign(member.number, task, entry.trying, last=_is_last(entry)))
        return orders

    def _ask_others(self, entry: Entry, now: float) -> list[Order]:
        """Asks another replica about the tiles on which one failed."""
        orders: list[Order] = []
        for piece in sorted(entry.opinions):
            if self.staff.has(entry.task, piece):
                continue
            if not self.staff.others(entry.answered_by):
                if self.staff.expects(entry.answered_by, now):
                    break  # another one is on its way
                self._decide_alone(entry)
                break
            member = self.staff.with_room({entry.answered_by})
            if member is None:
                break
            member.running.add((entry.task, piece))
            orders.append(Assign(member.number, entry.task, piece, last=True))
        return orders

    # What becomes of tasks

    def _done(self, member: Member, event: Done) -> None:
        entry = self._board.entries[event.task]
        if event.tiles:
            self._answers = True
            self._survived += event.tiles
            self._sick.clear()
        if event.piece is not None:
            member.alone = False
            if entry.state == "opinion":
                self._opinion(entry, event)
            elif entry.trial is not None and entry.trying == event.piece:
                if event.tiles:
                    self._healthy = (event.task, event.piece)
                entry.trial.end(event.piece)
                self._go_on_trying(entry)
        elif event.suspects and entry.failures[Trouble.SICK] < BUDGET[Trouble.SICK]:
            self._doubt(member, entry, event.suspects)
        else:
            self._board.accept(entry)
            if event.tiles >= entry.pieces:
                self._healthy = self._healthy or (event.task, 0)

    def _doubt(self, member: Member, entry: Entry, suspects: tuple[Suspect, ...]) -> None:
        """Has another replica confirm tiles on which the model failed, if there is another."""
        entry.answered_by = member.number
        entry.refuted = False
        entry.opinions = {suspect.piece: suspect for suspect in suspects}
        entry.state = "opinion"
        self._board.apart[entry.task] = None

    def _decide_alone(self, entry: Entry) -> None:
        """Decides on tiles on which the model failed, as there is no other replica to ask."""
        proven = all(suspect.proven for suspect in entry.opinions.values())
        if entry.refuted or not (proven or entry.failures[Trouble.SICK]):
            self._again(entry)
        else:
            self._board.accept(entry)

    def _again(self, entry: Entry) -> None:
        """Has a block inferred again whose tiles failed on one replica only."""
        entry.failures[Trouble.SICK] += 1
        entry.opinions.clear()
        self._board.apart.pop(entry.task, None)
        self._board.make_ready(entry)

    def _opinion(self, entry: Entry, event: Done) -> None:
        assert event.piece is not None
        entry.opinions.pop(event.piece, None)
        if not event.error and not entry.refuted:
            entry.refuted = True
            entry.avoid.add(entry.answered_by)
            self.staff.strike(entry.answered_by, STRIKES)
        if entry.opinions:
            return
        if entry.refuted:
            self._again(entry)
        else:
            self._board.accept(entry)

    def _failed(self, member: Member, event: Failed, now: float) -> None:
        entry, failure = self._board.entries[event.task], event.failure
        if event.piece is not None:
            member.alone = False
        if failure.trouble == Trouble.SICK:
            self._sick.add(member.number)
            if len(self._sick) >= SICK:
                self._end(failure, f"the model fails on everything: {failure.reason}")
            self.staff.strike(member.number, 1)
            if self._was_sick(entry, event):
                return
        entry.failures[failure.trouble] += WAITED if failure.waited else 1
        tries = entry.failures[failure.trouble]
        if event.piece is not None and entry.trying != event.piece:
            if entry.state == "opinion" and tries > BUDGET[failure.trouble]:
                self._board.accept(entry)
            return  # the tile is asked about again
        if failure.final or tries > BUDGET[failure.trouble]:
            self._end(failure, f"{entry.task} failed {tries} times: {failure.reason}")
            return
        if failure.trouble == Trouble.INPUT:
            self._redo(entry, failure)
        elif failure.trouble in PAUSE_S:
            pause = min(2.0 ** (tries - 1), PAUSE_S[failure.trouble])
            self._board.pause(entry, now + pause)
        else:
            self._board.make_ready(entry)

    def _was_sick(self, entry: Entry, event: Failed) -> bool:
        """Counts a sick replica like one that died: a tile may make replicas sick."""
        self._deaths += 1
        if event.piece is None and event.task.kind == Kind.INFER:
            self._died_with(entry, event.failure)
        elif event.piece is not None and entry.trial is not None and entry.trying == event.piece:
            self._died_on(entry, event.piece, event.failure)
        else:
            return False
        return True

    def _redo(self, entry: Entry, failure: Failure) -> None:
        """Has the tasks done again whose results are lost, and then this one."""
        if any(task not in self._board.entries for task in failure.lost):
            self._end(failure, f"{entry.task}: {failure.reason}")
        else:
            self._board.redo(entry, failure.lost)

    # What becomes of replicas

    def _lose(self, member: Member, failure: Failure, now: float) -> None:
        """Takes a replica out, and its tasks back."""
        was_ready = member.state == "ready"
        self.staff.lose(member, failure, now)
        if not was_ready:
            return
        if failure.trouble != Trouble.NODE:
            self._deaths += 1
        for task, piece in member.running:
            entry = self._board.entries[task]
            lethal = max(LETHAL, 2 * self.staff.limits.most)
            if task.kind == Kind.INFER and not self._answers and self._deaths >= lethal:
                why = f"{self._deaths} processes died and none answered a tile"
                self._end(failure, f"{why}: {failure.reason}")
            if piece is None:
                self._died_with(entry, failure)
            elif entry.trial is not None and entry.trying == piece:
                self._died_on(entry, piece, failure)
            elif entry.state == "opinion":
                entry.all_deaths += 1
                if entry.all_deaths > BUDGET[Trouble.DIED]:
                    self._board.accept(entry)

    def _died_with(self, entry: Entry, failure: Failure) -> None:
        """A replica died while it had a whole task."""
        if failure.trouble == Trouble.NODE:
            entry.failures[Trouble.NODE] += 1
            if entry.failures[Trouble.NODE] > BUDGET[Trouble.NODE]:
                self._end(
                    failure, f"{entry.task}: its machine was lost {BUDGET[Trouble.NODE]} times"
                )
            self._board.make_ready(entry)
            return
        entry.deaths += 1
        entry.all_deaths += 1
        if entry.task.kind != Kind.INFER:
            if entry.deaths > BUDGET[Trouble.DIED]:
                self._end(
                    failure, f"{entry.task}: {entry.deaths} processes died ({failure.reason})"
                )
        elif entry.deaths >= DEATHS or failure.trouble == Trouble.HUNG:
            entry.trials += 1
            if entry.trials > TRIALS:
                self._end(
                    failure,
                    f"{entry.task}: {entry.all_deaths} processes died on it ({failure.reason}), "
                    "and none of its tiles is the cause",
                )
            left = [each for each in range(entry.pieces) if each not in entry.guilty]
            entry.trial = Trial(left) if left else None
        self._board.make_ready(entry)

    def _died_on(self, entry: Entry, piece: int, failure: Failure) -> None:
        """A replica died while it tried one tile, alone."""
        assert entry.trial is not None
        if failure.trouble == Trouble.NODE:
            self._go_on_trying(entry)
            return
        entry.all_deaths += 1
        trials = entry.trial.failed(piece)
        entry.canaries = CANARIES
        kind = entry.trial.kind_of(piece, failure.trouble.value)
        if is_guilty(kind, trials, self._deaths - entry.all_deaths, self._survived):
            entry.trial.end(piece)
            cause = {Trouble.MEMORY: "memory", Trouble.HUNG: "hung"}.get(failure.trouble, "died")
            entry.guilty[piece] = Guilty(
                piece, cause, f"the model's process {_ended(failure)} this tile, {trials} times"
            )
        if trials > MOST_TRIALS:
            self._end(failure, f"{entry.task}: {entry.all_deaths} processes died on it")
        self._go_on_trying(entry)

    def _go_on_trying(self, entry: Entry) -> None:
        if entry.trial is None or entry.trial.next is None:
            entry.trial = entry.trying = None
            entry.deaths = 0
            self._board.apart.pop(entry.task, None)
        self._board.make_ready(entry)

    def _end(self, failure: Failure, sentence: str) -> None:
        """Ends the run; the first reason stands."""
        if self.ending is None:
            kind = Outage if failure.trouble in (Trouble.STORAGE, Trouble.NODE) else RunFailed
            self.ending = failure.error or kind(f"{sentence}. Finished blocks are kept")


def _is_last(entry: Entry) -> bool:
    """Whether imagery that cannot be read is to be quarantined, as its budget is used up."""
    return entry.failures[Trouble.SOURCE] >= BUDGET[Trouble.SOURCE]


def _ended(failure: Failure) -> str:
    if failure.trouble == Trouble.HUNG:
        return "hung on"
    if failure.trouble == Trouble.SICK:
        return "failed on everything after"
    return "ran out of memory on" if failure.trouble == Trouble.MEMORY else "died on"
