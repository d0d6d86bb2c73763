"""The replicas of a run as the scheduler sees them: who is there, who is late, who is wanted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from earthgptx.pipeline.engine.tasks import Failure, Pulse, Start, Task, Trouble
from earthgptx.pipeline.errors import CostReached, Outage, PipelineError, RunFailed

SLOTS = 2
"""Tasks of a replica: one block is inferred while another is read or written."""
SILENCE_S = 45.0
"""Seconds without an answer after which a replica counts as frozen."""
FIRST_TILE_S = 300.0
"""Limit of a tile before one has been measured."""
TILE_S = 30.0
"""Least limit of a tile that is derived from measured times."""
TILE_TIMES = 20.0
"""Derived limit of a tile, in multiples of the longest time that one has taken."""
OTHER_S = 1800.0
"""Limit of reading or writing a block."""
EXPECTED_S = 60.0
"""Time after which nobody waits any more for a replica that the cluster has not given."""
ENDING_S = 2.0
"""Seconds that a replica goes on until it is stopped: what is left of a run's budget at its end."""
NAP_S = 10.0
"""Pause between two decisions from which on the driver itself has slept."""
FAILED_STARTS = 6
"""Starts in a row that fail, after which a run without any replica ends. Those that were asked for
at the same time count as one.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many replicas a run has, and how long they may take."""

    least: int = 1
    most: int = 1
    start_s: float = 600.0
    """Time to load the model, and time until the least number of replicas is there."""
    tile_s: float | None = None
    """Time for a tile; None to derive it from measured times."""
    paid_s: float | None = None
    """Time of all replicas together that the run may cost; None for any."""


@dataclass
class Member:
    """A replica."""

    number: int
    since: float
    """When its present state began."""
    state: str = "asked"
    """asked, loading or ready."""
    running: set[tuple[Task, int | None]] = field(default_factory=set)
    """Its tasks, and the trials of single tiles."""
    alone: bool = False
    """Whether it tries a tile and gets nothing else meanwhile."""
    heard: float = 0.0
    pulse: Pulse | None = None
    strikes: int = 0
    asked: float = 0.0
    paid_from: float | None = None
    """When its process began to run; None before."""
    adopted: bool = False
    """Whether an earlier run has started it."""


