"""Tasks of a run as data: what can be done, what may happen to it, and what is ordered.

The scheduler takes events and gives orders. Nothing here knows Ray, a clock or a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from earthgptx.pipeline.errors import PipelineError
from earthgptx.pipeline.job.grid import BlockKey


class Kind(StrEnum):
    """What a task does with a block; the name of the replica's method."""

    INFER = "infer"
    COMMIT = "commit"
    PAINT = "paint"
    OVERVIEW = "overview"


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """A piece of work that leaves the same bytes whenever and wherever it is done."""

    kind: Kind
    key: BlockKey
    factor: int = 0
    """Factor of the overview; 0 for other tasks."""

    def __str__(self) -> str:
        return f"{self.kind} of {self.key}" + (f" at 1/{self.factor}" if self.factor else "")


class Trouble(StrEnum):
    """Kinds of failure; each has a budget in `scheduler`."""

    SOURCE = "source"
    """Imagery could not be read, which may pass."""
    STORAGE = "storage"
    """The output or scratch could not be read or written."""
    INPUT = "input"
    """What the task reads is missing or damaged; `Failure.lost` says which tasks make it."""
    DIED = "died"
    """The replica's process ended or froze."""
    MEMORY = "memory"
    """The replica's process was ended because memory ran out."""
    HUNG = "hung"
    """The replica answers, but does not get on with what it does."""
    NODE = "node"
    """The replica's machine is gone."""
    SICK = "sick"
    """The model fails on a tile that it could answer before."""
    BUG = "bug"
    """Anything else that was raised."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a task took."""

    seconds: dict[str, float]
    """By stage: read, ask or write."""
    bytes_read: int
    """Pixels of imagery, uncompressed."""
    bytes_written: int
    """Files of the result and of scratch; of an Icechunk repository scratch alone. Tasks that a
    replica does at the same time share them in any way."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task or a replica failed."""

    trouble: Trouble
    reason: str
    lost: tuple[Task, ...] = ()
    error: PipelineError | None = None
    """Error that ends the run if the budget is used up; None for one made of the reason."""
    final: bool = False
    """Whether trying again is of no use."""
    waited: bool = False
    """Whether it was tried for minutes: it counts as `WAITED` failures."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A tile on which the model failed though the replica is well."""

    piece: int
    """Number of the tile in its block."""
    reason: str
    proven: bool
    """Whether the replica answered another tile right afterwards."""


@dataclass(frozen=True, slots=True)
class Guilty:
    """A tile that is proven to fail; it is quarantined without being tried again."""

    piece: int
    cause: str
    """A `pipeline.results.store.Cause`."""
    reason: str


# Events


@dataclass(frozen=True, slots=True)
class Up:
    """A replica's process runs and begins to load the model."""

    replica: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A replica has loaded the model."""

    replica: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A replica is gone."""

    replica: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Done:
    """A task, or the trial of one tile, has ended."""

    replica: int
    task: Task
    piece: int | None = None
    tiles: int = 0
    """Tiles that the model answered."""
    suspects: tuple[Suspect, ...] = ()
    error: str = ""
    """Of a trial: why the model failed on the tile; empty if it answered."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A task has raised; the replica is there."""

    replica: int
    task: Task
    failure: Failure
    piece: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a thread of a replica is doing."""

    stage: str
    """read, ask or write."""
    seconds: float
    """Since it began, by the replica's clock."""
    tiles: int = 1
    """Tiles that are asked about at once."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A replica's answer to the question how it is."""

    replica: int
    steps: tuple[Step, ...] = ()
    tile_s: float = 0.0
    """Longest time that a tile has taken so far, in s; 0 before the first."""


Event = Up | Ready | Lost | Done | Failed | Pulse

# Orders


@dataclass(frozen=True, slots=True)
class Start:
    """Start a replica."""

    replica: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Kill a replica; it sends no further events."""

    replica: int
    reason: str
    trouble: Trouble | None = None
    """Kind of the failure that nobody else has told of."""


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a replica a task, or the trial of one of its tiles."""

    replica: int
    task: Task
    piece: int | None = None
    """Tile to try alone; None for the whole task."""
    last: bool = False
    """Whether imagery that cannot be read is to be quarantined instead of raised."""
    skip: tuple[Guilty, ...] = ()
    """Tiles to quarantine without trying them."""


Order = Start | Stop | Assign
