"""Blame: which tile ends the processes that try it, told apart from processes that end by chance.

A block on which processes have died is tried tile by tile, each alone on a replica. A tile that is
answered is cleared. One on which processes die is tried again after the others, until the deaths
are too many for chance or it is answered.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

LIKELY = {"hung": 1e-4}
"""Probability of a chance finding, by kind of failure, below which a tile counts as guilty. A
replica that answers but does not get on is no chance event like a process that is killed."""
LIKELY_DEATH = 1e-9
LEAST_TRIALS = {"hung": 2}
LEAST_DEATHS = 3
MOST_TRIALS = 20
"""Trials of a tile without an answer and without proof, after which the run ends."""


def is_guilty(kind: str, trials: int, other_deaths: int, survived: int) -> bool:
    """Returns whether a tile causes the failures of its trials.

    If it did not, each trial would fail as often as other tiles do: with a probability of about
    (other deaths + 1/2) / (tiles survived + 1).

    Args:
        kind: kind of the failures; `died` if they are of several.
        trials: trials in which the replica failed on it, alone and in a row.
        other_deaths: replicas that have died in this run without having this block.
        survived: tiles that have been answered in this run.
    """
    by_chance = min((max(other_deaths, 0) + 0.5) / (survived + 1), 1.0)
    least = LEAST_TRIALS.get(kind, LEAST_DEATHS)
    return trials >= least and by_chance**trials < LIKELY.get(kind, LIKELY_DEATH)


class Trial:
    """Trial of a block's tiles, one after another."""

    def __init__(self, pieces: list[int]) -> None:
        """Starts with the numbers of the tiles to try."""
        self._left = deque(pieces)
        self.failures: Counter[int] = Counter()
        self._kinds: defaultdict[int, set[str]] = defaultdict(set)

    @property
    def next(self) -> int | None:
        """The tile to try next; None if all are cleared or proven guilty."""
        return self._left[0] if self._left else None

    def kind_of(self, piece: int, kind: str) -> str:
        """Notes the kind of a failure; returns that of all failures of the tile."""
        self._kinds[piece].add(kind)
        return kind if len(self._kinds[piece]) == 1 else "died"

    def end(self, piece: int) -> None:
        """Takes a tile out: it was answered, or is proven guilty."""
        self._left.remove(piece)

    def failed(self, piece: int) -> int:
        """Puts a tile behind the others; returns how often replicas have failed on it."""
        self._left.remove(piece)
        self._left.append(piece)
        self.failures[piece] += 1
        return self.failures[piece]