class Staff:
    """Keeps the replicas of a run."""

    def __init__(self, limits: Limits) -> None:
        """Starts without replicas."""
        self.limits = limits
        self.members: dict[int, Member] = {}
        self._dismissed: list[int] = []
        self._next = 0
        self._short_since: float | None = None
        self._start_after = self._decided = 0.0
        self._failed_starts = 0
        self._counted = 0.0
        self._why = ""
        self._error: PipelineError | None = None
        self._fatal: PipelineError | None = None
        self._ever_ready = False
        self._paid_s = 0.0
        """Time of the replicas that are gone."""

    # Events

    def adopt(self, now: float) -> int:
        """Adds a replica that an earlier run has started; returns its number."""
        [order] = self._start(1, now)
        member = self.members[order.replica]
        member.state, member.adopted, member.paid_from = "loading", True, now
        return order.replica

    def up(self, member: Member, now: float) -> None:
        """Notes that a replica's process runs."""
        if member.state == "asked":
            member.state, member.since, member.paid_from = "loading", now, now

    def ready(self, member: Member, now: float) -> None:
        """Notes that a replica has loaded the model."""
        member.state, member.since, member.heard = "ready", now, now
        self._failed_starts, self._ever_ready = 0, True

    def pulse(self, member: Member, pulse: Pulse, now: float) -> None:
        """Notes that a replica has answered."""
        member.heard, member.pulse = now, pulse

    def lose(self, member: Member, failure: Failure, now: float) -> None:
        """Takes a replica out."""
        self._take_out(member, now)
        if member.state == "ready":
            return
        self._why, self._error = failure.reason, failure.error
        own = failure.trouble != Trouble.NODE and not member.adopted
        if own and member.asked >= self._counted:
            self._failed_starts += 1
            self._counted = now
            self._start_after = now + min(2.0 ** (self._failed_starts - 1), 60.0)
        if failure.final and not self._ever_ready:
            self._fatal = failure.error or RunFailed(failure.reason)

    def strike(self, number: int, most: int) -> None:
        """Counts a failure that is the replica's own; it is dismissed after `most`."""
        member = self.members.get(number)
        if member is not None:
            member.strikes += 1
            if member.strikes >= most:
                self._dismissed.append(number)

    def resume(self, now: float) -> None:
        """Forgets the silence of replicas while nobody listened."""
        for member in self.members.values():
            member.heard = now
            if member.state != "ready":
                member.since = now
        self._decided = now
        if self._short_since is not None:
            self._short_since = now

    # Decisions

    def overdue(self, now: float) -> list[tuple[Member, Failure]]:
        """Returns replicas that take too long, and why they are given up."""
        if now - self._decided > NAP_S:
            self.resume(now)
        self._decided = now
        found = []
        for member in self.members.values():
            failure = self._lateness(member, now)
            if failure is not None:
                found.append((member, failure))
        return found

    def dismissed(self, now: float) -> list[int]:
        """Returns replicas to stop that have nothing to do any more, and takes them out."""
        gone = []
        for number in list(self._dismissed):
            member = self.members.get(number)
            if member is None or not member.running:
                self._dismissed.remove(number)
                if member is not None:
                    self._take_out(member, now)
                    gone.append(number)
        return gone

    def paid_s(self, now: float) -> float:
        """Returns the time of all replicas together until now, in s; what is loading counts."""
        return self._paid_s + sum(_paid(member, now) for member in self.members.values())

    def overspent(self, now: float) -> PipelineError | None:
        """Returns why the run may cost no more; None if it may."""
        most = self.limits.paid_s
        if most is None or self.paid_s(now) + ENDING_S * len(self.members) < most:
            return None
        if not self._ever_ready:
            return CostReached(
                f"the run may cost {most:.0f} s of replicas, and none has loaded the model in that "
                "time: it would never get further. Let it cost more"
            )
        return CostReached(
            f"the run ends before it costs more than it may: its replicas ran for "
            f"{self.paid_s(now):.0f} s together. Finished blocks are kept; run the same command "
            "again to go on"
        )

    def shortage(self, work: int, now: float) -> PipelineError | None:
        """Returns why the run has too few replicas for its work to go on; None if it goes on."""
        if self._fatal is not None:
            return self._fatal
        count = sum(member.state == "ready" for member in self.members.values())
        if count >= min(self.limits.least, work):
            self._short_since = None
            return None
        if count == 0 and self._failed_starts >= FAILED_STARTS:
            return self._error or RunFailed(
                f"{self._failed_starts} replicas in a row could not be started ({self._why}). "
                "Finished blocks are kept"
            )
        if self._short_since is None:
            self._short_since = now
        loading = any(member.state == "loading" for member in self.members.values())
        if now - self._short_since <= self.limits.start_s or (loading and count == 0):
            return None
        return Outage(
            f"{count} replicas are there and engine.replicas asks for at least "
            f"{self.limits.least}; the cluster gave no more in {self.limits.start_s:.0f} s. "
            "Finished blocks are kept; run the same command again when it has room"
        )

    def recruit(self, work: int, now: float) -> list[Start]:
        """Returns the replicas to start: as many as there is work for, up to the limit."""
        missing = min(self.limits.most, work) - len(self.members)
        return self._start(missing, now) if missing > 0 and now >= self._start_after else []

    def with_room(self, avoid: Collection[int] = ()) -> Member | None:
        """Returns the replica with the fewest tasks that can take another."""
        able = [
            member
            for member in self.members.values()
            if self._works(member)
            and not member.alone
            and len(member.running) < SLOTS
            and member.number not in avoid
        ]
        return min(able, key=lambda member: len(member.running), default=None)

    def idle(self) -> Member | None:
        """Returns a replica without any task."""
        return next(
            (each for each in self.members.values() if self._works(each) and not each.running), None
        )

    def others(self, number: int) -> bool:
        """Whether another replica can be asked."""
        return any(
            self._works(member) and member.number != number for member in self.members.values()
        )

    def expects(self, number: int, now: float) -> bool:
        """Whether another replica is on its way.

        It loads its model, or was asked for just now, or will be asked for: after a pause, or when
        one that is dismissed has ended its tasks.
        """
        if now < self._start_after and 0 < self._failed_starts < FAILED_STARTS:
            return True
        return any(
            member.number != number
            and (
                member.state == "loading"
                or (member.state == "asked" and now - member.since < EXPECTED_S)
                or member.number in self._dismissed
            )
            for member in self.members.values()
        )

    def has(self, task: Task, piece: int | None) -> bool:
        """Whether a replica has a trial."""
        return any((task, piece) in member.running for member in self.members.values())

    def tile_limit(self, measured_s: float) -> float:
        """Returns the time that a tile may take, in s."""
        if self.limits.tile_s is not None:
            return self.limits.tile_s
        return max(TILE_S, TILE_TIMES * measured_s) if measured_s else FIRST_TILE_S

    def _take_out(self, member: Member, now: float) -> None:
        del self.members[member.number]
        self._paid_s += _paid(member, now)

    def _works(self, member: Member) -> bool:
        return member.state == "ready" and member.number not in self._dismissed

    def _start(self, count: int, now: float) -> list[Start]:
        orders = []
        for _ in range(count):
            self.members[self._next] = Member(self._next, now, asked=now)
            orders.append(Start(self._next))
            self._next += 1
        return orders

    def _lateness(self, member: Member, now: float) -> Failure | None:
        if member.state == "loading" and now - member.since > self.limits.start_s:
            return Failure(Trouble.HUNG, f"the model was not loaded in {self.limits.start_s:.0f} s")
        if member.state != "ready":
            return None
        if now - member.heard > SILENCE_S:
            return Failure(Trouble.DIED, f"no answer for {SILENCE_S:.0f} s")
        if member.pulse is None or not member.running:
            return None
        for step in member.pulse.steps:
            limit = (
                self.tile_limit(member.pulse.tile_s) * step.tiles
                if step.stage == "ask"
                else OTHER_S
            )
            if step.seconds > limit:
                return Failure(Trouble.HUNG, f"no progress for {limit:.0f} s ({step.stage})")
        return None


def _paid(member: Member, now: float) -> float:
    """Returns how long a replica's process has run, in s."""
    return 0.0 if member.paid_from is None else max(now - member.paid_from, 0.0)
